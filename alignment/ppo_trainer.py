"""PPO for language models: one process per GPU, four roles on one base, every number written down.

`PPOTrainer` takes TRL 1.12's constructor arguments and logs under TRL 1.12's names, so that its users switch by one
import. What differs, on purpose: the score lies on the end token; `max_grad_norm` clips; losses are normalised by the
tokens of the whole step; advantages are whitened over all processes; the run resumes.

The roles live on one base: `model` is the frozen base, `reward_model` the folder of a reward adapter trained on it; the
reference is the base without adapters and the critic begins as a copy of the reward model.
"""

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from alignment import objective, ppo_state, rollout
from alignment.ppo_config import PPOConfig
from alignment.roles import Roles, copy_adapter
from finlm import chat_format, generation, jsonl, likelihood, runs, scorer
from finlm.errors import UserError
from finlm.metrics import append_metrics
from finlm.model import order_targets
from finlm.progress import bar, console
from finlm.records import Prompt, Removal, RolloutRecord, content_id

__all__ = ["PPOConfig", "PPOTrainer"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One micro-batch of a rollout with what was measured before learning; (B, A) unless said otherwise."""

    batch: rollout.MicroBatch
    old_BA: Tensor
    """Log-probabilities of the policy that sampled, by the training path."""
    ref_BA: Tensor
    """Log-probabilities of the reference."""
    value_BA: Tensor
    entropy_BA: Tensor
    score_B: Tensor
    """Score with clipping and penalty, (B,)."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One micro-batch ready to learn from."""

    measured: Measured
    advantage_BA: Tensor
    return_BA: Tensor


class PPOTrainer:
    """Proximal policy optimization of a chat model against a reward model.

    Args:
        args: Settings.
        processing_class: The tokenizer.
        model: The frozen base, which is also the reference.
        ref_model: Must be None: the reference is the base.
        reward_model: Folder of the reward model (runs/reward).
        train_dataset: Prompts to answer, as records or as rows with `input_ids`.
        value_model: Must be None: the critic begins as a copy of the reward model.
        peft_config: LoRA of the policy.

    Raises:
        UserError: A separate reference or value model, no prompt that fits, or a reward model of another base.
    """

    def __init__(
        self,
        args: PPOConfig,
        processing_class: PreTrainedTokenizerBase,
        model: LlamaForCausalLM,
        ref_model: None,
        reward_model: str | Path,
        train_dataset: Sequence[Prompt | dict[str, Any]],
        value_model: None = None,
        *,
        peft_config: LoraConfig,
    ) -> None:
        if ref_model is not None or value_model is not None:
            raise UserError(
                "PPOTrainer keeps all roles on one base: give ref_model=None and value_model=None; the reference is "
                "the base without adapters, the critic starts from the reward model."
            )
        self.args = args
        self.tokenizer = processing_class
        self.accelerator = Accelerator()
        self.device = self.accelerator.device
        self.folder = Path(args.output_dir)
        scorer.check_same_tokenizer(reward_model, processing_class)

        lora = scorer.lora_of(reward_model)
        self.roles = Roles(model.to(self.device), policy=peft_config, critic=lora, reward=lora)
        scorer.load_adapter_weights(self.roles.model, reward_model, "reward")
        copy_adapter(self.roles, "reward", "critic")
        self.reward_head = scorer.load_head(reward_model).to(self.device).requires_grad_(False)
        self.critic_head = scorer.load_head(reward_model).to(self.device)
        if args.gradient_checkpointing:
            self.roles.checkpoint_gradients()
        self.head_VD = likelihood.output_head(model)

        self.optimizers = {
            "policy": self._adamw(self._policy_parameters(), args.learning_rate),
            "critic": self._adamw(self._critic_parameters(), args.critic_learning_rate),
        }
        self.prompts, self.removals = self._fitting(train_dataset)

    # ------------------------------------------------------------------------------------------ the loop

    def train(self) -> dict[str, float]:
        """Learn until `total_episodes` answers were seen; resume where an earlier run was cut off.

        Returns:
            The last update's metrics.

        Raises:
            UserError: A loss or gradient is not finite; the weights keep their last values.
        """
        progress, complaints = ppo_state.load(self.folder, self.roles, self.critic_head, self.optimizers)
        for complaint in complaints:
            console.print(f"[yellow]skipped a damaged checkpoint: {complaint}")
        metrics: dict[str, float] = {}
        is_main = self.accelerator.is_main_process
        with bar(is_shown=is_main) as shown:
            task = shown.add_task("PPO", total=self.total_updates, completed=progress.update, note="")
            while progress.update < self.total_updates:
                began = time.perf_counter()
                update = progress.update + 1
                prompts = self._prompts_of(update)
                answers = self.sample(prompts, update)
                measured = self.measure(prompts, answers)
                lessons = self.credit(measured)
                learned = self.learn(lessons, update)
                progress = ppo_state.Progress(update, progress.episode + self.args.local_batch_size * self.processes)

                metrics = self._summary(measured, answers) | learned
                metrics |= {"episode": progress.episode, "eps": len(answers) / (time.perf_counter() - began)}
                if is_main:
                    self._keep(update, prompts, answers, measured)
                    append_metrics(self.folder / "metrics.jsonl", update, metrics)
                    if update % self.args.save_steps == 0 or update == self.total_updates:
                        ppo_state.save(self.folder, progress, self.roles, self.critic_head, self.optimizers)
                shown.update(
                    task,
                    completed=update,
                    note=f"score {metrics['objective/scores']:+.2f} KL {metrics['objective/kl']:.2f}",
                )
        if is_main:
            ppo_state.tidy(self.folder)
        return metrics

    @property
    def processes(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def total_updates(self) -> int:
        """Rollouts until `total_episodes` answers were seen."""
        return -(-self.args.total_episodes // (self.args.local_batch_size * self.processes))

    # ------------------------------------------------------------------------------------------ the four steps

    def sample(self, prompts: Sequence[Sequence[int]], update: int) -> list[generation.Answer]:
        """Step 1: the policy answers."""
        sampling = generation.Sampling(
            max_new_tokens=self.args.response_length, temperature=self.args.temperature, top_p=1.0
        )
        seed = self._seed("sample", update, int(self.accelerator.process_index))
        with self.roles("policy"):
            return generation.sample(
                self.roles.model,
                self.tokenizer,
                prompts,
                sampling,
                seed=seed,
                batch_size=self.args.local_rollout_forward_batch_size,
            )

    @torch.no_grad()
    def measure(self, prompts: Sequence[Sequence[int]], answers: Sequence[generation.Answer]) -> list[Measured]:
        """Step 2: policy, reference, critic and reward model read the answers."""
        measured = []
        for batch in rollout.micro_batches(
            self.roles,
            prompts,
            answers,
            size=self.args.per_device_train_batch_size,
            pad=self.tokenizer.pad_token_id,
            device=self.device,
        ):
            with self.roles("policy"):
                old_BA, entropy_BA = self._log_probs(batch)
            with self.roles("reference"):
                ref_BA, _ = self._log_probs(batch)
            value_BA = rollout.values(self.roles, batch, self.critic_head)
            score_B = rollout.scores(self.roles, batch, self.reward_head)
            unusable_N = score_B[~torch.isfinite(score_B)]
            if len(unusable_N):
                raise UserError(
                    f"The reward model scores an answer {float(unusable_N[0])}; no step was taken. Look for damaged "
                    "weights in the reward model or in the policy's base."
                )
            if self.args.score_clip:
                score_B = score_B.clamp(-self.args.score_clip, self.args.score_clip)
            was_cut_B = torch.tensor([not answers[index].ended for index in batch.index], device=self.device)
            score_B = score_B - self.args.missing_eos_penalty * was_cut_B
            measured.append(Measured(batch, old_BA, ref_BA, value_BA, entropy_BA, score_B))
        return measured

    def credit(self, measured: Sequence[Measured]) -> list[Lesson]:
        """Step 3: rewards per token, advantages, whitening over all processes."""
        rewards = [
            objective.token_rewards(
                item.score_B,
                self._kl(item),
                item.batch.is_answer_BA,
                kl_coef=self.args.kl_coef,
            )
            for item in measured
        ]
        masks = [item.batch.is_answer_BA for item in measured]
        if self.args.whiten_rewards:
            over = self._moments(rewards, masks)
            rewards = [
                objective.whiten(reward, mask, over, shift_mean=False)
                for reward, mask in zip(rewards, masks, strict=True)
            ]
        estimates = [
            objective.advantages(reward, item.value_BA, mask, gamma=self.args.gamma, lam=self.args.lam)
            for reward, item, mask in zip(rewards, measured, masks, strict=True)
        ]
        over = self._moments([estimate.advantage_BA for estimate in estimates], masks)
        return [
            Lesson(item, objective.whiten(estimate.advantage_BA, mask, over), estimate.return_BA)
            for item, estimate, mask in zip(measured, estimates, masks, strict=True)
        ]

    def learn(self, lessons: Sequence[Lesson], update: int) -> dict[str, float]:
        """Step 4: several epochs of clipped steps, policy and critic each with its own optimizer."""
        steps: list[dict[str, float]] = []
        for epoch in range(self.args.num_ppo_epochs):
            order = random.Random(self._seed("order", update, epoch)).sample(range(len(lessons)), len(lessons))
            size = self.args.gradient_accumulation_steps
            for start in range(0, len(order), size):
                steps.append(self._step([lessons[index] for index in order[start : start + size]], update))
            if self.args.target_kl and steps[-1]["policy/approxkl_avg"] > self.args.target_kl:
                break
        return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]} | {
            "policy/epochs": len(steps) / self.args.num_mini_batches,
            "lr": self.args.learning_rate * self._warm(update),
        }

    def _step(self, lessons: Sequence[Lesson], update: int) -> dict[str, float]:
        """One optimizer step of policy and critic over a mini-batch, normalised by all its answer tokens."""
        tokens = self._sum(sum(float(lesson.measured.batch.is_answer_BA.sum()) for lesson in lessons))
        sums = dict.fromkeys(
            ("policy", "value", "clipped", "value_clipped", "approxkl", "entropy", "ratio", "ratio2"), 0.0
        )
        for lesson in lessons:
            item = lesson.measured
            mask_BA = item.batch.is_answer_BA
            with self.roles("policy"):
                logp_BA, entropy_BA = self._log_probs(item.batch)
                policy = objective.policy_loss(
                    logp_BA, item.old_BA, lesson.advantage_BA, mask_BA, cliprange=self.args.cliprange
                )
                (policy.loss / tokens).backward()  # type: ignore[no-untyped-call]
            value_BA = rollout.values(self.roles, item.batch, self.critic_head)
            value = objective.value_loss(
                value_BA, item.value_BA, lesson.return_BA, mask_BA, cliprange_value=self.args.cliprange_value
            )
            (self.args.vf_coef * value.loss / tokens).backward()  # type: ignore[no-untyped-call]
            ratio_N = policy.ratio_BA.detach()[mask_BA]
            sums["policy"] += float(policy.loss.detach())
            sums["value"] += float(value.loss.detach())
            sums["clipped"] += float(policy.clipped)
            sums["value_clipped"] += float(value.clipped)
            sums["approxkl"] += float(0.5 * (logp_BA.detach() - item.old_BA)[mask_BA].square().sum())
            sums["entropy"] += float(entropy_BA[mask_BA].sum())
            sums["ratio"] += float(ratio_N.sum())
            sums["ratio2"] += float(ratio_N.double().square().sum())
        means = {name: self._sum(total) / tokens for name, total in sums.items()}
        norms = {
            "policy": self._gradient_norm("policy", self._policy_parameters()),
            "critic": self._gradient_norm("critic", self._critic_parameters()),
        }
        # both norms are known before either steps, so that a fault of one leaves the other's weights alone too
        self._update("policy", self.args.learning_rate * self._warm(update))
        self._update("critic", self.args.critic_learning_rate * self._warm(update))
        return {
            "loss/policy_avg": means["policy"],
            "loss/value_avg": means["value"],
            "policy/clipfrac_avg": means["clipped"],
            "val/clipfrac_avg": means["value_clipped"],
            "policy/approxkl_avg": means["approxkl"],
            "policy/entropy_avg": means["entropy"],
            "val/ratio": means["ratio"],
            "val/ratio_var": max(0.0, means["ratio2"] - means["ratio"] ** 2),
            "policy/grad_norm": norms["policy"],
            "val/grad_norm": norms["critic"],
        }

    def _gradient_norm(self, name: str, parameters: list[torch.nn.Parameter]) -> float:
        """Sum the gradients over processes, clip and check them; return the norm before clipping."""
        if self.processes > 1:
            for parameter in parameters:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.args.max_grad_norm or float("inf")))
        if norm != norm or norm == float("inf"):
            raise UserError(
                f"The {name}'s gradient norm is {norm}; no step was taken and the weights keep their last values. "
                "Lower the learning rate or look at the last rollouts."
            )
        return norm

    def _update(self, name: str, rate: float) -> None:
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # ------------------------------------------------------------------------------------------ parts

    def save_policy(self, folder: Path, *, base: str) -> None:
        """Write the policy's adapter, whole or not at all; `base` is the base's path relative to it."""
        with runs.whole_folder(folder) as aside:
            self.roles.model.peft_config["policy"].base_model_name_or_path = base
            order_targets(self.roles.model.peft_config["policy"])
            self.roles.model.save_pretrained(aside, selected_adapters=["policy"], save_embedding_layers=False)
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                (aside / "policy" / name).rename(aside / name)
            shutil.rmtree(aside / "policy")
            (aside / "README.md").unlink(missing_ok=True)

    def _kl(self, item: Measured) -> Tensor:
        return objective.kl_estimate(item.old_BA, item.ref_BA, self.args.kl_estimator)

    def _log_probs(self, batch: rollout.MicroBatch) -> tuple[Tensor, Tensor]:
        return rollout.log_probs(self.roles, batch, self.head_VD, temperature=self.args.temperature)

    def _policy_parameters(self) -> list[torch.nn.Parameter]:
        return list(self.roles.adapter("policy").values())

    def _critic_parameters(self) -> list[torch.nn.Parameter]:
        return [*self.roles.adapter("critic").values(), *self.critic_head.parameters()]

    def _adamw(self, parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate, eps=self.args.adam_epsilon, weight_decay=0.0)

    def _warm(self, update: int) -> float:
        return min(1.0, update / self.args.warmup_updates) if self.args.warmup_updates else 1.0

    def _seed(self, *parts: object) -> int:
        return int(content_id(self.args.seed, *parts), 16) % 2**31

    def _sum(self, number: float) -> float:
        if self.processes == 1:
            return number
        return float(self.accelerator.reduce(torch.tensor(number, device=self.device).double(), reduction="sum"))

    def _moments(self, numbers: Sequence[Tensor], masks: Sequence[Tensor]) -> objective.Moments:
        parts = [objective.moments(number, mask) for number, mask in zip(numbers, masks, strict=True)]
        local = [torch.stack(column).sum() for column in zip(*parts, strict=True)]
        return objective.Moments(*(self.accelerator.reduce(part, reduction="sum") for part in local))

    def _fitting(self, dataset: Sequence[Prompt | dict[str, Any]]) -> tuple[list[tuple[str, list[int]]], list[Removal]]:
        fitting: list[tuple[str, list[int]]] = []
        removals = []
        for row in dataset:
            if isinstance(row, Prompt):
                name, ids = row.id, list(chat_format.encode(self.tokenizer, row.messages).ids)
            else:
                ids = list(row["input_ids"])
                name = content_id(ids)
            if len(ids) <= self.args.max_prompt_length:
                fitting.append((name, ids))
            else:
                reason = f"{len(ids)} tokens, the limit is {self.args.max_prompt_length}"
                removals.append(Removal(record_id=name, rule="too-long", reason=reason))
        if not fitting:
            raise UserError(
                f"None of {len(removals)} prompts has at most {self.args.max_prompt_length} tokens; "
                "raise max_prompt_length or give shorter prompts."
            )
        return fitting, removals

    def _prompts_of(self, update: int) -> list[list[int]]:
        """This process's prompts of an update: the data is gone through in a new seeded order again and again."""
        local, first = self.args.local_batch_size, (update - 1) * self.args.local_batch_size * self.processes
        start = first + int(self.accelerator.process_index) * local
        return [self.prompts[index][1] for index in self._order(start, local)]

    def _order(self, start: int, count: int) -> Iterator[int]:
        size = len(self.prompts)
        orders: dict[int, list[int]] = {}
        for place in range(start, start + count):
            epoch, within = divmod(place, size)
            if epoch not in orders:
                orders[epoch] = random.Random(self._seed("prompts", epoch)).sample(range(size), size)
            yield orders[epoch][within]

    def _summary(self, measured: Sequence[Measured], answers: Sequence[generation.Answer]) -> dict[str, float]:
        """What the rollout itself says, over all processes."""
        count = self._sum(float(len(answers)))
        kl = sum(float(((i.old_BA - i.ref_BA) * i.batch.is_answer_BA).sum()) for i in measured)
        penalty = self._sum(sum(float((self._kl(i) * i.batch.is_answer_BA).sum()) for i in measured)) / count
        scores = sum(float(i.score_B.sum()) for i in measured)
        entropy = sum(float((i.entropy_BA * i.batch.is_answer_BA).sum()) for i in measured)
        kl, scores, entropy = self._sum(kl) / count, self._sum(scores) / count, self._sum(entropy) / count
        squares = self._sum(sum(float(i.score_B.double().square().sum()) for i in measured)) / count
        ended = self._sum(float(sum(answer.ended for answer in answers)))
        return {
            "objective/kl": kl,
            "objective/entropy": entropy,
            "objective/non_score_reward": -self.args.kl_coef * penalty,
            "objective/rlhf_reward": scores - self.args.kl_coef * penalty,
            "objective/scores": scores,
            "rollout/score_std": max(0.0, squares - scores**2) ** 0.5,
            "val/num_eos_tokens": ended,
            "rollout/ended_share": ended / count,
            "rollout/answer_tokens": self._sum(float(sum(len(answer.ids) for answer in answers))) / count,
        }

    def _keep(
        self,
        update: int,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[generation.Answer],
        measured: Sequence[Measured],
    ) -> None:
        """Write this process's answers as records, one file per update."""
        names = {tuple(ids): name for name, ids in self.prompts}
        kept: dict[int, RolloutRecord] = {}
        for item in measured:
            kl_B = ((item.old_BA - item.ref_BA) * item.batch.is_answer_BA).sum(dim=1)
            for row, index in enumerate(item.batch.index):
                kept[index] = RolloutRecord(
                    update=update,
                    prompt_id=names[tuple(prompts[index])],
                    prompt=self.tokenizer.decode(prompts[index]),
                    response=answers[index].text(self.tokenizer),
                    score=round(float(item.score_B[row]), 4),
                    kl_nats=round(float(kl_B[row]), 4),
                    tokens=len(answers[index].ids),
                    ended=answers[index].ended,
                )
        jsonl.write(self.folder / "rollouts" / f"update-{update:05d}.jsonl", [kept[index] for index in sorted(kept)])
