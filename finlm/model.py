"""Loading models and moving LoRA adapters in and out of files.

Weights come from safetensors and JSON only; no code of a model folder is ever run.
"""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from finlm import fused_layers, runs, unpadded
from finlm.embedded import EMBEDDED, import_embedded
from finlm.errors import MissingInput, UserError
from finlm.tokenizer import check_vocabulary, load_tokenizer

ADAPTER_CONFIG = "adapter_config.json"
ARCHITECTURE = "llama"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
"""What the libraries raise on files that are damaged or do not belong together."""

transformers_logging.disable_progress_bar()


def device_of_this_process() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # accelerate sets the current device only later; loading must not put every process's weights on the first GPU
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def has_fast_bfloat16(device: torch.device) -> bool:
    """True on a GPU and on a CPU that multiplies bfloat16 matrices in hardware."""
    return device.type == "cuda" or bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of frozen weights: `auto` is bfloat16 where the hardware is fast at it, else float32.

    Raises:
        UserError: Another name than auto, bfloat16 or float32.
    """
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if name in {"bfloat16", "float32"}:
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    raise UserError(f"dtype is {name!r}; it must be auto, bfloat16 or float32.")


def resolve_model(name: str, run_root: str) -> Path:
    """Return the folder of a model: `embedded` is made under the run root on first use, all else is a path."""
    return import_embedded(Path(run_root) / "base") if name == EMBEDDED else Path(name)


def _need_memory(folder: Path, stored: str, dtype: torch.dtype, device: torch.device) -> None:
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    needed = weights * (2 if dtype == torch.float32 and "16" in stored else 1)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed * 1.2 > free:
        raise UserError(
            f"{folder} needs {needed * 1.2 / 1e9:.1f} GB of memory on {device} as {dtype}, "
            f"{free / 1e9:.1f} GB are free; close other programs, take a smaller model, or another device."
        )


def load_causal(folder: str | Path, *, dtype: torch.dtype, device: torch.device) -> LlamaForCausalLM:
    """Load a full causal language model.

    Raises:
        MissingInput: The folder holds no safetensors model.
        UserError: The model is of another architecture, damaged or not whole, or the memory does not suffice.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise MissingInput(f"{folder} holds no model (config.json and *.safetensors); give a model folder.")
    try:
        stored = AutoConfig.from_pretrained(folder, local_files_only=True)
    except UNREADABLE as error:
        raise _unreadable(folder, error) from error
    if stored.model_type != ARCHITECTURE:
        raise UserError(f"{folder} is a model of type {stored.model_type!r}; only {ARCHITECTURE!r} models are known.")
    _need_memory(folder, str(stored.dtype), dtype, device)
    try:
        model, report = LlamaForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise _unreadable(folder, error) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(
            f"{folder}: {len(missing)} weights are missing ({missing[0]} for one), which would be drawn at random; "
            "copy the model folder again."
        )
    return fused_layers.install(unpadded.install(model.to(device)))


def _unreadable(folder: Path, error: BaseException) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{folder}: the model cannot be loaded ({type(error).__name__}: {reason}); copy its folder again.")


def _adapted(model: LlamaForCausalLM, adapter: Path) -> PeftModel:
    try:
        return PeftModel.from_pretrained(model, adapter, local_files_only=True, use_safetensors=True)
    except UNREADABLE as error:
        raise _unreadable(adapter, error) from error


def base_of(folder: str | Path) -> tuple[Path, Path | None]:
    """Return the base model's folder and the adapter's folder (None for a full model) that `folder` stands for.

    A run answers for what it made: `runs/sft` for `runs/sft/model`, `runs/ppo` for `runs/ppo/policy`. An adapter names
    its base relative to itself.

    Raises:
        MissingInput: There is neither a model nor an adapter.
    """
    folder = Path(folder)
    for made in runs.EXPORTS:
        if not (folder / "config.json").is_file() and (folder / made).is_dir():
            folder = folder / made
    if (folder / "config.json").is_file():
        return folder, None
    if (folder / ADAPTER_CONFIG).is_file():
        named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
        return Path(os.path.normpath(folder / named)), folder
    raise MissingInput(f"{folder} holds neither a model (config.json) nor an adapter ({ADAPTER_CONFIG}).")


def load_policy(
    folder: str | Path, *, dtype: torch.dtype, device: torch.device
) -> tuple[LlamaForCausalLM | PeftModel, PreTrainedTokenizerBase]:
    """Load a chat model for inference, full or as an adapter on its base, with its tokenizer.

    Raises:
        MissingInput: There is no model at `folder`.
        UserError: Model and tokenizer do not belong together.
    """
    base, adapter = base_of(folder)
    tokenizer = load_tokenizer(base)
    model = load_causal(base, dtype=dtype, device=device)
    check_vocabulary(tokenizer, model.get_input_embeddings().num_embeddings, str(base))
    if adapter is not None:
        return _adapted(model, adapter).eval(), tokenizer
    return model.eval(), tokenizer


def order_targets(lora: Any) -> None:
    """Sort an adapter's target modules before it is saved.

    PEFT keeps them as a set, whose order changes from process to process, so equal adapters would have unequal files.
    """
    if isinstance(lora.target_modules, set):
        lora.target_modules = sorted(lora.target_modules)


def save_trained(model: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write what was trained into a folder: the adapter of a PEFT model, else the whole model.

    Args:
        model: The model.
        folder: Where to.
        weights: The trained weights by name, where the model holds shards of them.
    """
    adapters = getattr(model, "peft_config", {})
    for lora in adapters.values():
        order_targets(lora)
    model.save_pretrained(folder, state_dict=weights, **({"save_embedding_layers": False} if adapters else {}))
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's names no data of ours


def export_merged(base: Path, adapter: Path, out: Path, *, dtype: torch.dtype) -> None:
    """Write base + adapter as one full model folder: merged once, in float32, then cast to `dtype`."""
    tokenizer = load_tokenizer(base)
    model = load_causal(base, dtype=torch.float32, device=torch.device("cpu"))
    merged: Any = _adapted(model, adapter)
    export_whole(merged.merge_and_unload().to(dtype), tokenizer, out)


def export_whole(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write a model folder, whole or not at all."""
    runs.need_disk(out, 1.1 * sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9)
    with runs.whole_folder(out) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def copy_of(model: LlamaForCausalLM, weights: Mapping[str, Tensor], dtype: torch.dtype) -> LlamaForCausalLM:
    """Return a model of another's shape with these weights, rounded to `dtype`, in main memory."""
    with torch.device("meta"):
        made = LlamaForCausalLM(copy.deepcopy(model.config))
    here = {name: weight.detach().to("cpu", dtype) for name, weight in weights.items()}
    made.load_state_dict(here, strict=not model.config.tie_word_embeddings, assign=True)
    made.tie_weights()
    made.generation_config = model.generation_config
    return made
