"""A trained reward model as files, and scoring with it.

    runs/reward/model/
        adapter_config.json, adapter_model.safetensors    LoRA on the base that the policy also stands on, or
        config.json, model.safetensors, tokenizer         a whole model, whose weights all learned
        head.safetensors                                  weight (D,) and bias (), the normalisation folded in
        reward.json                                       mean and std before normalisation, fingerprints

An answer's score is the head's reading of the hidden state at the answer's last token: score = w.h + b, in units where
the fine-tuned model's own answers have mean 0 and standard deviation 1. A cut answer is read as it stands by a model
that learned from such, with an end token behind it by one that did not.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from finlm import chat_format, jsonl, runs
from finlm.errors import MissingInput, UserError
from finlm.generation import pad_right
from finlm.model import ADAPTER_CONFIG, UNREADABLE, base_of, load_causal
from finlm.records import Message
from finlm.tokenizer import load_tokenizer, tokenizer_fingerprint
from finlm.unpadded import hidden_states

DESCRIPTION = "reward.json"
HEAD = "head.safetensors"
WHOLE = "config.json"
"""Lies in the folder of a whole model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardDescription:
    """What `reward.json` holds.

    Example:
        RewardDescription(mean=0.31, std=1.9, normalised_on="SFT answers that end", tokenizer="ab12…")
    """

    mean: float
    """Mean raw score of the answers that the normalisation was taken on."""
    std: float
    normalised_on: str
    tokenizer: str
    """Fingerprint of the tokenizer that the model was trained with."""
    base: str = ""
    """Fingerprint of the folder of the base that the adapter is for; empty where it was not kept, and of a whole
    model, which stands on itself."""
    learned_from_cut: bool = True
    """True if answers without their end token were among those it learned from. Else its reading off an end token means
    nothing, and a cut answer is scored with an end token put behind it."""

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"the standard deviation of the scores is {self.std}; it must be above 0")


class Head(nn.Linear):
    """A linear reading of hidden states, (…, D) -> (…,), computed in float32 whatever the model's dtype."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Read one number per position."""
        return super().forward(hidden.float()).squeeze(-1)


def fold(weight_D: torch.Tensor, mean: float, std: float) -> Head:
    """Return the head whose reading is (w.h - mean) / std."""
    head = Head(weight_D.numel())
    with torch.no_grad():
        head.weight.copy_(weight_D.float().reshape(1, -1) / std)
        head.bias.fill_(-mean / std)
    return head


def save_description(folder: Path, head: Head, description: RewardDescription) -> None:
    """Write the head and its description beside the adapter in `folder`."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}, folder / HEAD)
    (folder / DESCRIPTION).write_text(json.dumps(asdict(description), indent=2) + "\n", encoding="utf-8")


def reward_folder(folder: str | Path) -> Path:
    """Return the folder with the files above; a reward run answers for its `model`.

    Raises:
        MissingInput: There is no reward model.
    """
    folder = Path(folder)
    if (folder / "model" / DESCRIPTION).is_file():
        folder = folder / "model"
    for name in (DESCRIPTION, HEAD, ADAPTER_CONFIG):
        if not (folder / name).is_file() and not (name == ADAPTER_CONFIG and (folder / WHOLE).is_file()):
            raise MissingInput(f"{folder} holds no reward model ({name} is missing); make one: python reward/train.py")
    return folder


def is_whole(folder: str | Path) -> bool:
    """True if a reward model is a model of its own, whose weights all learned; False: an adapter on a base."""
    return (reward_folder(folder) / WHOLE).is_file()


def load_description(folder: str | Path) -> RewardDescription:
    """Read `reward.json`.

    Raises:
        MissingInput: There is no reward model.
        UserError: The file is damaged.
    """
    found = jsonl.read_whole(reward_folder(folder) / DESCRIPTION, RewardDescription)
    assert found is not None
    return found


def load_head(folder: str | Path, *, width: int) -> Head:
    """Read the head of a reward model.

    Args:
        folder: The reward model.
        width: Numbers in a state of the base it is put on; a whole model has its own.

    Raises:
        UserError: It reads states of another width, or its file is damaged.
    """
    folder = reward_folder(folder)
    if is_whole(folder):
        width = json.loads((folder / WHOLE).read_text(encoding="utf-8"))["hidden_size"]
    try:
        state = load_file(folder / HEAD)
        found = state["weight"].numel()
        head = Head(found)
        head.load_state_dict(state)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / HEAD} cannot be read ({reason}); copy the reward model again.") from error
    if found != width:
        raise UserError(
            f"The head of the reward model in {folder} reads states {found} wide, those of its base are {width} wide; "
            "it belongs to another model: take the reward model that was trained on this base."
        )
    return head


def lora_of(folder: str | Path) -> LoraConfig:
    """Return the LoRA configuration of the reward adapter."""
    return LoraConfig.from_pretrained(reward_folder(folder))


def load_body(
    folder: str | Path, *, dtype: torch.dtype, device: torch.device, adapter: str = "reward"
) -> LlamaForCausalLM | PeftModel:
    """Load what a reward model's head reads: the whole model, or the base with the adapter under a name.

    Raises:
        MissingInput: The reward model or its base is not there.
        UserError: The adapter does not fit the base.
    """
    folder = reward_folder(folder)
    base, _ = base_of(folder)
    causal = load_causal(base, dtype=dtype, device=device)
    if is_whole(folder):
        return causal.eval()
    model = PeftModel(causal, lora_of(folder), adapter_name=adapter)
    load_adapter_weights(model, folder, adapter)
    return model.eval()


def load_adapter_weights(model: PeftModel, folder: str | Path, name: str) -> None:
    """Copy the reward adapter's weights into the adapter `name` of a model on the same base.

    Raises:
        UserError: The adapter was made for a model of another shape.
    """
    folder = reward_folder(folder)
    weights = load_peft_weights(folder, device="cpu")
    try:
        result = set_peft_model_state_dict(model, weights, adapter_name=name)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The reward adapter in {folder} does not fit this base ({reason}); train it on the model that PPO starts "
            "from: python reward/train.py --model <base>."
        ) from error
    missing = [key for key in result.missing_keys if f".{name}." in key]
    if result.unexpected_keys or missing:
        raise UserError(
            f"The reward adapter in {folder} does not fit this base: {len(missing)} weights are missing and "
            f"{len(result.unexpected_keys)} unknown; train it on the model that PPO starts from."
        )


def check_same_tokenizer(folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a reward model was trained with this tokenizer.

    Raises:
        UserError: It was trained with another one.
    """
    trained_with = load_description(folder).tokenizer
    here = tokenizer_fingerprint(tokenizer)
    if trained_with != here:
        raise UserError(
            f"The reward model in {folder} was trained with another vocabulary (fingerprint {trained_with}, the "
            f"policy's is {here}); train it on the policy's base: python reward/train.py --model <base>."
        )


def check_same_base(folder: str | Path, base: str | Path) -> None:
    """Check that a reward model was trained on this base: on another of the same shape it says nothing, unnoticed.

    Raises:
        UserError: It was trained on another one.
    """
    trained_on = load_description(folder).base
    if trained_on and trained_on != runs.fingerprint(base):
        raise UserError(
            f"The reward model in {folder} was trained on another base than {base} (fingerprint {trained_on[:16]}): "
            "its adapter says nothing of this one's states; train it on the policy's base: python reward/train.py "
            f"--model {base}."
        )


def last_hidden(model: Any, ids_BT: torch.Tensor, is_token_BT: torch.Tensor) -> torch.Tensor:
    """Return the hidden states (B, T, D) after the final norm, under whatever adapter is on; rows are padded right."""
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    return hidden_states(causal.model, is_token_BT, input_ids=ids_BT)


@torch.inference_mode()
def score_rows(
    model: Any,
    head: Head,
    rows: Sequence[Sequence[int]],
    *,
    pad: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> torch.Tensor:
    """Score rows of prompt and answer ids at their last token, in batches of similar length.

    Returns:
        Scores (N,), float32, on the CPU.
    """
    device = next(model.parameters()).device
    scores = torch.empty(len(rows))
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(by_length), batch_size):
        indices = by_length[start : start + batch_size]
        ids_BT, is_token_BT = pad_right([rows[index] for index in indices], pad, device)
        hidden_BTD = last_hidden(model, ids_BT, is_token_BT)
        last_B = is_token_BT.sum(dim=1) - 1
        scores[indices] = head(hidden_BTD[torch.arange(len(indices), device=device), last_B]).cpu()
        on_batch(len(indices))
    return scores


class Scorer:
    """A reward model ready to score answers; `closes_cut`: it puts an end token behind those that have none."""

    def __init__(
        self,
        model: LlamaForCausalLM | PeftModel,
        head: Head,
        tokenizer: PreTrainedTokenizerBase,
        *,
        closes_cut: bool = False,
    ) -> None:
        self.model = model
        self.head = head
        self.tokenizer = tokenizer
        self.closes_cut = closes_cut

    @classmethod
    def load(cls, folder: str | Path, *, dtype: torch.dtype, device: torch.device) -> "Scorer":
        """Load a reward model, an adapter with the base that it names.

        Raises:
            MissingInput: The reward model or its base is not there.
            UserError: It does not fit its base.
        """
        folder = reward_folder(folder)
        base, _ = base_of(folder)
        tokenizer = load_tokenizer(base)
        check_same_tokenizer(folder, tokenizer)
        model = load_body(folder, dtype=dtype, device=device)
        closes_cut = not load_description(folder).learned_from_cut
        head = load_head(folder, width=model.config.hidden_size).to(device)
        return cls(model, head, tokenizer, closes_cut=closes_cut)

    def score(
        self,
        answers: Sequence[tuple[Sequence[Message], str, bool]],
        *,
        batch_size: int = 16,
        on_batch: Callable[[int], None] = lambda count: None,
    ) -> list[float]:
        """Score (prompt's messages, answer's text, whether it ended); units of `reward.json`."""
        rows = [
            [
                *chat_format.encode(self.tokenizer, messages).ids,
                *chat_format.encode_answer(self.tokenizer, text, ended=ended or self.closes_cut),
            ]
            for messages, text, ended in answers
        ]
        scores = score_rows(
            self.model, self.head, rows, pad=self.tokenizer.pad_token_id, batch_size=batch_size, on_batch=on_batch
        )
        return [float(score) for score in scores]
