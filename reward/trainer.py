"""The trainer of the reward model: groups of comparisons in a drawn order, packed passes, held-out scores every epoch.

transformers' Trainer steps, logs and writes checkpoints. TRL's RewardTrainer is a peer here, not the ground (tests
compare with it): it pads both sides to the longest, drops long pairs in silence and knows neither rankings nor votes.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import Trainer

from finlm.checkpoints import WholeCheckpoints
from finlm.records import content_id
from reward import batches, losses
from reward.batches import ComparisonBatch, laid_out
from reward.groups import Group
from reward.learning import settle

LOSSES = ("pairwise", "token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the reward model learns by.

    Example:
        Objective(loss="token", end="held", margins=(0.0, 1.0, 2.0, 3.0), centring=0.01)
    """

    loss: str = "pairwise"
    end: str = "held"
    margins: tuple[float, ...] = ()
    centring: float = 0.0
    """Weight of the centring term."""
    likelihood: float = 0.0
    """Weight of the language-model loss on the better answers."""
    pad: int = 0
    """Padding token, which the end rule `pads` reads."""

    def __post_init__(self) -> None:
        for name, known in (("loss", LOSSES), ("end", losses.END_RULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}.")

    def lay_out(self, groups: Sequence[Group]) -> ComparisonBatch:
        """Return groups as one pass."""
        every_token = self.loss == "token"
        pad = self.pad if every_token and self.end == "pads" else None
        return laid_out(groups, every_token=every_token, margins=self.margins, pad=pad, predicted=self.likelihood > 0)

    def of(self, reading_R: Tensor, compared: batches.Comparisons, nll_L: Tensor | None = None) -> Tensor:
        """Return the sum of all prompts' losses, ().

        Args:
            reading_R: What the model read.
            compared: What is compared of it.
            nll_L: How surprising the tokens of the preferred answers were; asked for where `likelihood` is above 0.
        """
        loss_B = batches.comparison_losses(reading_R, compared, loss=self.loss, end=self.end)
        if self.centring:
            loss_B = loss_B + self.centring * batches.centring(reading_R, compared)
        if nll_L is not None:
            loss_B = loss_B + self.likelihood * batches.surprise(nll_L, compared)
        return (loss_B * compared["weight_B"]).sum()


class Step(TypedDict):
    """What one process learns from in one optimizer step."""

    micro_batches: list[ComparisonBatch]
    prompts: Tensor
    """Weight of the step's prompts, over all processes, (): their number where each counts as one."""


class StepLoader:
    """Steps from the one at which training stands; every epoch goes through all groups once, in a new order."""

    def __init__(self, trainer: "ComparisonTrainer") -> None:
        self._trainer = trainer

    def __len__(self) -> int:
        """Steps of the whole run."""
        return int(self._trainer.args.max_steps)

    def __iter__(self) -> Iterator[Step]:
        """Yield them."""
        for step in range(self._trainer.state.global_step, self._trainer.args.max_steps):
            yield self._trainer.step_of(step)


class ComparisonTrainer(WholeCheckpoints, Trainer):  # type: ignore[misc]
    """Trains a model on which `reward.readings.install` was called.

    Args:
        groups: What to learn from.
        objective: How.
        batch_size: Prompts of an optimizer step, over all processes.
        micro_batch: Prompts of a forward pass, at most.
        micro_batch_tokens: Tokens of a forward pass, at most, unless one prompt has more; 0 is no limit.
        autocast: Dtype that float32 weights compute in; None computes in the weights' own.
        given: As Trainer takes them; no data sets.
    """

    def __init__(
        self,
        *,
        groups: Sequence[Group],
        objective: Objective,
        batch_size: int,
        micro_batch: int,
        micro_batch_tokens: int,
        autocast: torch.dtype | None = None,
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self._autocast = autocast
        self.groups, self.objective = list(groups), objective
        self.batch_size, self.micro_batch, self.micro_batch_tokens = batch_size, micro_batch, micro_batch_tokens
        self.model_accepts_loss_kwargs = True  # losses are divided by the step's prompts, not by its passes
        self.args.ignore_data_skip = True  # the loader begins where the run stands

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every group is learned from once."""
        return -(-len(self.groups) // self.batch_size)

    def step_of(self, step: int) -> Step:
        """Return what this process learns from in a step; its passes are as many as every other's."""
        epoch, place = divmod(step, self.steps_per_epoch)
        seed = int(content_id("order", self.args.seed, epoch), 16)
        order = random.Random(seed).sample(range(len(self.groups)), len(self.groups))
        whole = [self.groups[index] for index in order[place * self.batch_size : (place + 1) * self.batch_size]]
        shares = [self.passes(whole[rank :: self.args.world_size]) for rank in range(self.args.world_size)]
        mine = [self.objective.lay_out(groups) for groups in shares[self.args.process_index]]
        while len(mine) < max(map(len, shares)):  # a pass that counts nothing, so that all processes pass alike
            spare = self.objective.lay_out(whole[:1])
            spare["compared"]["weight_B"].zero_()
            mine.append(spare)
        return Step(micro_batches=mine, prompts=torch.tensor(sum(group.weight for group in whole)))

    def passes(self, groups: Sequence[Group]) -> list[list[Group]]:
        """Return groups as forward passes, in order."""
        tokens = self.micro_batch_tokens or sum(group.tokens for group in groups)
        found = batches.micro_batches(groups, tokens)
        return [
            part[start : start + self.micro_batch] for part in found for start in range(0, len(part), self.micro_batch)
        ]

    # ------------------------------------------------------------------------------------- what Trainer asks for

    def get_train_dataloader(self) -> Any:
        """Return the steps."""
        return StepLoader(self)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Return a step and the weight of its prompts."""
        found = [step for _, step in zip(range(num_batches), epoch_iterator, strict=False)]
        return found, sum((step["prompts"] for step in found), torch.zeros(())).to(device)

    def floating_point_ops(self, inputs: Any) -> int:
        """Count none: Trainer would estimate them from padded rows."""
        return 0

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> Tensor:
        """Add the gradients of all passes of a step; return the mean loss of its prompts."""
        model.train()
        prepared = self._prepare_inputs(inputs)
        total = torch.zeros((), device=self.args.device)
        last = len(prepared["micro_batches"]) - 1
        for place, batch in enumerate(prepared["micro_batches"]):
            with nullcontext() if place == last else self.accelerator.no_sync(model):
                loss = self.compute_loss(model, batch, num_items_in_batch=num_items_in_batch)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return a pass's share of the step's mean loss; several processes average gradients, theirs are sums here."""
        found = self._passed(model, inputs)
        reading_R, nll_L = found if isinstance(found, tuple) else (found, None)
        prompts = num_items_in_batch if num_items_in_batch is not None else inputs["compared"]["weight_B"].sum()
        loss = self.objective.of(reading_R, inputs["compared"], nll_L) / prompts * self.args.world_size
        return (loss, {"loss": loss}) if return_outputs else loss

    def _passed(self, model: Any, inputs: ComparisonBatch) -> Any:
        with torch.autocast(self.args.device.type, self._autocast, enabled=self._autocast is not None):
            return model(**inputs["passed"])

    # ------------------------------------------------------------------------------------------ held-out scores

    def settle(self) -> None:
        """Round the weights to the dtype that they computed in, which is the one they are exported in."""
        if self._autocast is not None:
            settle(self.model, self._autocast)
            self._autocast = None

    @torch.no_grad()
    def scores(self, groups: Sequence[Group]) -> list[list[float]]:
        """Return the score of every answer of every group, each process reading its share."""
        was_training = self.model.training
        self.model.eval()
        mine = range(self.args.process_index, len(groups), self.args.world_size)
        found: list[tuple[int, list[float]]] = []
        order = sorted(mine, key=lambda number: groups[number].tokens)
        numbers = iter(order)
        for part in self.passes([groups[number] for number in order]):
            batch = self._prepare_inputs(laid_out(part, every_token=False))
            flat = iter(self._passed(self.model, batch).tolist())
            found += [(next(numbers), [next(flat) for _ in group.answers]) for group in part]
        self.model.train(was_training)
        if self.args.world_size > 1:
            found = gather_object(found)
        return [scores for _, scores in sorted(found)]
