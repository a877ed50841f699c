"""Several reward models on one base, loaded once. Axes: K reward models, N answers, B answers of a batch.

Reward models that differ by their seed agree where their data taught them and part where it did not, which is where a
policy finds answers that only one of them likes. Their minimum does not pay for such answers, and their disagreement
tells of them (Coste et al. 2023, arXiv 2310.02743; Eisenstein et al. 2023, arXiv 2312.09244).

Each member is a reward model's folder (finlm/scorer.py), or a folder of such folders; scores are in each member's own
exported units. Members with the same adapter, k heads on one adapter, share its pass through the base. A reward model
whose weights all learned is a base of its own, and stands alone.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from finlm import chat_format, fused_lora, runs, scorer
from finlm.adapters import AdapterSwitch
from finlm.errors import UserError
from finlm.generation import pad_right
from finlm.grouping import grouped
from finlm.model import ADAPTER_CONFIG, base_of, load_causal
from finlm.records import Message, content_id
from finlm.scorer import Head, last_hidden
from finlm.tokenizer import load_tokenizer, tokenizer_fingerprint
from finlm.trunk import Trunk

REDUCTIONS = ("mean", "min")
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def reduced(score_KN: Tensor, how: str) -> Tensor:
    """Return the mean or the minimum of the members' scores, (N,)."""
    return score_KN.mean(dim=0) if how == "mean" else score_KN.amin(dim=0)


def disagreement(score_KN: Tensor) -> Tensor:
    """Return the standard deviation of the members' scores, (N,), score units; that of the K themselves, over K."""
    return score_KN.std(dim=0, correction=0)


def members_of(names: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the folders of the reward models that some names stand for, in order.

    Args:
        names: One or more; each is a reward model, a reward run, or a folder that holds some.

    Raises:
        MissingInput: There is no reward model under a name.
        UserError: There is no name, one reward model twice, or a whole model among several.
    """
    found: list[Path] = []
    for name in [names] if isinstance(names, str | Path) else names:
        inner = sorted(path for path in Path(name).glob("*") if _is_reward_model(path))
        is_one = _is_reward_model(Path(name))
        found += [scorer.reward_folder(path) for path in ([Path(name)] if is_one or not inner else inner)]
    if not found:
        raise UserError("No reward model is named; give one or several folders.")
    places = [path.resolve() for path in found]
    for place, path in zip(places, found, strict=True):
        if places.count(place) > 1:
            raise UserError(f"The reward model {path} is named twice; with itself it always agrees.")
    check_together(found)
    return found


def check_together(folders: Sequence[str | Path]) -> None:
    """Check that reward models can share a base.

    Raises:
        UserError: One of several is a whole model.
    """
    for folder in folders:
        if len(folders) > 1 and scorer.is_whole(folder):
            raise UserError(
                f"The reward model in {folder} is a whole model, which shares its weights with no other; an ensemble "
                "is of adapters on one base: train its members with tune: lora, or name this one alone."
            )


def _is_reward_model(folder: Path) -> bool:
    return any((place / scorer.DESCRIPTION).is_file() for place in (folder, folder / "model"))


def check_one_base(folders: Sequence[Path]) -> Path:
    """Return the base that reward models stand on.

    Raises:
        UserError: They stand on different ones, or were trained with different tokenizers.
    """
    first, described = folders[0], scorer.load_description(folders[0])
    base, _ = base_of(first)
    prints = {folder: scorer.load_description(folder).base for folder in folders}
    here = runs.fingerprint(base) if any(prints.values()) or len(folders) > 1 else ""
    for folder in folders:
        own_base, _ = base_of(folder)
        own = prints[folder] or (here if own_base.resolve() == base.resolve() else runs.fingerprint(own_base))
        if own != here:
            whose = "as it lies there now" if folder == first else f"on which {first} stands"
            raise UserError(
                f"The reward model in {folder} was trained on another base (fingerprint {own[:16]}) than {base} "
                f"({here[:16]}), {whose}: its adapter says nothing of that one's states. Take reward models that were "
                "trained on one base."
            )
        tokenizer = scorer.load_description(folder).tokenizer
        if tokenizer != described.tokenizer:
            raise UserError(
                f"The reward model in {folder} was trained with another tokenizer (fingerprint {tokenizer}) than "
                f"{first} ({described.tokenizer}); take reward models that were trained with one."
            )
    return base


def _adapter_id(folder: Path) -> str:
    """The same for adapters that are the same: weights and settings, but not from where they name their base."""
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    settings.pop("base_model_name_or_path", None)
    return content_id(runs.file_hash(folder / ADAPTER_WEIGHTS), settings)


@dataclass(frozen=True, slots=True)
class Member:
    """One reward model of an ensemble; a whole model has no adapter.

    Example:
        Member(folder=Path("runs/reward/model"), adapter="reward_0", head=Head(576), closes_cut=False)
    """

    folder: Path
    adapter: str
    head: Head
    closes_cut: bool
    """True if it reads a cut answer with an end token behind it."""


def _member(folder: Path, adapter: str, model: LlamaForCausalLM | PeftModel, device: torch.device) -> Member:
    head = scorer.load_head(folder, width=model.config.hidden_size).to(device)
    return Member(folder, adapter, head, closes_cut=not scorer.load_description(folder).learned_from_cut)


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """A prompt with its answer as token ids.

    Example:
        EncodedAnswer(ids=(216, 24248, 2), ended=True)
    """

    ids: tuple[int, ...]
    ended: bool
    """False: the answer was cut off, and its end token is not among the ids."""

    def __len__(self) -> int:
        """Tokens, with the end token that a member may put behind a cut answer."""
        return len(self.ids) + (not self.ended)


class Ensemble:
    """Reward models ready to score answers; one alone is an ensemble too. Any thread may ask; one is served at a time.

    Args:
        model: The base with all adapters, or the one whole model.
        members: The reward models.
        tokenizer: Their tokenizer.

    Attributes:
        members: The reward models, in the order they were named in.
        tokenizer: Their tokenizer.
        base: The folder of the base; of a whole model its own.
    """

    def __init__(
        self,
        model: LlamaForCausalLM | PeftModel,
        members: Sequence[Member],
        tokenizer: PreTrainedTokenizerBase,
        base: Path,
    ) -> None:
        self.members = tuple(members)
        self.tokenizer = tokenizer
        self.base = base
        self._model = model
        self._trunk = Trunk(model) if isinstance(model, PeftModel) else None
        self._switch = AdapterSwitch(model)
        # an adapter is on for all threads, and a tokenizer serves one
        self._model_lock, self._tokenizer_lock = threading.Lock(), threading.Lock()

    @classmethod
    def load(cls, names: str | Path | Sequence[str | Path], *, dtype: torch.dtype, device: torch.device) -> "Ensemble":
        """Load reward models with the base that they stand on.

        Raises:
            MissingInput: A reward model or the base is not there.
            UserError: They do not fit together, or not to their base.
        """
        folders = members_of(names)
        base = check_one_base(folders)
        tokenizer = load_tokenizer(base)
        scorer.check_same_tokenizer(folders[0], tokenizer)
        if scorer.is_whole(folders[0]):
            body = scorer.load_body(folders[0], dtype=dtype, device=device).requires_grad_(False)
            return cls(body, [_member(folders[0], "", body, device)], tokenizer, base)
        ids = [_adapter_id(folder) for folder in folders]
        adapters = {name: f"reward_{number}" for number, name in enumerate(dict.fromkeys(ids))}
        first = scorer.lora_of(folders[0])
        model = PeftModel(load_causal(base, dtype=dtype, device=device), first, adapter_name=adapters[ids[0]])
        members = []
        for folder, name in zip(folders, ids, strict=True):
            if adapters[name] not in model.peft_config:
                model.add_adapter(adapters[name], scorer.lora_of(folder))
            members.append(_member(folder, adapters[name], model, device))
        for name, adapter in adapters.items():
            scorer.load_adapter_weights(model, folders[ids.index(name)], adapter)
        model.requires_grad_(False).eval()
        fused_lora.install(model)
        return cls(model, members, tokenizer, base)

    @property
    def longest(self) -> int:
        """Tokens of prompt and answer that the base has positions for."""
        return int(self._model.config.max_position_embeddings)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hash of each member's files by its folder, of the base's files and of the vocabulary."""
        found = {str(member.folder): runs.fingerprint(member.folder) for member in self.members}
        return found | {"base": runs.fingerprint(self.base), "tokenizer": tokenizer_fingerprint(self.tokenizer)}

    def encode(self, prompt: Sequence[Message], answer: str, *, ended: bool = True) -> EncodedAnswer:
        """Encode an answer behind its prompt; `ended`: the model that wrote it ended it by itself."""
        with self._tokenizer_lock:
            ids = chat_format.encode(self.tokenizer, prompt).ids
            return EncodedAnswer((*ids, *chat_format.encode_answer(self.tokenizer, answer, ended=ended)), ended)

    @torch.inference_mode()
    def score(
        self,
        answers: Sequence[EncodedAnswer],
        *,
        batch_tokens: int,
        on_batch: Callable[[int], None] = lambda count: None,
    ) -> Tensor:
        """Score answers by all members, in batches of similar length.

        Args:
            answers: The answers.
            batch_tokens: Tokens of a batch at most, padding included, unless a single answer has more.
            on_batch: Called with the number of answers after each batch.

        Returns:
            Scores (K, N), float32, on the CPU, in the units of each member's `reward.json`.
        """
        score_KN = torch.empty(len(self.members), len(answers))
        for places in grouped([len(answer) for answer in answers], size=len(answers), tokens=batch_tokens):
            with self._model_lock:
                score_KN[:, places] = self._read([answers[place] for place in places])
            on_batch(len(places))
        return score_KN

    def _read(self, answers: Sequence[EncodedAnswer]) -> Tensor:
        """Scores (K, B) of one batch."""
        score_KB = torch.empty(len(self.members), len(answers))
        for closes_cut in sorted({member.closes_cut for member in self.members}):
            closing = (self.tokenizer.eos_token_id,) if closes_cut else ()
            rows = [answer.ids if answer.ended else (*answer.ids, *closing) for answer in answers]
            ids_BT, is_token_BT = pad_right(rows, self.tokenizer.pad_token_id, self._model.device)
            trunk = self._trunk if self._trunk is not None and self._trunk.depth else None
            lower_BTD = trunk.states(ids_BT, is_token_BT) if trunk is not None else None
            own = [place for place, member in enumerate(self.members) if member.closes_cut == closes_cut]
            for adapter in dict.fromkeys(self.members[place].adapter for place in own):
                with self._switch(adapter):
                    if trunk is None or lower_BTD is None:
                        hidden_BTD = last_hidden(self._model, ids_BT, is_token_BT)
                    else:
                        hidden_BTD = trunk.finish(lower_BTD, is_token_BT)
                last_BD = hidden_BTD[torch.arange(len(rows), device=ids_BT.device), is_token_BT.sum(dim=1) - 1]
                for place in own:
                    if self.members[place].adapter == adapter:
                        score_KB[place] = self.members[place].head(last_BD).cpu()
        return score_KB
