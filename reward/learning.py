"""The model that learns: a head, with an adapter on a frozen base or with all weights of the model.

Its weights are kept as they are after each epoch, and taken up again: from an epoch, or from an exported reward model,
which a second phase goes on from. The output embedding is not read and stays as it was.
"""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from finlm import config, fused_lora, scorer
from finlm.errors import UserError
from finlm.tuning import Tuning
from reward import readings


def learning(settings: Tuning, causal: LlamaForCausalLM) -> Any:
    """Return the model with what learns, ready for packed comparisons; `causal` becomes part of it."""
    readings.install(causal)
    if settings.tune == "full":
        causal.requires_grad_(True)
        if not causal.config.tie_word_embeddings:
            causal.lm_head.requires_grad_(False)
        return causal
    named: dict[str, Any] = {"task_type": "CAUSAL_LM", "modules_to_save": [readings.HEAD]}
    if settings.lora.get("target_modules") == "all-linear":  # PEFT takes the head for one of them
        named["exclude_modules"] = [readings.HEAD]
    adapted = get_peft_model(causal, config.section("lora", settings.lora, LoraConfig, named))
    fused_lora.install(adapted)
    return adapted


def head_of(trained: Any) -> Tensor:
    """Return the trained head's weight, (D,), float32, in main memory."""
    return _trained_head(trained).detach().float().cpu().reshape(-1)


def _trained_head(trained: Any) -> Tensor:
    if isinstance(trained, PeftModel):
        adapted: Tensor = getattr(trained.get_base_model(), readings.HEAD).modules_to_save["default"].weight
        return adapted
    weight: Tensor = getattr(trained, readings.HEAD).weight
    return weight


def take(trained: Any, folder: Path) -> None:
    """Give the model the weights that `finlm.model.save_trained` wrote of it."""
    if isinstance(trained, PeftModel):
        set_peft_model_state_dict(trained, load_peft_weights(str(folder), device="cpu"))
        return
    for file in sorted(folder.glob("*.safetensors")):
        found = trained.load_state_dict(load_file(file), strict=False)
        assert not found.unexpected_keys, found.unexpected_keys


@torch.no_grad()
def settle(trained: Any, dtype: torch.dtype) -> None:
    """Round all weights to the dtype that they are exported in, but for the head's."""
    head = _trained_head(trained)
    for parameter in trained.parameters():
        if parameter is not head:
            parameter.data = parameter.data.to(dtype)


def begun_from(start: str, base: Path, *, tune: str) -> Path:
    """Return the folder of the model to load: the base, or the whole reward model that a second phase goes on from.

    Raises:
        MissingInput: There is no reward model at `start`.
        UserError: It is of the other kind than what learns.
    """
    if not start:
        return base
    folder, is_whole = scorer.reward_folder(start), scorer.is_whole(start)
    if is_whole != (tune == "full"):
        kinds = {True: ("a whole model", "full"), False: ("an adapter", "lora")}
        raise UserError(
            f"The reward model in {start} is {kinds[is_whole][0]}, and tune is {tune!r}; set tune to "
            f"{kinds[is_whole][1]}, or begin from another."
        )
    return folder if is_whole else base


@torch.no_grad()
def go_on_from(trained: Any, folder: str | Path) -> None:
    """Give a model that is to be trained the adapter and the head of an exported reward model, its scale undone.

    A whole model was loaded from there (`begun_from`), and gets its head alone.

    Args:
        trained: The model with what learns.
        folder: The reward model, or the run that exported it.

    Raises:
        MissingInput: There is no reward model.
        UserError: Its adapter has other weights than this one, or its head another width.
    """
    head = scorer.load_head(folder, width=trained.config.hidden_size)
    raw = head.weight * scorer.load_description(folder).std
    if isinstance(trained, PeftModel):
        # PEFT takes an adapter's weights and those of modules that it saves together, or not at all
        weights = load_peft_weights(str(scorer.reward_folder(folder)), device="cpu")
        weights[f"base_model.model.{readings.HEAD}.weight"] = raw
        try:
            found = set_peft_model_state_dict(trained, weights)
        except RuntimeError as error:
            raise _another_adapter(folder, " ".join(str(error).split())[:200]) from error
        missing = [name for name in found.missing_keys if "lora_" in name and ".default." in name]
        if found.unexpected_keys or missing:
            counts = f"{len(missing)} weights are missing there and {len(found.unexpected_keys)} unknown here"
            raise _another_adapter(folder, counts)
    _trained_head(trained).copy_(raw)


def _another_adapter(folder: str | Path, reason: str) -> UserError:
    return UserError(
        f"The reward model in {folder} has another adapter ({reason}); set lora as its run's config.yaml has it."
    )
