"""PPO-ptx: text and instructions mixed into the policy's steps, so that it keeps what it learned before.

    loss = PPO's - gamma_ptx E[log pi(x)]

Ouyang et al. 2022 (InstructGPT, arXiv 2203.02155), equation 2; here the expectation is the mean over learned tokens.
What is mixed in is read, drawn and packed as in fine-tuning. Axes: N tokens of all samples, L learned ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from alignment.layouts import Layout
from alignment.lessons import Part, Totals
from alignment.ppo_config import PPOConfig
from finlm import streams
from finlm.batches import IGNORE, packed
from finlm.drawing import Drawing, Picked
from finlm.likelihood import token_log_probs
from finlm.records import Removal
from finlm.samples import Row, Sample
from finlm.unpadded import packed_states

FORMS = ("open-book", "closed-book", "")
"""All there are."""
NAMES = {"instructions-finance": "ptx_instructions", "text-finance": "ptx_text"}
"""What the streams are called in PPO's settings; general text and instructions may be among them."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """Samples that pass through the model together, none seeing another.

    Example:
        Mixed((Sample(…), Sample(…)))
    """

    all: tuple[Sample, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.all)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.all))

    @property
    def learned(self) -> int:
        """Tokens that the loss counts."""
        return sum(sample.learned for sample in self.all)

    def rows(self, start: int, stop: int) -> "Mixed":
        """Return some of the samples."""
        return Mixed(self.all[start:stop])


class Mixture:
    """The packed rows of each step, decided by the seed and the step's number.

    Args:
        train: Samples of each stream.
        shares: Share of each stream among all tokens.
        room: Tokens of a packed row.
        rows: Rows of a step, over all processes.
        seed: Decides every order.
        removals: What was set aside.
    """

    def __init__(
        self,
        train: Mapping[str, Sequence[Sample]],
        shares: Mapping[str, float],
        *,
        room: int,
        rows: int,
        seed: int,
        removals: Sequence[Removal] = (),
    ) -> None:
        self.removals = list(removals)
        self._train, self._shares = train, shares
        lengths = {name: [len(sample) for sample in its] for name, its in train.items()}
        self._begun = partial(Drawing, lengths, room=room, rows=rows, seed=seed)
        self._drawing, self._next = self._begun(), 0

    @classmethod
    def read(cls, args: PPOConfig, tokenizer: PreTrainedTokenizerBase) -> "Mixture":
        """Read and encode what the settings name, without the held-out groups.

        Raises:
            MissingInput: A file is not there.
            UserError: A file cannot be used, or there is nothing to learn of what has a share.
        """
        found = streams.load(
            args.ptx_files,
            tokenizer,
            max_length=args.ptx_max_length,
            forms=FORMS,
            test_share=args.ptx_test_share,
            test_samples=0,
            cache=Path(args.ptx_cache),
        )
        streams.require_samples(args.ptx_shares, found, called=NAMES, prefix="ptx_")
        sizes = {"room": args.ptx_max_length, "rows": args.ptx_rows, "seed": args.seed}
        return cls(found.train, args.ptx_shares, **sizes, removals=found.removals)

    def step(self, number: int) -> list[Row]:
        """Return the rows of a step, counted from 0; those of a step before come again as they were."""
        if number < self._next:
            self._drawing, self._next = self._begun(), 0
        while self._next < number:
            self._draw()
        return streams.rows_of(self._train, self._draw())

    def _draw(self) -> list[list[Picked]]:
        self._next += 1
        return self._drawing.step(self._shares)


def micro_batches(rows: Sequence[Row], *, size: int) -> list[Mixed]:
    """Put the samples of `size` rows at a time together."""
    return [
        Mixed(tuple(chain.from_iterable(row.samples for row in rows[start : start + size])))
        for start in range(0, len(rows), size)
    ]


def gradients(
    roles: Layout, mixed: Mixed, parameters: Sequence[nn.Parameter], *, coefficient: float, learned_tokens: float
) -> Part:
    """Return the policy's gradients of the mixed-in loss, divided by the learned tokens of the whole step.

    Args:
        roles: The model.
        mixed: The samples.
        parameters: The policy's parameters.
        coefficient: gamma_ptx, the weight of this loss beside PPO's.
        learned_tokens: Learned tokens of the whole step, over all processes.
    """
    batch = packed([Row(mixed.all)])
    ids_N, bounds = batch["input_ids"].to(roles.device), batch["bounds"].to(roles.device)
    labels_N = batch["labels"].to(roles.device)
    with roles("policy"):
        causal = roles.model.get_base_model() if isinstance(roles.model, PeftModel) else roles.model
        hidden_ND, head_VD = packed_states(causal.model, ids_N, bounds, batch["longest"]), roles.head_VD
    is_learned_N = labels_N != IGNORE
    if mixed.learned:
        logp_L, _ = token_log_probs(hidden_ND[is_learned_N], labels_N[is_learned_N], head_VD)
        loss = -logp_L.sum()
    else:
        loss = hidden_ND.float().sum() * 0
    found = roles.gradients(coefficient * loss / max(learned_tokens, 1.0), list(parameters))
    return Part(found, Totals(ptx=float(loss.detach())))
