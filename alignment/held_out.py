"""In-loop evaluation: every few updates the policy answers the same held-out prompts.

    <run>/held_out.jsonl                    one HeldOutRecord an evaluation
    <run>/held_out/update-00020.jsonl       its answers, as AnswerRecords

What the reward model that trains says is not proof: a second one (`anchor`), the figure checker where a prompt has a
known answer, length and KL stand beside it. Every evaluation draws from the same seed, so that two of them differ by
the policy and not by luck of the prompts.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from alignment import rollout
from alignment.best import HeldOutConfig
from alignment.judges import Judges
from alignment.layouts import Layout
from alignment.processes import Processes
from alignment.sampling import Sampler
from alignment.stopping import StopSignal
from finlm import chat_format, generation, jsonl
from finlm.errors import UserError
from finlm.evaluation import AnswerRecord, is_right
from finlm.ppo_records import HELD_OUT, HeldOutRecord, read_held_out
from finlm.records import Message, Prompt, Removal, content_id

ANSWERS = "held_out"


class Anchor(Protocol):
    """A second reward model, `finlm.scorer.Scorer` for one."""

    def score(self, answers: Sequence[tuple[Sequence[Message], str, bool]], *, batch_size: int = 16) -> list[float]:
        """Score (prompt's messages, answer's text, whether it ended)."""
        ...


class Learner(Protocol):
    """What an evaluation needs of `PPOTrainer`."""

    args: Any
    folder: Path
    device: torch.device
    tokenizer: PreTrainedTokenizerBase
    roles: Layout
    judges: Judges
    sampler: Sampler
    processes: Processes
    stop: StopSignal


class HeldOut:
    """Evaluates a trainer on a fixed set of prompts. Every process calls `after`, the main one writes.

    Args:
        trainer: The PPO trainer.
        prompts: Held-out prompts; none may be one that it trains on.
        config: Settings.
        anchor: A second reward model, trained on other data.
        sampling: How to sample; left out, the trainer's response length and temperature over the whole vocabulary.

    Attributes:
        prompts: Those that are evaluated on.
        ids: Their token ids.
        removals: Those with more tokens than the trainer's `max_prompt_length`.

    Raises:
        UserError: There are no prompts, or none is short enough.
    """

    def __init__(
        self,
        trainer: Learner,
        prompts: Sequence[Prompt],
        config: HeldOutConfig,
        anchor: Anchor | None = None,
        sampling: generation.Sampling | None = None,
    ) -> None:
        if config.every and not prompts:
            raise UserError("There are no held-out prompts to evaluate on; give some, or set every to 0.")
        self.config = config
        self._trainer = trainer
        self.prompts: list[Prompt] = []
        self.ids: list[list[int]] = []
        self.removals: list[Removal] = []
        self._anchor = anchor
        self._sampling = sampling or generation.Sampling(
            max_new_tokens=trainer.args.response_length, temperature=trainer.args.temperature
        )
        most = trainer.args.max_prompt_length
        for prompt in prompts:
            ids = list(chat_format.encode(trainer.tokenizer, prompt.messages).ids)
            if len(ids) <= most:
                self.prompts.append(prompt)
                self.ids.append(ids)
            else:
                reason = f"held out, {len(ids)} tokens, the limit is {most}"
                self.removals.append(Removal(record_id=prompt.id, rule="too-long", reason=reason))
        if config.every and not self.prompts:
            raise UserError(
                f"None of {len(prompts)} held-out prompts has at most {most} tokens; raise max_prompt_length or give "
                "shorter prompts."
            )

    @property
    def records(self) -> list[HeldOutRecord]:
        """All evaluations so far, earlier starts of the run included, by update."""
        return read_held_out(self._trainer.folder)

    def after(self, update: int, *, is_last: bool = False) -> HeldOutRecord | None:
        """Evaluate if the update is due (a run's last one always is) and was not evaluated yet; return the new record.

        Raises:
            Stopped: SIGTERM came; nothing of the evaluation was written.
        """
        if not self.config.every or (update % self.config.every and not is_last):
            return None
        known = self.records
        if any(record.update == update for record in known):
            return None
        return self._evaluate(update, known)

    def forget_after(self, update: int) -> None:
        """Drop the evaluations of later updates: the run was rolled back and will come by them again."""
        kept = [record for record in self.records if record.update <= update]
        if self._trainer.processes.is_main:
            jsonl.write(self._trainer.folder / HELD_OUT, kept)

    def _evaluate(self, update: int, known: Sequence[HeldOutRecord]) -> HeldOutRecord:
        processes = self._trainer.processes
        mine = range(processes.index, len(self.prompts), processes.count)
        self._trainer.roles.refresh()
        here = self._trainer.stop.together(processes, lambda: self._measured(update, mine))
        everywhere = sorted(processes.gather(here), key=_place)
        answers = [answer for _, answer, _ in everywhere]
        refuse_not_finite(everywhere, update)
        record = self._summary(update, answers, [score for _, _, score in everywhere if score is not None])
        if processes.is_main:
            # the answers come first: a record without them would never be evaluated again
            jsonl.write(self._trainer.folder / ANSWERS / f"update-{update:05d}.jsonl", answers)
            jsonl.write(self._trainer.folder / HELD_OUT, [*known, record])
        return record

    def _measured(self, update: int, places: Sequence[int]) -> list[tuple[int, AnswerRecord, float | None]]:
        """Place, answer and the anchor's score of this process's prompts."""
        answers = self._measure(update, places)
        return list(zip(places, answers, self._anchored(places, answers), strict=True))

    def _measure(self, update: int, places: Sequence[int]) -> list[AnswerRecord]:
        """Answer the prompts at these places and measure the answers."""
        trainer = self._trainer
        if not places:
            return []
        ids = [self.ids[place] for place in places]
        with trainer.roles.sampling():
            answers = trainer.sampler.sample(
                ids,
                seed=int(content_id(self.config.seed, "held-out", trainer.processes.index), 16) % 2**31,
                sampling=self._sampling,
                rows_at_once=self.config.batch_size,
                poll=trainer.stop.poll,
            )
        scores, kl = _scores_and_kl(trainer, ids, answers)
        made = []
        for number, (place, answer) in enumerate(zip(places, answers, strict=True)):
            prompt, text = self.prompts[place], answer.text(trainer.tokenizer)
            right, fault = is_right(prompt, text, ended=answer.ended) if prompt.reference else (False, "")
            made.append(
                AnswerRecord(
                    model=f"update-{update:05d}",
                    prompt_id=prompt.id,
                    prompt=prompt.messages[-1].content,
                    reference=prompt.reference,
                    text=text,
                    ended=answer.ended,
                    tokens=len(answer.ids),
                    score=scores[number],
                    is_right=right,
                    fault=fault,
                    kl_nats=kl[number],
                )
            )
        return made

    def _anchored(self, places: Sequence[int], answers: Sequence[AnswerRecord]) -> Sequence[float | None]:
        """Score the answers by the second reward model, if there is one."""
        if self._anchor is None or not answers:
            return [None] * len(answers)
        asked = [(self.prompts[p].messages, a.text, a.ended) for p, a in zip(places, answers, strict=True)]
        return self._anchor.score(asked, batch_size=self._trainer.args.per_device_train_batch_size)

    def _summary(self, update: int, answers: Sequence[AnswerRecord], anchored: Sequence[float]) -> HeldOutRecord:
        penalty = self._trainer.args.missing_eos_penalty
        costs = [0.0 if answer.ended else penalty for answer in answers]
        rewards = tuple(answer.score - cost for answer, cost in zip(answers, costs, strict=True))
        anchors = tuple(score - cost for score, cost in zip(anchored, costs, strict=True)) if anchored else ()
        rights = tuple(answer.is_right for answer in answers if answer.reference)
        count = len(answers)
        return HeldOutRecord(
            update=update,
            reward=sum(rewards) / count,
            kl_nats=sum(answer.kl_nats or 0.0 for answer in answers) / count,
            tokens=sum(answer.tokens for answer in answers) / count,
            ended=sum(answer.ended for answer in answers) / count,
            anchor=sum(anchors) / count if anchors else None,
            right=sum(rights) / len(rights) if rights else None,
            rewards=rewards,
            anchors=anchors,
            rights=rights,
        )


def refuse_not_finite(measured: Sequence[tuple[int, AnswerRecord, float | None]], update: int) -> None:
    """Stop before anything is written of an evaluation with numbers that are not finite.

    Raises:
        UserError: On every process, whichever measured them.
    """
    for _, answer, anchored in measured:
        named = {"The reward model scores": answer.score, "The KL to the reference is, for": answer.kl_nats}
        for words, number in (named | {"The anchor scores": anchored}).items():
            if number is not None and not math.isfinite(number):
                raise UserError(
                    f"{words} an answer {number} in the evaluation on held-out prompts at update {update}; nothing of "
                    "it was written. Look for damaged weights in that model or in its base."
                )


def _place(measured: tuple[int, AnswerRecord, float | None]) -> int:
    return measured[0]


@torch.no_grad()
def _scores_and_kl(
    trainer: Learner, prompts: Sequence[Sequence[int]], answers: Sequence[generation.Answer]
) -> tuple[list[float], list[float]]:
    """Return the reward model's score and the KL to the reference, nats, of each answer."""
    scores, kl = [0.0] * len(answers), [0.0] * len(answers)
    temperature, roles = trainer.args.temperature, trainer.roles
    for batch in rollout.micro_batches(
        trainer.roles,
        prompts,
        answers,
        size=trainer.args.per_device_train_batch_size,
        tokens=trainer.args.micro_batch_tokens,
        pad=trainer.tokenizer.pad_token_id,
        closing=trainer.judges.closing,
        device=trainer.device,
    ):
        trainer.stop.poll()
        with roles.sampling():  # as it answered; with shards a pass of the policy itself would wait for all processes
            logp_BA, _ = rollout.log_probs(roles, batch, roles.head_VD, temperature=temperature)
        with roles("reference"):
            ref_BA, _ = rollout.log_probs(roles, batch, roles.head_VD, temperature=temperature)
        kl_B = ((logp_BA - ref_BA) * batch.is_answer_BA).double().sum(dim=1)
        score_B, _ = trainer.judges.scores(roles, batch)
        for row, index in enumerate(batch.index):
            scores[index], kl[index] = float(score_B[row]), float(kl_B[row])
    return scores, kl
