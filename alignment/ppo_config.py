"""The settings of PPO, under the names of TRL 1.12's `PPOConfig` where it had them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of `PPOTrainer`.

    A rollout holds `per_device_train_batch_size x gradient_accumulation_steps x num_mini_batches` answers per process;
    it is gone through `num_ppo_epochs` times, one optimizer step per mini-batch.
    """

    output_dir: str = "runs/ppo"
    """Folder of the run: policy, checkpoints, rollouts, metrics."""
    total_episodes: int = 38_400
    """Answers to learn from in all; raise it to train a finished run on."""
    per_device_train_batch_size: int = 8
    """Answers per forward pass and process."""
    gradient_accumulation_steps: int = 16
    """Forward passes per optimizer step."""
    num_mini_batches: int = 1
    """Optimizer steps per epoch over a rollout."""
    num_ppo_epochs: int = 2
    """Times each rollout is learned from."""
    local_rollout_forward_batch_size: int = 64
    """Answers sampled at once and process."""
    response_length: int = 512
    """Tokens per answer at most."""
    max_prompt_length: int = 1536
    """Tokens per prompt at most; longer prompts are set aside and counted."""
    temperature: float = 1.0
    """Divides the logits, in sampling and in every log-probability."""
    missing_eos_penalty: float = 1.0
    """Taken off the score of an answer that was cut off at `response_length`, in units of the score."""
    score_clip: float = 5.0
    """Scores are held within +- this many units, before the penalty; 0 leaves them."""
    learning_rate: float = 2e-5
    """Learning rate of the policy's LoRA weights (the recipe's 5e-7 is a rate for full fine-tuning)."""
    critic_learning_rate: float = 5e-5
    """Learning rate of the critic's LoRA weights and head."""
    warmup_updates: int = 3
    """Rollouts over which both learning rates rise linearly from zero."""
    adam_epsilon: float = 1e-5
    """AdamW's epsilon, as in OpenAI's PPO."""
    max_grad_norm: float = 1.0
    """Gradient norm that policy and critic are each clipped to."""
    kl_coef: float = 0.05
    """beta: score units per nat of KL to the reference."""
    kl_estimator: str = "k1"
    """k1, k2 or k3."""
    cliprange: float = 0.2
    """Ratios beyond 1 +- this earn nothing more."""
    cliprange_value: float = 0.2
    """Values may move this far from the rollout's without penalty."""
    vf_coef: float = 1.0
    """Weight of the critic's loss."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """Lambda of generalised advantage estimation."""
    whiten_rewards: bool = False
    """Scale rewards to variance 1, keeping their mean."""
    target_kl: float = 0.0
    """Stop the epochs of a rollout once the policy has moved this many nats per token from its start; 0 never stops."""
    save_steps: int = 20
    """Updates between checkpoints."""
    seed: int = 0
    """Seed of everything random."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        for name in (
            "total_episodes",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "num_mini_batches",
            "num_ppo_epochs",
            "local_rollout_forward_batch_size",
            "response_length",
            "save_steps",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; PPO samples, so it must be above 0.")
        if self.kl_estimator not in {"k1", "k2", "k3"}:
            raise ValueError(f"kl_estimator is {self.kl_estimator!r}; it must be k1, k2 or k3.")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 to 1.")

    @property
    def local_batch_size(self) -> int:
        """Answers of one rollout on one process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.num_mini_batches
