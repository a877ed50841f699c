"""What learns in fine-tuning, adapters or all weights, in which dtype, by which optimizer; and how it is exported."""

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaForCausalLM

from finlm import config, fused_lora, model, packed_loss, runs
from finlm.errors import UserError
from finlm.tokenizer import load_tokenizer

EXPORTED = torch.bfloat16


class Tuning(Protocol):
    """The settings that say what learns."""

    @property
    def tune(self) -> str:
        """`lora` or `full`."""

    @property
    def optimizer(self) -> str:
        """`adamw` or `adamw_8bit`."""

    @property
    def dtype(self) -> str:
        """`auto`, `bfloat16` or `float32`."""

    @property
    def lora(self) -> dict[str, Any]:
        """Fields of LoraConfig."""


def require(optimizer: str, processes: int) -> None:
    """Check that an optimizer is there, and can do what is asked for.

    Raises:
        UserError: It is not installed, or several processes would share its moments of eight bits.
    """
    if optimizer != "adamw_8bit":
        return
    if importlib.util.find_spec("torchao") is None:
        raise UserError(
            "optimizer is 'adamw_8bit', which is torchao's, and torchao is not installed: pip install 'finlm[cuda]', "
            "or set optimizer to adamw, which takes 16 bytes a weight instead of 6."
        )
    if processes > 1:
        # torch puts cut moments of eight bits together to a file that it does not read again; copies would round apart
        raise UserError(
            f"optimizer is 'adamw_8bit' in {processes} processes, and is for one: start one process, or set optimizer "
            "to adamw, whose 16 bytes a weight are cut over the processes by configs/accelerate/sft_fsdp2.yaml."
        )


def of_optimizer(optimizer: str) -> dict[str, Any]:
    """Return the fields of TrainingArguments that choose an optimizer."""
    if optimizer == "adamw":
        return {}
    # a step of 1e-5 is below the last bit of most bfloat16 weights: rounded by chance it counts on average
    return {"optim": "adamw_torch_8bit", "optim_args": "bf16_stochastic_round=True"}


def computed_in(settings: Tuning, device: torch.device) -> torch.dtype:
    """Return the dtype of products and activations."""
    return model.choose_dtype(settings.dtype, device)


def kept_in(settings: Tuning, device: torch.device) -> torch.dtype:
    """Return the dtype of the weights: float32 where plain AdamW steps on them themselves."""
    if settings.tune == "full" and settings.optimizer == "adamw":
        return torch.float32
    return computed_in(settings, device)


def autocast(settings: Tuning, device: torch.device) -> torch.dtype | None:
    """Return the dtype that float32 weights are rounded to for products; None where they are what they compute in."""
    wanted = computed_in(settings, device)
    return wanted if wanted != kept_in(settings, device) else None


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
