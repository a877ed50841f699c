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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from alignment import objective, ppo_log, ppo_state, rollout
from alignment.ppo_config import PPOConfig
from alignment.processes import Processes
from alignment.prompt_stream import PromptStream
from alignment.roles import Roles, copy_adapter
from finlm import generation, jsonl, likelihood, runs, scorer
from finlm.errors import UserError
from finlm.metrics import append_metrics
from finlm.model import order_targets
from finlm.progress import bar, console
from finlm.records import Prompt, content_id

__all__ = ["PPOConfig", "PPOTrainer"]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One micro-batch ready to learn from."""

    measured: rollout.Measured
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
        self.processes = Processes(self.accelerator)
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
        self.prompts = PromptStream(train_dataset, processing_class, max_length=args.max_prompt_length, seed=args.seed)

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
        is_main = self.processes.is_main
        with bar(is_shown=is_main) as shown:
            task = shown.add_task("PPO", total=self.total_updates, completed=progress.update, note="")
            while progress.update < self.total_updates:
                began = time.perf_counter()
                update = progress.update + 1
                prompts = self.prompts_of(update)
                answers = self.sample(prompts, update)
                measured = self.measure(prompts, answers)
                lessons = self.credit(measured)
                learned = self.learn(lessons, update)
                progress = ppo_state.Progress(update, progress.episode + self.batch_size)

                metrics = learned | ppo_log.summary(
                    measured,
                    answers,
                    self.processes,
                    kl_coef=self.args.kl_coef,
                    kl_estimator=self.args.kl_estimator,
                )
                metrics |= {"episode": progress.episode, "eps": len(answers) / (time.perf_counter() - began)}
                if is_main:
                    kept = ppo_log.records(update, prompts, answers, measured, self.tokenizer, self.prompts.name)
                    jsonl.write(self.folder / "rollouts" / f"update-{update:05d}.jsonl", kept)
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
    def total_updates(self) -> int:
        """Rollouts until `total_episodes` answers were seen."""
        return -(-self.args.total_episodes // self.batch_size)

    @property
    def batch_size(self) -> int:
        """Answers of one rollout, over all processes."""
        return self.args.local_batch_size * self.processes.count

    def prompts_of(self, update: int) -> list[list[int]]:
        """Return the token ids of this process's prompts of an update."""
        local = self.args.local_batch_size
        return self.prompts.take((update - 1) * self.batch_size + self.processes.index * local, local)

    # ------------------------------------------------------------------------------------------ the four steps

    def sample(self, prompts: Sequence[Sequence[int]], update: int) -> list[generation.Answer]:
        """Step 1: the policy answers."""
        sampling = generation.Sampling(
            max_new_tokens=self.args.response_length, temperature=self.args.temperature, top_p=1.0
        )
        seed = self._seed("sample", update, self.processes.index)
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
    def measure(self, prompts: Sequence[Sequence[int]], answers: Sequence[generation.Answer]) -> list[rollout.Measured]:
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
            measured.append(rollout.Measured(batch, old_BA, ref_BA, value_BA, entropy_BA, score_B))
        return measured

    def credit(self, measured: Sequence[rollout.Measured]) -> list[Lesson]:
        """Step 3: rewards per token, advantages, whitening over all processes."""
        rewards = [
            objective.token_rewards(
                item.score_B,
                objective.kl_estimate(item.old_BA, item.ref_BA, self.args.kl_estimator),
                item.batch.is_answer_BA,
                kl_coef=self.args.kl_coef,
            )
            for item in measured
        ]
        masks = [item.batch.is_answer_BA for item in measured]
        if self.args.whiten_rewards:
            over = self.processes.moments(rewards, masks)
            rewards = [
                objective.whiten(reward, mask, over, shift_mean=False)
                for reward, mask in zip(rewards, masks, strict=True)
            ]
        estimates = [
            objective.advantages(reward, item.value_BA, mask, gamma=self.args.gamma, lam=self.args.lam)
            for reward, item, mask in zip(rewards, measured, masks, strict=True)
        ]
        over = self.processes.moments([estimate.advantage_BA for estimate in estimates], masks)
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
        tokens = self.processes.sum(sum(float(lesson.measured.batch.is_answer_BA.sum()) for lesson in lessons))
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
        means = {name: self.processes.sum(total) / tokens for name, total in sums.items()}
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
        self.processes.sum_gradients(parameters)
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
