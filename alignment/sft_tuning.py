"""What learns in fine-tuning, adapters or all weights (finlm/tuning.py), and how it is exported."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaForCausalLM

from finlm import config, fused_lora, model, packed_loss, runs
from finlm.tokenizer import load_tokenizer
from finlm.tuning import Tuning

EXPORTED = torch.bfloat16


def learning(settings: Tuning, causal: LlamaForCausalLM) -> Any:
    """Return the model with what learns, ready for packed rows."""
    packed_loss.install(causal)
    if settings.tune == "full":
        return causal.requires_grad_(True)
    lora = config.section("lora", settings.lora, LoraConfig, {"task_type": "CAUSAL_LM"})
    adapted = get_peft_model(causal, lora)
    fused_lora.install(adapted)
    return adapted


def export(trained: Any, weights: dict[str, Tensor] | None, base: Path, out: Path, *, of: Path | None) -> None:
    """Write the model that all later stages stand on, `model/`, in bfloat16; on the main process.

    Adapters are written to `adapter/` as they are in the end, and merged with the base in float32.

    Args:
        trained: The model as it stands.
        weights: What learned, by name, where the model holds shards of it.
        base: The model that was begun with.
        out: Folder of the run.
        of: Folder of the weights to export; None takes those of the model.
    """
    if hasattr(trained, "peft_config"):
        with runs.whole_folder(out / "adapter") as aside:
            model.save_trained(trained, aside, weights)
        model.export_merged(base, of or out / "adapter", out / "model", dtype=EXPORTED)
        return
    if of is not None:
        whole = model.load_causal(of, dtype=EXPORTED, device=torch.device("cpu"))
    else:
        whole = model.copy_of(trained, weights or trained.state_dict(), EXPORTED)
    whole.config.use_cache = True  # a Trainer turns it off
    model.export_whole(whole, load_tokenizer(base), out / "model")
