"""PPO for language models: one process per GPU, four roles on one base, every number written down.

`PPOTrainer` takes TRL 1.12's constructor arguments and logs under TRL 1.12's names, so that its users switch by one
import. What differs, on purpose: the score lies on the end token; `max_grad_norm` clips; losses are normalised by the
tokens of the whole step; advantages are whitened over all processes; the run resumes.

The roles live on one base: `model` is the frozen base, `reward_model` the folder of a reward adapter trained on it; the
reference is the base without adapters and the critic begins as a copy of the reward model. A reward model that is a
whole model of its own lies beside the base, and the critic is an adapter on it.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from alignment import (
    critic_start,
    faults,
    ppo_log,
    ppo_state,
    ptx,
    reward_shaping,
    rollout,
    sampler_gap,
    schedule,
    sharding,
)
from alignment.credits import Credits
from alignment.gradients import Gradients, norm
from alignment.heartbeat import Heartbeat
from alignment.held_out import Anchor
from alignment.judges import Judges
from alignment.kl_control import next_coefficient
from alignment.lessons import Lesson
from alignment.make_roles import roles_of
from alignment.perf import Phases
from alignment.ppo_config import PPOConfig
from alignment.processes import Processes
from alignment.prompt_stream import PromptStream
from alignment.reading import Reader
from alignment.sampling import Sampler
from alignment.stopping import Stopped, StopSignal
from alignment.watch import Watch
from finlm import generation, jsonl, runs, scorer
from finlm.errors import UserError
from finlm.progress import bar, console
from finlm.records import Prompt, Removal, content_id

__all__ = ["PPOConfig", "PPOTrainer"]


class PPOTrainer:
    """Proximal policy optimization of a chat model against a reward model.

    Args:
        args: Settings.
        processing_class: The tokenizer.
        model: The frozen base, which is also the reference.
        ref_model: Must be None: the reference is the base.
        reward_model: Folder of the reward model (runs/reward), or several: the critic begins as the first, and the
            mean or minimum of all is paid (`reward_reduce`).
        train_dataset: Prompts to answer, as records or as rows with `input_ids`.
        value_model: Must be None: the critic begins as a copy of the reward model.
        eval_dataset: Held-out prompts that the policy answers every few updates; without any there is no evaluation.
        anchor: A second reward model that scores these answers and does not train.
        peft_config: LoRA of the policy; not needed where the layout is full.

    Raises:
        UserError: A reference or value model, no prompt that fits, another base's reward model, prompts not held out.
    """

    def __init__(
        self,
        args: PPOConfig,
        processing_class: PreTrainedTokenizerBase,
        model: LlamaForCausalLM,
        ref_model: None,
        reward_model: str | Path | Sequence[str | Path],
        train_dataset: Sequence[Prompt | dict[str, Any]],
        value_model: None = None,
        *,
        eval_dataset: Sequence[Prompt] = (),
        anchor: Anchor | None = None,
        peft_config: LoraConfig | None = None,
    ) -> None:
        if ref_model is not None or value_model is not None:
            raise UserError(
                "PPOTrainer keeps all roles on one base: give ref_model=None and value_model=None; the reference is "
                "the base without adapters, the critic starts from the reward model."
            )
        self.args = args
        self.tokenizer = processing_class
        self.accelerator = Accelerator()
        self.processes = Processes(self.accelerator)
        self.device = self.accelerator.device
        self.folder, self.base = Path(args.output_dir), model.name_or_path
        rewards = [reward_model] if isinstance(reward_model, str | Path) else list(reward_model)
        width = model.config.hidden_size
        self.judges = Judges.load(rewards, processing_class, self.device, width=width, reduce=args.reward_reduce)

        self.roles = roles_of(model.to(self.device), rewards, peft_config, args, self.accelerator)
        self.reward_head = self.judges.heads[0]
        self.critic_head = scorer.load_head(rewards[0], width=width).to(self.device)
        pad = processing_class.pad_token_id
        self.sampler = Sampler(self.roles.sampled, processing_class, args)
        self.reader = Reader(self.roles, args, critic_head=self.critic_head, judges=self.judges, pad=pad)
        self.credits = Credits(args, self.processes)
        self.gradients = Gradients(self.roles, args, critic_head=self.critic_head)
        self.optimizers = {
            "policy": self._adamw(self.gradients.policy, args.learning_rate),
            "critic": self._adamw(self.gradients.critic, args.critic_learning_rate),
        }
        self.prompts = PromptStream(train_dataset, processing_class, max_length=args.max_prompt_length, seed=args.seed)
        with self.accelerator.main_process_first():  # which encodes
            self.mixture = ptx.Mixture.read(args, processing_class) if args.ptx_coef else None
        self.progress = ppo_state.Progress()
        self.stop = StopSignal()
        self.watch = Watch(self, eval_dataset, anchor)
        self._start: ppo_state.Snapshot | None = None

    # ------------------------------------------------------------------------------------------ the loop

    def train(self) -> dict[str, float]:
        """Learn until `total_episodes` answers were seen; resume where an earlier run was cut off.

        Returns:
            The last update's metrics.

        Raises:
            UserError: A number is not finite, or the sampler is too far from the training path; the weights keep their
                last values.
            GuardStop: A guard ends the run, at its last whole update or rolled back to an earlier one.
            LostProcess: Another process has ended.
            Stopped: SIGTERM came; the run goes on from its last whole update.
        """
        self.take_up()
        alive = Heartbeat(self.folder, self.processes.index, self.processes.count, self.processes.wait)
        metrics: dict[str, float] = {}
        with alive, self.stop, bar(is_shown=self.processes.is_main) as shown, ppo_log.Journal(self.folder) as journal:
            self.watch.begin()
            task = shown.add_task("PPO", total=self.total_updates, completed=self.progress.update, note="")
            try:
                self.watch.after_update({})
                while self.progress.update < self.total_updates:
                    metrics = self.update(journal)
                    note = f"score {metrics['objective/scores']:+.2f} KL {metrics['objective/kl']:.2f}"
                    if self.watch.after_update(metrics):
                        journal.begin_anew()
                    shown.update(task, completed=self.progress.update, note=note)
            except Stopped:
                raise Stopped(self._leave()) from None
        if self.processes.is_main:
            ppo_state.tidy(self.folder, also=self.watch.also_kept)
        return metrics

    def take_up(self) -> None:
        """Load the newest undamaged checkpoint that no roll-back has made void, or begin."""
        parts = (self.roles, self.critic_head, self.optimizers)
        if self.args.guards.acts and self._start is None:  # there is no checkpoint of a run's start
            self._start = ppo_state.snapshot(*parts, torch.device("cpu"))
        found, complaints = ppo_state.load(self.folder, *parts, is_void=self.watch.is_void)
        for complaint in complaints:
            console.print(f"[yellow]skipped a damaged checkpoint: {complaint}")
        if not found.update and self._start is not None:
            ppo_state.roll_back(self._start, *parts)
        self.progress = replace(found, roll_backs=len(self.watch.roll_backs))

    def update(self, journal: ppo_log.Journal) -> dict[str, float]:
        """One rollout and all learning from it, written down; return its metrics.

        Raises:
            UserError: A number is not finite, or the sampler is too far from the training path.
            Stopped: SIGTERM came; weights and state are those of the update before, or of this one if it was whole.
        """
        before, number, clock = self.progress, self.progress.update + 1, Phases(self.device)
        undo = None
        try:
            prompts = self.prompts_of(number)
            with clock("sample"):
                answers = self.sample(prompts, number)
            with clock("measure"):
                measured = self.measure(prompts, answers)
                gap = sampler_gap.checked(measured, answers, self.processes, limit=self.args.sampler_gap_limit)
                if number == 1 and self.args.critic_start == "fitted":
                    measured = self.start_critic(measured)
            with clock("credit"):
                lessons = self.credit(measured)
            # with shards GPUs are full: policy and critic with their moments are 24 bytes a weight
            aside = torch.device("cpu") if self.roles.is_sharded else None
            undo = ppo_state.snapshot(self.roles, self.critic_head, self.optimizers, aside)
            with clock("learn"):
                learned = self.learn(lessons, number)
        except Stopped:
            self.progress = before
            if undo is not None:
                ppo_state.roll_back(undo, self.roles, self.critic_head, self.optimizers)
            raise

        metrics = learned | ppo_log.summary(
            measured, answers, self.processes, kl_coef=self.kl_coef, kl_estimator=self.args.kl_estimator
        )
        metrics |= ppo_log.of_critic(lessons, self.processes) | self.sampler.figures() | gap
        metrics |= {"episode": before.episode + self.batch_size, "eps": len(answers) / clock.total_seconds}
        tokens = metrics["rollout/answer_tokens"] * self.batch_size
        metrics |= clock.metrics(tokens=tokens, splits=self.reader.splits + self.gradients.splits)
        self.progress = self._progress_after(metrics)
        if self.processes.is_main:
            kept = ppo_log.records(number, prompts, answers, measured, self.tokenizer, self.prompts.name)
            jsonl.write(self.folder / "rollouts" / f"update-{number:05d}.jsonl", kept)
            journal.write(number, metrics)
        if number % self.args.save_steps == 0 or number == self.total_updates:
            self.save()
        self.stop.together(self.processes, lambda: None)
        return metrics

    @property
    def total_updates(self) -> int:
        """Rollouts until `total_episodes` answers were seen."""
        return -(-self.args.total_episodes // self.batch_size)

    @property
    def batch_size(self) -> int:
        """Answers of one rollout, over all processes."""
        return self.args.local_batch_size * self.processes.count

    @property
    def kl_coef(self) -> float:
        """beta of this rollout, score units per nat."""
        steered = self.args.kl_coef if self.progress.kl_coef is None else self.progress.kl_coef
        return steered * self.args.guards.kl_coef_factor**self.progress.roll_backs

    @property
    def removals(self) -> list[Removal]:
        """Prompts, held-out ones too, and mixed-in rows that were set aside."""
        return [*self.prompts.removals, *(self.mixture.removals if self.mixture else []), *self.watch.removals]

    def prompts_of(self, update: int) -> list[list[int]]:
        """Return the token ids of this process's prompts of an update."""
        local = self.args.local_batch_size
        return self.prompts.take((update - 1) * self.batch_size + self.processes.index * local, local)

    # ------------------------------------------------------------------------------------------ the four steps

    def sample(self, prompts: Sequence[Sequence[int]], update: int) -> list[generation.Answer]:
        """Step 1: the policy answers."""
        seed = self._seed("sample", update, self.processes.index)
        self.roles.refresh()
        with self.roles.sampling():
            return self.stop.together(
                self.processes, lambda: self.sampler.sample(prompts, seed=seed, poll=self.stop.poll)
            )

    @torch.no_grad()
    def measure(self, prompts: Sequence[Sequence[int]], answers: Sequence[generation.Answer]) -> list[rollout.Measured]:
        """Step 2: policy, reference, critic and reward model read the answers; scores become what is paid."""
        read = self.stop.together(self.processes, lambda: self.reader.read(prompts, answers, poll=self._poll))
        faults.refuse_measured(read, self.processes, self.folder, update=self.progress.update + 1)
        if self.args.score_normalisation != "none":
            raw = [item.raw_B for item in read]
            over = self.processes.moments(raw, [torch.ones_like(raw_B, dtype=torch.bool) for raw_B in raw])
            self.progress = replace(self.progress, scores=self.progress.scores.with_batch(over))
        how, running = self.args.shaping, self.progress.scores
        return [
            replace(item, score_B=reward_shaping.shaped(item.raw_B, item.tokens_B, item.was_cut_B, running, how))
            for item in read
        ]

    def credit(self, measured: Sequence[rollout.Measured]) -> list[Lesson]:
        """Step 3: rewards per token, advantages, whitening over all processes."""
        return self.credits.lessons(measured, kl_coef=self.kl_coef)

    @torch.no_grad()
    def start_critic(self, measured: Sequence[rollout.Measured]) -> list[rollout.Measured]:
        """Fit the critic's head to what a rollout's answers came to; return them with the values that it reads now.

        Answers whose future the critic is to tell (bootstrap_truncated) have come to nothing yet and are left out.
        """
        first = self.processes.index * self.args.local_batch_size
        returns = self.credits.returns(measured, kl_coef=self.kl_coef)
        halves = self.reader.critic_moments(measured, returns, first=first, poll=self._poll)
        even, odd = (critic_start.Moments(*map(self.processes.total, half)) for half in halves)
        reading = self.processes.from_main(lambda: critic_start.fitted((even, odd)))
        if reading is None:
            return list(measured)
        reading.write(self.critic_head)
        return self.reader.values_again(measured, poll=self._poll)

    def learn(self, lessons: Sequence[Lesson], update: int) -> dict[str, float]:
        """Step 4: several epochs of clipped steps, policy and critic each with its own optimizer."""
        steps: list[dict[str, float]] = []
        parts = self.args.num_mini_batches
        for epoch in range(self.args.num_ppo_epochs):
            order = random.Random(self._seed("order", update, epoch)).sample(range(len(lessons)), len(lessons))
            for part in range(parts):
                of_part = order[part * len(order) // parts : (part + 1) * len(order) // parts]
                batch = [lessons[index] for index in of_part]
                steps.append(self._step(batch, update, step=len(steps)))
                if self._is_far(steps[-1]):
                    break
            if self._is_far(steps[-1]):
                break
        whole = len(steps) - self._is_far(steps[-1])
        rates = {"policy/epochs": whole / self.args.num_mini_batches, "lr": self._rate("policy", update)}
        return ppo_log.over_steps(steps) | rates

    def _step(self, lessons: Sequence[Lesson], update: int, step: int = 0) -> dict[str, float]:
        """One optimizer step of policy and critic over a mini-batch, normalised by all its tokens."""
        policy_learns = update > self.args.critic_warmup_updates
        mixed = self._mixed_in(update, step) if policy_learns else []
        answer_tokens, learned_tokens = self.processes.sum_all(
            [sum(lesson.answer_tokens for lesson in lessons), float(sum(rows.learned for rows in mixed))]
        )
        totals = self.stop.together(
            self.processes,
            lambda: self.gradients.add(
                lessons,
                mixed,
                answer_tokens=answer_tokens,
                learned_tokens=learned_tokens,
                policy_learns=policy_learns,
                poll=self._poll,
            ),
        )
        figures = ppo_log.of_step(totals, self.processes, answer_tokens=answer_tokens, learned_tokens=learned_tokens)
        # both norms are known before either steps, so that a fault of one leaves the other's weights alone too
        figures["policy/grad_norm"] = self._gradient_norm(self.gradients.policy) if policy_learns else 0.0
        figures["val/grad_norm"] = self._gradient_norm(self.gradients.critic)
        self._refuse_a_fault(figures, lessons, answer_tokens)
        is_taken = not self._is_far(figures)
        is_skipped = is_taken and policy_learns and 0 < self.args.ratio_limit < figures["val/ratio"]
        if is_taken and policy_learns and not is_skipped:
            self._update("policy", self._rate("policy", update))
        if is_taken:
            self._update("critic", self._rate("critic", update))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        return figures | {
            "rollout/policy_steps": float(is_taken and policy_learns and not is_skipped),
            "rollout/skipped_steps": float(is_skipped),
        }

    def _mixed_in(self, update: int, step: int) -> list[ptx.Mixed]:
        """This process's share of the rows that a step mixes in."""
        if self.mixture is None:
            return []
        # steps that an update left out are counted too: a resumed run draws what an unbroken one does
        rows = self.mixture.step((update - 1) * self.args.num_ppo_epochs * self.args.num_mini_batches + step)
        return ptx.micro_batches(rows[self.processes.index :: self.processes.count], size=self.args.ptx_micro_batch)

    def _is_far(self, figures: dict[str, float]) -> bool:
        """True if the policy has moved further from the one that sampled than a rollout may be learned from."""
        return 0 < self.args.target_kl < figures["policy/approxkl_avg"]

    def _gradient_norm(self, parameters: Sequence[torch.nn.Parameter]) -> float:
        """Sum the gradients over processes and clip them; return the norm before clipping."""
        self.processes.sum_gradients(one for one in parameters if not isinstance(one, sharding.Shard))
        if self.roles.is_sharded:
            return sharding.clip_norm(parameters, self.processes, clip=self.args.max_grad_norm)
        return norm(parameters, clip=self.args.max_grad_norm)

    def _update(self, name: str, rate: float) -> None:
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        self.roles.written()

    def _rate(self, name: str, update: int) -> float:
        """The learning rate of policy or critic in an update."""
        args = self.args
        full, late = (
            (args.learning_rate, args.critic_warmup_updates) if name == "policy" else (args.critic_learning_rate, 0)
        )
        return (
            full
            * args.guards.learning_rate_factor**self.progress.roll_backs
            * schedule.share(
                update - late,
                self.total_updates - late,
                warmup=args.warmup_updates,
                anneal=args.anneal,
                floor=args.anneal_floor,
            )
        )

    # ------------------------------------------------------------------------------------------ what may go wrong

    def _refuse_a_fault(self, figures: dict[str, float], lessons: Sequence[Lesson], answer_tokens: float) -> None:
        """Stop before a step if a figure is not finite; all processes know the same figures."""
        what = faults.said_of_figures(figures)
        if what is None:
            return
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        lesson = self.gradients.first_not_finite(lessons, answer_tokens=answer_tokens)
        faults.refuse_step(what, lesson, self.processes, self.folder, update=self.progress.update + 1)

    def _leave(self) -> str:
        """Write the checkpoint that a stopped run goes on from; return what there is to say."""
        if self.progress.update:
            self.save()
        self.processes.wait()
        return (
            f"stopped by SIGTERM after update {self.progress.update} of {self.total_updates}; "
            "the same command goes on from there."
        )

    def _poll(self) -> None:
        """Stop between two micro-batches: where their passes are messages between processes, all at the same place."""
        if self.roles.is_sharded:
            self.stop.poll_together(self.processes)
        else:
            self.stop.poll()

    # ------------------------------------------------------------------------------------------ parts

    def _progress_after(self, metrics: dict[str, float]) -> ppo_state.Progress:
        """How far the run is once an update is whole."""
        return replace(
            self.progress,
            update=self.progress.update + 1,
            episode=int(metrics["episode"]),
            kl_coef=next_coefficient(
                self.args.kl_coef if self.progress.kl_coef is None else self.progress.kl_coef,
                metrics["objective/kl"],
                target_nats=self.args.adaptive_kl_target,
                horizon=self.args.adaptive_kl_horizon,
                answers=self.batch_size,
            ),
            steps=self.progress.steps + int(metrics["rollout/policy_steps"]),
            skipped_steps=self.progress.skipped_steps + int(metrics["rollout/skipped_steps"]),
        )

    def save(self) -> None:
        """Write the checkpoint of the last whole update and delete those that nothing goes back to any more."""
        if self.processes.is_main or self.roles.is_sharded:
            parts = (self.roles, self.critic_head, self.optimizers)
            ppo_state.save(self.folder, self.progress, *parts, is_main=self.processes.is_main)
        if self.processes.is_main:
            ppo_state.tidy(self.folder, also=self.watch.also_kept)

    def save_policy(self, folder: Path, *, base: str) -> None:
        """Write the policy as `roles.refresh` left it, whole or not at all; `base` is the base's path from there."""
        with runs.whole_folder(folder) as aside:
            self.roles.save_policy(aside, self.tokenizer, base=base)

    def _adamw(self, parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate, eps=self.args.adam_epsilon, weight_decay=0.0)

    def _seed(self, *parts: object) -> int:
        return int(content_id(self.args.seed, *parts), 16) % 2**31
