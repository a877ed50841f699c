"""The trainer of mixed fine-tuning: packed rows in the plan's order, held-out losses by category, shares that move.

transformers' Trainer steps, logs and writes checkpoints. Its data loaders fetch a batch ahead of the step, which a
mixture that moves between two steps does not allow, and would pad rows: the rows come straight from the plan.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback

from alignment import sft_sharded as sharded
from alignment.sft_plan import Plan
from finlm import jsonl, runs
from finlm.batches import IGNORE, PackedBatch, packed
from finlm.checkpoints import WholeCheckpoints
from finlm.metrics import append_metrics
from finlm.mixture_moves import MixtureMoves, moved
from finlm.model import save_trained
from finlm.samples import Row, Sample
from finlm.sft_records import HELD_OUT, CategoryLoss, HeldOutLoss, is_text, read_held_out

BEST = "best"


@dataclass(frozen=True, kw_only=True)
class HeldOutSettings:
    """When held-out loss is measured, and what follows from it."""

    every: int = 0
    """Steps between two evaluations, besides those before the first step, after the last and at the ends of rounds."""
    patience: int = 0
    """Evaluations in a row without a better held-out loss of answers after which training ends; 0 never ends it."""
    samples: int = 64
    """Held-out samples of each stream, at most."""

    def __post_init__(self) -> None:
        for name in ("every", "patience", "samples"):
            if getattr(self, name) < 0:
                raise ValueError(f"held_out.{name} is {getattr(self, name)}; it must be 0 or more.")


class PackedLoader:
    """Micro-batches of this process from the step at which training stands."""

    def __init__(self, trainer: "PackedTrainer") -> None:
        self._trainer = trainer

    def __len__(self) -> int:
        """Micro-batches of the whole run."""
        args = self._trainer.args
        return int(args.max_steps * args.gradient_accumulation_steps)

    def __iter__(self) -> Iterator[PackedBatch]:
        """Yield them; a step's rows go to the processes in turn."""
        trainer, args = self._trainer, self._trainer.args
        first = trainer.state.global_step
        trainer.plan.resume(first)
        for rows in trainer.plan.steps(first, args.max_steps):
            mine = rows[args.process_index :: args.world_size]
            size = args.per_device_train_batch_size
            for start in range(0, len(mine), size):
                yield packed(mine[start : start + size])


class PackedTrainer(WholeCheckpoints, Trainer):  # type: ignore[misc]
    """Trains a LLaMA, with adapters or whole, on packed rows.

    Args:
        plan: What each step learns from.
        held_out: Held-out samples by stream.
        moves: How shares move.
        settings: When held-out loss is measured.
        folder: The run's folder.
        autocast: Dtype that float32 weights compute in; None computes in the weights' own.
        given: As Trainer takes them; no data sets.

    Attributes:
        history: All evaluations so far.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        held_out: Mapping[str, Sequence[Sample]],
        moves: MixtureMoves,
        settings: HeldOutSettings,
        folder: Path,
        autocast: torch.dtype | None = None,
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self.plan, self.held_out, self.moves, self.settings, self.folder = plan, held_out, moves, settings, folder
        self.history: list[HeldOutLoss] = []
        self.model_accepts_loss_kwargs = True  # losses are divided by the step's tokens, not by its micro-batches
        self.args.ignore_data_skip = True  # the loader begins where the run stands
        self.add_callback(Evaluate(self))
        self._autocast = autocast
        sharded.prepare(self, autocast or self.model.dtype)

    def get_train_dataloader(self) -> Any:
        """Return the plan's micro-batches."""
        return PackedLoader(self)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Return the micro-batches of a step and the number of its learned tokens over all processes."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        count = torch.tensor(sum(int((batch["labels"] != IGNORE).sum()) for batch in batches), device=device)
        return batches, self.accelerator.gather(count).sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the summed negative log-likelihood over the learned tokens of the whole optimizer step.

        A step without a learned token has loss 0. Several processes average gradients: theirs are sums here, so each
        loss is multiplied by their number.
        """
        nll_L = self.losses(model, inputs)
        count = num_items_in_batch if num_items_in_batch is not None else torch.tensor(len(nll_L), device=nll_L.device)
        # clamped on the device: the host need not wait for the pass
        loss = nll_L.sum() / count.clamp(min=1) * self.args.world_size
        return (loss, {"loss": loss}) if return_outputs else loss

    def losses(self, model: Any, inputs: PackedBatch) -> Tensor:
        """Return the negative log-likelihood of every learned token, (L,), float32, nats."""
        with torch.autocast(self.args.device.type, self._autocast, enabled=self._autocast is not None):
            nll_L: Tensor = model(**inputs)
        return nll_L

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[None]:
        """Do nothing: `losses` says what is computed in which dtype."""
        return nullcontext()

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        found = super()._get_grad_norm(model, grad_norm)
        if self.is_deepspeed_enabled:
            sharded.check_norm(found, self.state.global_step + 1)
        return found.full_tensor() if isinstance(found, DTensor) else found  # a shard's is a part

    @torch.no_grad()
    def evaluate_by_category(self) -> HeldOutLoss:
        """Measure the held-out loss of each stream in each language."""
        model, was_training = self.model, self.model.training
        model.eval()
        found: dict[tuple[Any, str], list[float]] = {}
        size = max(self.plan.room * self.args.per_device_eval_batch_size, 1)
        for its in self.held_out.values():
            for batch in in_batches(its, size):
                inputs = self._prepare_inputs(packed([Row(tuple(batch))]))
                nll_L = self.losses(model, inputs).double().cpu()
                for sample, its_L in zip(batch, torch.split(nll_L, [one.learned for one in batch]), strict=True):
                    sums = found.setdefault((sample.stream, sample.language), [0.0, 0.0, 0.0])
                    sums[0] += float(its_L.sum())
                    sums[1] += sample.learned
                    sums[2] += 1
        model.train(was_training)
        return HeldOutLoss(
            step=self.state.global_step,
            categories=tuple(
                CategoryLoss(
                    stream=stream, language=language, loss=total / tokens, tokens=int(tokens), samples=int(count)
                )
                for (stream, language), (total, tokens, count) in found.items()
                if tokens
            ),
        )

    # ------------------------------------------------------------------------------------------ weights in shards

    def whole_weights(self) -> dict[str, Tensor] | None:
        """Return what is trained, put together on the main process; None where no process holds a part only.

        All processes must call this.
        """
        return sharded.whole(self)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save what is trained; Trainer's own would put a frozen base together as well."""
        weights = self.whole_weights()
        if weights is None:
            super().save_model(output_dir, _internal_call)
        else:
            self._save(output_dir, state_dict=weights)

    # ------------------------------------------------------------------------------------------ what follows

    def is_over(self, step: int) -> bool:
        """True if nothing is left to learn behind `step`: it is the last one, or the evaluation there ended the run."""
        history = [one for one in read_held_out(self.folder) if one.step <= step]
        is_evaluated = bool(history) and history[-1].step == step
        return super().is_over(step) or (is_evaluated and has_ended(history, self.settings.patience))

    def take_up(self) -> None:
        """Read the evaluations up to where the run stands; later ones come again."""
        self.history = [one for one in read_held_out(self.folder) if one.step <= self.state.global_step]
        self.plan.resume(self.state.global_step)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            jsonl.write(self.folder / HELD_OUT, self.history)

    def evaluated(self) -> None:
        """Evaluate where the run stands, once; keep the record, and the model if it is the best."""
        if self.history and self.history[-1].step == self.state.global_step:
            return
        # shares move by the main process's numbers: rounding must not let others draw otherwise
        record: HeldOutLoss = broadcast_object_list([self.evaluate_by_category()])[0]
        self.history.append(record)
        loss = answer_loss(record)
        if loss is not None and self.args.should_save:
            # not by `log`: a Trainer that logs in a callback leaves out the step's own line
            append_metrics(self.folder / "metrics.jsonl", record.step, {"eval_loss": loss})
        if self.args.should_save:
            jsonl.write(self.folder / HELD_OUT, self.history)
        if best_of(self.history) is record:
            self.keep_best(record)

    def keep_best(self, record: HeldOutLoss) -> None:
        """Write the trained weights to `best/`, whole or not at all; all processes together."""
        weights = self.whole_weights()
        if not self.args.should_save:
            return
        with runs.whole_folder(self.folder / BEST) as aside:
            save_trained(self.model, aside, weights)
            said = {"step": record.step, "loss": answer_loss(record)}
            (aside / "best.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


class Evaluate(TrainerCallback):  # type: ignore[misc]
    """Evaluates when it is due, moves the shares at the ends of rounds, and ends a run that gets no better."""

    def __init__(self, trainer: PackedTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate before the first step; of a run that goes on, forget what came after its checkpoint."""
        self._trainer.take_up()
        if state.global_step == 0:
            self._trainer.evaluated()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        trainer, step = self._trainer, state.global_step
        # a Trainer would count it from where this start began
        state.epoch = step / args.max_steps
        ends_round = trainer.moves.every and step % trainer.moves.every == 0 and step < args.max_steps
        is_due = trainer.settings.every and step % trainer.settings.every == 0
        if not (ends_round or is_due or step == args.max_steps):
            return
        trainer.evaluated()
        if ends_round:
            plan = trainer.plan
            ends = [one for one in trainer.history if one.step % trainer.moves.every == 0]
            first = plan.rounds[0].shares
            plan.begin_round(step, *moved(plan.rounds[-1].shares, first, ends, plan.passes, trainer.moves))
        if args.should_save:
            trainer.plan.write()
        if has_ended(trainer.history, trainer.settings.patience):
            control.should_training_stop = True


def in_batches(samples: Sequence[Sample], tokens: int) -> Iterator[list[Sample]]:
    """Yield samples in order, as many at once as `tokens` hold; one that is longer comes alone."""
    batch: list[Sample] = []
    for sample in samples:
        if batch and sum(map(len, batch)) + len(sample) > tokens:
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def answer_loss(record: HeldOutLoss) -> float | None:
    """Return the mean loss of answers, over all instruction streams; of all tokens where there are no instructions."""
    answers = [one for one in record.categories if not is_text(one.stream)] or list(record.categories)
    tokens = sum(one.tokens for one in answers)
    return sum(one.loss * one.tokens for one in answers) / tokens if tokens else None


def best_of(history: Sequence[HeldOutLoss]) -> HeldOutLoss | None:
    """Return the evaluation with the least loss of answers, the first of equals."""
    judged = [(loss, place) for place, one in enumerate(history) if (loss := answer_loss(one)) is not None]
    return history[min(judged)[1]] if judged else None


def has_ended(history: Sequence[HeldOutLoss], patience: int) -> bool:
    """True if the last `patience` evaluations brought nothing better than what was best before them."""
    best = best_of(history)
    return bool(patience) and best is not None and len(history) - 1 - list(history).index(best) >= patience
