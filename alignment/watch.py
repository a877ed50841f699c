"""Between two updates: evaluate, keep the policy, name the best, ask the guards, and do what they say.

    <run>/held_out.jsonl, guards.jsonl, policies/, best.json        see finlm/ppo_records.py

Everything is decided from these files and metrics.jsonl by the main process and told to the others, so that all
processes do the same and a resumed run decides as an unbroken one.

A roll-back is one line in guards.jsonl and nothing else: from then on every checkpoint that an earlier way of the run
left beyond `back_to` is void. Killed before that line is written, the run comes to it again; killed after it, the next
start finds the newest checkpoint that is not void and clears away the rest.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from alignment import ppo_state
from alignment.best import best_policy, trusted_update
from alignment.guards import Observed, judge, news, worst
from alignment.held_out import Anchor, HeldOut, Learner
from alignment.policies import kept_policies
from alignment.prompt_stream import PromptStream
from alignment.watch_messages import rolled_back, stopped, told
from finlm import jsonl, runs
from finlm.errors import UserError
from finlm.metrics import forget_after, read_metrics
from finlm.ppo_records import (
    BEST,
    GUARDS,
    GuardVerdict,
    HeldOutRecord,
    policy_name,
    read_best,
    read_guards,
    read_held_out,
    write_best,
)
from finlm.progress import console
from finlm.records import Prompt, Removal


class GuardStop(UserError):
    """A guard ends the run; the message says why, where the run stands, and how to go on anyway."""


class Watched(Learner, Protocol):
    """What a watch needs of `PPOTrainer`."""

    progress: ppo_state.Progress
    prompts: PromptStream
    base: str

    @property
    def total_updates(self) -> int:
        """Updates of the whole run."""
        ...

    def save(self) -> None:
        """Write the checkpoint of the last whole update."""
        ...

    def save_policy(self, folder: Path, *, base: str) -> None:
        """Write the policy as it is now, whole or not at all."""
        ...

    def take_up(self) -> None:
        """Load the newest checkpoint that is not void, or begin."""
        ...


class Watch:
    """Looks after a run. Every process calls each method; the main one writes.

    Args:
        trainer: The PPO trainer.
        prompts: Held-out prompts; none evaluates nothing.
        anchor: A second reward model.

    Raises:
        UserError: A held-out prompt is also trained on, or none has at most `max_prompt_length` tokens.
    """

    def __init__(self, trainer: Watched, prompts: Sequence[Prompt], anchor: Anchor | None = None) -> None:
        self._trainer = trainer
        self._observed: list[Observed] = []
        self._held_out: HeldOut | None = None
        if prompts and trainer.args.evaluation.every:
            self._held_out = HeldOut(trainer, prompts, trainer.args.evaluation, anchor)
            refuse_trained(self._held_out.prompts, self._held_out.ids, trainer.prompts)

    # ------------------------------------------------------------------------------------------ what is known

    @property
    def is_evaluating(self) -> bool:
        """True if there are prompts to evaluate on."""
        return self._held_out is not None

    @property
    def removals(self) -> list[Removal]:
        """Held-out prompts that were set aside."""
        return [] if self._held_out is None else self._held_out.removals

    @property
    def also_kept(self) -> set[int]:
        """Updates whose checkpoints are kept besides the newest two: a run may be rolled back to them.

        One is older than the guards' patience; one is from where the anchor stood highest.
        """
        args, peak = self._trainer.args, trusted_update(self._scheduled)
        if not args.guards.acts:
            return set()
        there = [update for update, _ in self._checkpoints]
        # a streak is noticed `patience` updates after the policy that began it, and is older than that by one
        count = 1 + -(-(args.guards.patience + 1) // args.save_steps)
        by_disagreement = args.guards.disagreement_multiple if len(self._trainer.judges.heads) > 1 else 0.0
        is_rolled_back = args.guards.kl_target * args.guards.kl_multiple or by_disagreement
        within_patience = there[-count:] if is_rolled_back else []
        return {*within_patience, *[update for update in there if peak is not None and update <= peak][-1:]}

    @property
    def _checkpoints(self) -> list[tuple[int, Path]]:
        """Update and folder of the checkpoints that fell due; those of a stopped start are not there in every run."""
        every = self._trainer.args.save_steps
        return [(update, path) for update, path in ppo_state.updates_of(self._folder).items() if update % every == 0]

    @property
    def roll_backs(self) -> list[GuardVerdict]:
        """Return the roll-backs of the run so far, in order."""
        return [verdict for verdict in read_guards(self._folder) if verdict.back_to is not None]

    def is_void(self, progress: ppo_state.Progress) -> bool:
        """True if a checkpoint with this progress belongs to a way that the run was rolled back from."""
        later = self.roll_backs[progress.roll_backs :]
        return any(verdict.back_to is not None and progress.update > verdict.back_to for verdict in later)

    @property
    def _folder(self) -> Path:
        return self._trainer.folder

    @property
    def _records(self) -> list[HeldOutRecord]:
        """Evaluations up to now: a start that was killed may have been further."""
        update = self._trainer.progress.update
        return [record for record in read_held_out(self._folder) if record.update <= update]

    @property
    def _scheduled(self) -> list[HeldOutRecord]:
        """Those that fell due; that of a run's end is not there where it was to go on from the beginning."""
        every = self._trainer.args.evaluation.every
        return [record for record in self._records if every and record.update % every == 0]

    # ------------------------------------------------------------------------------------------ the rounds

    def begin(self) -> None:
        """Take up what earlier starts wrote down, and clear away what a roll-back has made void."""
        update = self._trainer.progress.update
        self._trainer.processes.wait()
        if self._trainer.processes.is_main:
            self._clear()
            lines = [line for line in read_metrics(self._folder / "metrics.jsonl") if line["step"] <= update]
            self._observed = [Observed.of(line) for line in lines]
        self._trainer.processes.wait()

    def after_update(self, metrics: Mapping[str, float]) -> bool:
        """Do what is due now that an update is whole.

        Args:
            metrics: The update's; empty where a start begins.

        Returns:
            True if the run was rolled back and goes on from there.

        Raises:
            GuardStop: A guard ends the run.
            Stopped: SIGTERM came.
        """
        trainer = self._trainer
        update = trainer.progress.update
        if metrics and trainer.processes.is_main:
            self._observed.append(Observed.of({**metrics, "step": update}))
        is_last = update >= trainer.total_updates
        self._keep_policy(update, is_last=is_last)
        if self._held_out is not None:
            record = self._held_out.after(update, is_last=is_last)
            if trainer.processes.is_main:
                self._name_the_best(record)
        verdict = trainer.processes.from_main(self._decide)
        if verdict is None:
            return False
        if verdict.back_to is None:
            trainer.save()
            trainer.processes.wait()
            raise GuardStop(stopped(verdict, self._folder, trainer.total_updates))
        trainer.take_up()
        self.begin()
        said = rolled_back(verdict, trainer.args.guards, count=trainer.progress.roll_backs)
        if trainer.progress.roll_backs > trainer.args.guards.roll_backs:
            raise GuardStop(said)
        if trainer.processes.is_main:
            console.print(f"[yellow]{said}")
        return True

    # ------------------------------------------------------------------------------------------ on the main process

    def _keep_policy(self, update: int, *, is_last: bool) -> None:
        """Write the policy of an update that is to be kept; one that was evaluated stays as it was evaluated."""
        every = self._trainer.args.policy_steps
        is_due = every and (update % every == 0 or is_last) and (update or self._held_out is not None)
        if not is_due:
            return
        self._trainer.roles.refresh()
        if not self._trainer.processes.is_main:
            return
        folder = self._folder / policy_name(update)
        was_evaluated = any(record.update == update for record in read_held_out(self._folder))
        if not was_evaluated or runs.damage(folder) is not None:
            base = self._trainer.base
            self._trainer.save_policy(folder, base=os.path.relpath(base, folder) if base else "")

    def _name_the_best(self, record: HeldOutRecord | None) -> None:
        kept = {update for update in kept_policies(self._folder) if update <= self._trainer.progress.update}
        best = best_policy(self._records, self._trainer.args.evaluation, kept)
        if best is not None and best != read_best(self._folder):
            write_best(self._folder, best)
        if record is not None:
            console.print(told(record, is_best=best is not None and best.update == record.update))

    def _decide(self) -> GuardVerdict | None:
        """Write down what the guards have to say that is new; return the verdict to act on."""
        guards, progress = self._trainer.args.guards, self._trainer.progress
        acting = worst(judge(guards, self._observed, self._scheduled))
        is_acted_on = acting is not None and guards.acts and acting.action in ("stop", "roll back")
        written = read_guards(self._folder)
        before = len(written)
        known = {(one.roll_backs, one.update, one.guard, one.back_to is None) for one in written}
        found = None
        verdicts = news(guards, self._observed, self._scheduled)
        if acting is not None and is_acted_on and acting not in verdicts:
            verdicts.append(acting)  # a start after the one that it stopped
        for verdict in verdicts:
            noted = replace(verdict, roll_backs=progress.roll_backs)
            if verdict == acting and is_acted_on:
                noted = replace(noted, back_to=self._back_to(verdict)) if verdict.action == "roll back" else noted
                found = noted
            else:
                console.print(f"[yellow]update {verdict.update}, guard {verdict.guard}: {verdict.sentence}")
            if (noted.roll_backs, noted.update, noted.guard, noted.back_to is None) not in known:
                written.append(noted)
        if len(written) > before:
            jsonl.write(self._folder / GUARDS, written)
        return found

    def _back_to(self, verdict: GuardVerdict) -> int:
        """Return the update of the newest whole checkpoint from before the trouble began; 0 is the run's start.

        A run that comes to trouble again before it has passed the place of the last goes back further than then: the
        policy that it went back to may have been at the edge already.
        """
        before, last = verdict.since, self.roll_backs[-1:]
        if last and verdict.update <= last[0].update:
            before = min(before, last[0].back_to or 0)
        older = [(update, path) for update, path in self._checkpoints if update < before]
        return next((update for update, path in reversed(older) if runs.damage(path) is None), 0)

    def _clear(self) -> None:
        """Delete what a roll-back has made void; nothing once the run has gone on and saved."""
        undone = self.roll_backs
        if not undone:
            return
        for path in reversed(list(ppo_state.updates_of(self._folder).values())):
            if runs.damage(path) is not None or self.is_void(ppo_state.Progress.read(path / "progress.json")):
                runs.delete_folder(path)
        update = self._trainer.progress.update
        if update in (one.back_to for one in undone):
            for number, path in kept_policies(self._folder).items():
                if number > update:
                    runs.delete_folder(path)
            if self._held_out is not None:
                self._held_out.forget_after(update)
                (self._folder / BEST).unlink(missing_ok=True)
                self._name_the_best(None)
            forget_after(self._folder / "metrics.jsonl", update)


# ---------------------------------------------------------------------------------------------- parts


def refuse_trained(prompts: Sequence[Prompt], ids: Sequence[Sequence[int]], trained: PromptStream) -> None:
    """Check that no held-out prompt is trained on.

    Raises:
        UserError: One is.
    """
    for prompt, tokens in zip(prompts, ids, strict=True):
        if trained.has(tokens):
            text = " ".join(prompt.messages[-1].content.split())
            raise UserError(
                f"The held-out prompt {prompt.id} ({text[-80:]!r}) is also trained on, so an evaluation on it proves "
                "nothing; take it out of one of the two files (finlm prompts leaves held-out companies out of the "
                "first and writes only them to the second)."
            )
