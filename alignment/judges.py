"""The reward models of a run: what an answer is paid, and how far they disagree about it. Axis: K reward models.

The first is the one that the critic begins as. With further ones the pay is the mean or the minimum of all, and their
standard deviation is a measure for the guard `disagreement`: a policy that has found answers which only some of them
like has left what they were trained on (Coste et al. 2023, arXiv 2310.02743).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alignment import rollout
from alignment.layouts import Layout
from finlm import ensemble, scorer
from finlm.errors import UserError
from finlm.scorer import Head


@dataclass(frozen=True, slots=True)
class Judges:
    """The heads of the reward models, in the order of their adapters, and how their scores become one.

    Example:
        Judges(heads=(Head(576),), reduce="mean", closing=None)
    """

    heads: tuple[Head, ...]
    reduce: str
    """mean or min."""
    closing: int | None
    """End token that they want behind cut answers, see `rollout.micro_batches`; None: they learned from cut ones."""

    @classmethod
    def load(
        cls,
        folders: Sequence[str | Path],
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        *,
        width: int,
        reduce: str,
    ) -> "Judges":
        """Load the heads of reward models, whose adapters are on the roles' base (`width`: numbers in its states).

        Raises:
            UserError: One was trained with another tokenizer or reads states of another width, a whole model is among
                several, or some learned from cut answers and others did not.
        """
        ensemble.check_together(folders)
        for folder in folders:
            scorer.check_same_tokenizer(folder, tokenizer)
        from_cut = {folder: scorer.load_description(folder).learned_from_cut for folder in folders}
        if len(set(from_cut.values())) > 1:
            with_cut = next(folder for folder in folders if from_cut[folder])
            without = next(folder for folder in folders if not from_cut[folder])
            raise UserError(
                f"The reward model in {with_cut} learned from answers that were cut off and the one in {without} did "
                "not, so they read such an answer in different ways; train all of reward_models on the same pairs."
            )
        heads = tuple(scorer.load_head(folder, width=width).to(device).requires_grad_(False) for folder in folders)
        return cls(heads, reduce, None if from_cut[folders[0]] else tokenizer.eos_token_id)

    def scores(self, roles: Layout, batch: rollout.MicroBatch) -> tuple[Tensor, Tensor | None]:
        """Return the score of each row and the reward models' disagreement about it, (B,), float32.

        The disagreement is None where there is one reward model.
        """
        first_B = rollout.scores(roles, batch, self.heads[0])
        if len(self.heads) == 1:
            return first_B, None
        further = [rollout.scores(roles, batch, self.heads[k], member=k) for k in range(1, len(self.heads))]
        score_KB = torch.stack([first_B, *further])
        return ensemble.reduced(score_KB, self.reduce), ensemble.disagreement(score_KB)
