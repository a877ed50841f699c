"""The settings of PPO, under the names of TRL 1.12's `PPOConfig` where it had them."""

from dataclasses import dataclass, field

from alignment.best import HeldOutConfig
from alignment.guards import GuardConfig
from alignment.reward_shaping import NORMALISATIONS, Shaping
from alignment.schedule import SHAPES
from finlm.engines import ENGINES
from finlm.ensemble import REDUCTIONS
from finlm.sft_records import StreamName

CRITIC_STARTS = ("fitted", "reward")
"""To the first rollout's returns; as the reward model's head."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of `PPOTrainer`.

    A rollout holds `per_device_train_batch_size x gradient_accumulation_steps x num_mini_batches` answers per process;
    it is gone through `num_ppo_epochs` times, one optimizer step per mini-batch.
    """

    output_dir: str = "runs/ppo"
    """Folder of the run: policy, checkpoints, rollouts, metrics."""
    layout: str = "adapters"
    """adapters: policy, critic and reward model are LoRA adapters on one frozen base. full: policy and critic train all
    their weights, in shards over all processes (configs/accelerate/fsdp2.yaml or zero3.yaml)."""
    total_episodes: int = 38_400
    """Answers to learn from in all; raise it to train a finished run on."""
    per_device_train_batch_size: int = 8
    """Answers per forward pass and process, at most."""
    micro_batch_tokens: int = 0
    """Tokens of prompts and answers per forward pass and process, at most, padding included; a longer answer goes
    alone. Answers of any length then fill a pass alike. 0 is no limit."""
    gradient_accumulation_steps: int = 16
    """Forward passes per optimizer step; as many more as micro_batch_tokens asks for."""
    num_mini_batches: int = 1
    """Optimizer steps per epoch over a rollout."""
    num_ppo_epochs: int = 2
    """Times each rollout is learned from."""
    local_rollout_forward_batch_size: int = 64
    """Answers sampled at once and process."""
    response_length: int = 512
    """Tokens per answer at most."""
    engine: str = "auto"
    """What samples: generate (transformers' own), compiled (a preallocated cache and a captured step), vllm (the extra
    of that name), or auto: compiled on CUDA, generate elsewhere."""
    sampler_merge: bool = True
    """compiled: sample from a copy of the adapted weights with the policy merged in, rounded to their dtype by
    chance; false samples through the adapter: a third slower, but nothing is rounded and no copy is kept."""
    sampler_gap_limit: float = 0.2
    """Mean distance between the sampler's log-probabilities and the training path's, nats per token, beyond which the
    run stops; 0 never stops."""
    release_cache: str = "auto"
    """always, never, or auto: whether the sampler gives its key-value cache (vllm: all its GPU memory) back before the
    update; auto does so where less than a third of the GPU is free. To make it again takes seconds."""
    vllm_memory_share: float = 0.0
    """vllm: share of the GPU's memory for its own copy of the base and its cache, 0 to 1; 0 takes nine tenths of what
    is free when it starts."""
    max_prompt_length: int = 1536
    """Tokens per prompt at most; longer prompts are set aside and counted."""
    temperature: float = 1.0
    """Divides the logits, in sampling and in every log-probability."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this probability mass; 1 keeps all. Ratios and KL are then those of
    the distributions restricted to the set that the policy had when it sampled."""
    top_k: int = 0
    """Sample from this many likeliest tokens; 0 keeps all. Ratios and KL as with top_p."""
    score_normalisation: str = "none"
    """none, std (scores are divided by their running standard deviation) or mean_std (their running mean is taken off
    before); over all rollouts and processes."""
    score_clip: float = 5.0
    """Scores are held within +- this many units, after the normalisation and before the penalties; 0 leaves them."""
    length_penalty: float = 0.0
    """Taken off the score for each token beyond `length_penalty_from`, score units per token."""
    length_penalty_from: int = 0
    """Tokens of an answer that cost nothing."""
    short_penalty: float = 0.0
    """Taken off the score for each token that an answer has fewer than `short_penalty_below`, score units per token."""
    short_penalty_below: int = 0
    """Tokens from which on an answer is not short. Reward models read answers shorter than any they learned from by
    chance, and where they like them PPO learns to say nothing."""
    missing_eos_penalty: float = 1.0
    """Taken off the score of an answer that was cut off at `response_length`, in units of the score. A reward model
    that learned from cut answers reads it as it stands, another one as if it ended there."""
    bootstrap_truncated: bool = False
    """Take the critic's value after its last token for the future of a cut-off answer, in place of its score; false
    takes the cut for an end. Penalties stay; missing_eos_penalty 0 makes a cut neutral."""
    reward_reduce: str = "mean"
    """What is paid where there are several reward models: the mean or the min of their scores."""
    learning_rate: float = 2e-5
    """Learning rate of the policy's LoRA weights; with layout full set the recipe's 5e-7, of which this default is
    forty times as much."""
    critic_learning_rate: float = 5e-5
    """Learning rate of the critic's LoRA weights and head; with layout full set about 1.5e-6."""
    warmup_updates: int = 3
    """Rollouts over which both learning rates rise linearly from zero; the policy's after critic_warmup_updates."""
    anneal: str = "none"
    """none, linear or cosine: how both learning rates fall from then on to the last update that total_episodes allows.
    A run that is trained on follows the longer run's curve from there: its rate rises again."""
    anneal_floor: float = 0.0
    """Share of the learning rate that it falls to, 0 to 1."""
    critic_warmup_updates: int = 0
    """Rollouts at the beginning from which only the critic learns."""
    critic_start: str = "fitted"
    """What the critic's head begins as, on the reward model's adapter: fitted to the first rollout's returns, or the
    reward model's own (reward), for one that learned to read every token."""
    adam_epsilon: float = 1e-5
    """AdamW's epsilon, as in OpenAI's PPO."""
    max_grad_norm: float = 1.0
    """Gradient norm that policy and critic are each clipped to."""
    kl_coef: float = 0.05
    """beta: score units per nat of KL to the reference; with adaptive_kl_target, beta of the first rollout."""
    kl_estimator: str = "k1"
    """k1, k2 or k3."""
    adaptive_kl_target: float = 0.0
    """KL to the reference, in nats per answer, that beta is steered towards after each rollout; 0 leaves beta fixed."""
    adaptive_kl_horizon: int = 10_000
    """Answers over which beta can change by a fifth."""
    cliprange: float = 0.2
    """Ratios beyond 1 +- this earn nothing more."""
    cliprange_high: float = 0.0
    """Ratios above 1 + this earn nothing more; 0 takes cliprange for both sides."""
    dual_clip: float = 0.0
    """Where the advantage is negative, a token counts at most as if its ratio were this, above 1; 0 is off."""
    ratio_limit: float = 10.0
    """The policy skips an optimizer step whose mean ratio is beyond this; 0 never skips."""
    entropy_coef: float = 0.0
    """Weight of the mean entropy per token, which is added to what the policy maximises."""
    cliprange_value: float = 0.2
    """Values may move this far from the rollout's without penalty; 0 is the plain squared error."""
    vf_coef: float = 1.0
    """Weight of the critic's loss."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """Lambda of generalised advantage estimation."""
    whiten_rewards: bool = False
    """Scale rewards to variance 1, keeping their mean."""
    target_kl: float = 0.0
    """Learn no more from a rollout once the policy has moved this many nats per token from the one that sampled:
    checked before each optimizer step, which is then not taken; 0 never stops."""
    ptx_coef: float = 0.0
    """PPO-ptx: weight of the mean negative log-likelihood of mixed-in text and instructions, per learned token, in the
    policy's loss; 0 mixes nothing in and reads none of the files below."""
    ptx_instructions: list[str] = field(default_factory=list)
    """Files of instructions to mix in, in the formats that `finlm sft` reads."""
    ptx_text: list[str] = field(default_factory=list)
    """Files of text to mix in, in the formats that `finlm sft` reads."""
    ptx_text_share: float = 0.2
    """Share of text among all mixed-in tokens, prompts included, 0 to 1."""
    ptx_test_share: float = 0.2
    """Share of groups (companies, questions, documents) held out from what is mixed in, as in `finlm sft`."""
    ptx_rows: int = 8
    """Mixed-in packed rows per optimizer step, over all processes."""
    ptx_max_length: int = 1024
    """Tokens of a packed row. Longer conversations are set aside, longer documents continue in another sample."""
    ptx_cache: str = "runs/cache/tokens"
    """Folder of encoded files; may be deleted at any time."""
    save_steps: int = 20
    """Updates between checkpoints."""
    policy_steps: int = 20
    """Updates between policies that are kept in `policies/`, to be judged later; the last is kept too. 0 keeps none.
    One is as large as its adapter: 0.15 GB for r 16 on all linear layers of the 6B."""
    evaluation: HeldOutConfig = field(default_factory=HeldOutConfig)
    """Evaluation on held-out prompts while PPO runs."""
    guards: GuardConfig = field(default_factory=GuardConfig)
    """Limits beyond which a run is stopped or rolled back."""
    seed: int = 0
    """Seed of everything random."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        at_least_one = (
            "total_episodes",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "num_mini_batches",
            "num_ppo_epochs",
            "local_rollout_forward_batch_size",
            "response_length",
            "adaptive_kl_horizon",
            "ptx_rows",
            "ptx_max_length",
            "save_steps",
        )
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; PPO samples, so it must be above 0.")
        for name, known in (
            ("layout", ("adapters", "full")),
            ("kl_estimator", ("k1", "k2", "k3")),
            ("score_normalisation", NORMALISATIONS),
            ("anneal", SHAPES),
            ("critic_start", CRITIC_STARTS),
            ("engine", ENGINES),
            ("reward_reduce", REDUCTIONS),
            ("release_cache", ("auto", "always", "never")),
        ):
            if getattr(self, name) not in known:
                choices = f"{', '.join(known[:-1])} or {known[-1]}"
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {choices}.")
        for name in ("gamma", "lam", "anneal_floor", "ptx_text_share", "ptx_test_share", "vllm_memory_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 to 1.")
        not_negative = (
            "micro_batch_tokens",
            "top_k",
            "score_clip",
            "length_penalty",
            "length_penalty_from",
            "short_penalty",
            "short_penalty_below",
            "missing_eos_penalty",
            "warmup_updates",
            "critic_warmup_updates",
            "adaptive_kl_target",
            "cliprange_high",
            "cliprange_value",
            "ratio_limit",
            "entropy_coef",
            "target_kl",
            "ptx_coef",
            "sampler_gap_limit",
            "policy_steps",
        )
        for name in not_negative:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (off) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        for name in ("dual_clip", "ratio_limit"):
            if 0 < getattr(self, name) <= 1 or getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 1, or 0 for off.")
        if self.layout == "full" and self.engine == "vllm":
            raise ValueError(
                "engine is 'vllm' with layout 'full'; it is sent adapters, not whole models: take auto or compiled."
            )
        if self.ptx_coef and self.ptx_text_share < 1 and not self.ptx_instructions:
            raise ValueError(
                f"ptx_coef is {self.ptx_coef}, but ptx_instructions names no file; give one or set it to 0."
            )
        if self.ptx_coef and self.ptx_text_share > 0 and not self.ptx_text:
            raise ValueError(
                f"ptx_text_share is {self.ptx_text_share}, but ptx_text names no file; give one or set it to 0."
            )

    @property
    def ptx_shares(self) -> dict[str, float]:
        """Share of each mixed-in stream among all mixed-in tokens."""
        return {"instructions-finance": 1 - self.ptx_text_share, "text-finance": self.ptx_text_share}

    @property
    def ptx_files(self) -> dict[StreamName, list[str]]:
        """Files of each mixed-in stream that has a share; none where nothing is mixed in."""
        files: dict[StreamName, list[str]] = {
            "instructions-finance": self.ptx_instructions,
            "text-finance": self.ptx_text,
        }
        return {name: its for name, its in files.items() if self.ptx_coef and self.ptx_shares[name] > 0}

    @property
    def ptx_micro_batch(self) -> int:
        """Mixed-in packed rows per forward pass and process."""
        size = self.per_device_train_batch_size
        return max(1, min(size, self.micro_batch_tokens // self.ptx_max_length)) if self.micro_batch_tokens else size

    @property
    def shaping(self) -> Shaping:
        """What is done to a score before it is paid."""
        return Shaping(
            normalisation=self.score_normalisation,
            clip=self.score_clip,
            length_penalty=self.length_penalty,
            length_penalty_from=self.length_penalty_from,
            short_penalty=self.short_penalty,
            short_penalty_below=self.short_penalty_below,
            missing_eos_penalty=self.missing_eos_penalty,
        )

    @property
    def local_batch_size(self) -> int:
        """Answers of one rollout on one process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.num_mini_batches
