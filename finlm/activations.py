"""Whether a training pass may keep its activations, or must compute them again for the backward pass.

Computing them again makes a step a third longer, and gives the same numbers.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SPARE = 1.25
"""Memory that must be free for a byte of activations: gradients, the optimizer's moments, what fragments."""


def token_bytes(config: LlamaConfig, dtype: torch.dtype) -> int:
    """Return the bytes that a layer's backward pass wants of the forward pass, of one token in all layers.

    Per layer eight rows as wide as the model (the inputs of both norms and what they give, queries, keys, values, what
    was attended) and three as wide as the gate (gate, up, their product). That is of the fused parts of
    `finlm.fused_layers` and `finlm.fused_lora`; others keep more.
    """
    width = 8 * config.hidden_size + 3 * config.intermediate_size
    return int(config.num_hidden_layers * width * dtype.itemsize)


def fit(model: LlamaForCausalLM, tokens: int, *, dtype: torch.dtype | None = None, to_come: int = 0) -> bool:
    """Return True if the activations of a pass fit beside the model, on a GPU with room to spare; a CPU is not asked.

    Args:
        model: The model, where it is.
        tokens: The most tokens of a pass.
        dtype: What is computed in; None: the model's own.
        to_come: Bytes that gradients and moments of a model whose weights all learn will take.
    """
    if model.device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(model.device)
    return tokens * token_bytes(model.config, dtype or model.dtype) * SPARE <= free - to_come
