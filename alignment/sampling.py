"""The policy answers; where memory is short, fewer prompts at once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from alignment.halving import is_out_of_memory, release
from alignment.ppo_config import PPOConfig
from finlm import engines, generation
from finlm.errors import UserError
from finlm.progress import console

LEAST_FREE = 1 / 3
"""Share of a GPU that must be free after sampling; below it, `release_cache: auto` frees the cache."""


class Sampler:
    """Samples as PPO's settings say.

    Given a seed, a prompt that comes again in the same call gets another answer; the trainer's seeds differ from update
    to update and from process to process, and depend on nothing that happened before.

    Attributes:
        engine: What samples.
        rows_at_once: Prompts that are answered together; halved for good when memory does not suffice.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, args: PPOConfig) -> None:
        self.rows_at_once = args.local_rollout_forward_batch_size
        self.engine = engines.make(
            args.engine,
            model,
            tokenizer,
            rows_at_once=self.rows_at_once,
            merge=args.sampler_merge,
            vllm_memory_share=args.vllm_memory_share,
        )
        self._device = model.get_input_embeddings().weight.device
        self._release_cache = args.release_cache
        self._most_rows: int | None = None
        self._sampling = generation.Sampling(
            max_new_tokens=args.response_length, temperature=args.temperature, top_p=args.top_p, top_k=args.top_k
        )

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int,
        poll: Callable[[], None] = lambda: None,
        sampling: generation.Sampling | None = None,
        rows_at_once: int | None = None,
    ) -> list[generation.Answer]:
        """Return one answer per prompt, from the policy as it is now; its role must be on.

        Args:
            prompts: Token ids of each prompt.
            seed: Decides the answers.
            poll: Called now and then; it may raise.
            sampling: How to sample; None as in rollouts.
            rows_at_once: Prompts answered together; None as many as in rollouts.

        Raises:
            UserError: A single prompt and its answer find too little memory.
        """
        while True:
            poll()
            wanted = rows_at_once or self.rows_at_once
            rows = min(wanted, self._most_rows or wanted)
            try:
                answers = self._sampled(prompts, sampling or self._sampling, seed=seed, poll=poll, rows=rows)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if rows == 1:
                raise UserError(
                    "Out of memory while sampling a single answer; lower response_length or max_prompt_length."
                )
            self._most_rows = -(-rows // 2)
            self.rows_at_once = min(self.rows_at_once, self._most_rows)
            self.engine.release()
            release()
            console.print(f"[yellow]out of memory while sampling: from now on {self._most_rows} prompts at once")
        if must_release(self._release_cache, self._device):
            self.engine.release()
        return answers

    def figures(self) -> dict[str, float]:
        """Return what the engine says of the weights it sampled with."""
        return {} if self.engine.retained is None else {"rollout/retained_share": self.engine.retained}

    def _sampled(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: generation.Sampling,
        *,
        seed: int,
        poll: Callable[[], None],
        rows: int,
    ) -> list[generation.Answer]:
        self.engine.rows_at_once = rows
        self.engine.refresh("policy")
        return self.engine.sample(prompts, sampling, seed=seed, poll=poll)


def must_release(setting: str, device: torch.device) -> bool:
    """Return whether the sampler gives its memory back before the update.

    Args:
        setting: always, never, or auto: where less than `LEAST_FREE` of the GPU is free.
        device: Where the policy is.
    """
    if setting != "auto" or device.type != "cuda":
        return setting == "always"
    free, total = torch.cuda.mem_get_info(device)
    in_reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + in_reserve < LEAST_FREE * total
