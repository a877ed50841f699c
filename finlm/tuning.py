"""What a stage that trains a model lets learn, adapters or all weights: in which dtype, and by which optimizer."""

import importlib.util
from typing import Any, Protocol

import torch

from finlm import model
from finlm.errors import UserError


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


def check_fits(settings: Tuning) -> None:
    """Check that the optimizer is one for what learns.

    Raises:
        ValueError: It is not.
    """
    if settings.optimizer == "adamw_8bit" and settings.tune != "full":
        raise ValueError("optimizer adamw_8bit is for tune: full; an adapter's moments are small: take adamw.")


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


def bytes_to_come(settings: Tuning, device: torch.device, weights: int) -> int:
    """Return the bytes of gradients and moments of all weights, besides the weights themselves; of an adapter 0."""
    if settings.tune != "full":
        return 0
    moments = 2 if settings.optimizer == "adamw_8bit" else 8
    return weights * (kept_in(settings, device).itemsize + moments)
