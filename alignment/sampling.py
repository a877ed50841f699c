"""The policy answers; where memory is short, fewer prompts at once."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignment.halving import is_out_of_memory, release
from alignment.ppo_config import PPOConfig
from finlm import generation
from finlm.errors import UserError
from finlm.progress import console


class Sampler:
    """Samples as PPO's settings say.

    Attributes:
        rows_at_once: Prompts that are answered together; halved for good when memory does not suffice.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, args: PPOConfig) -> None:
        self.rows_at_once = args.local_rollout_forward_batch_size
        self._model = model
        self._tokenizer = tokenizer
        self._sampling = generation.Sampling(
            max_new_tokens=args.response_length, temperature=args.temperature, top_p=args.top_p, top_k=args.top_k
        )

    def sample(
        self, prompts: Sequence[Sequence[int]], *, seed: int, poll: Callable[[], None]
    ) -> list[generation.Answer]:
        """Return one answer per prompt, from the role that is on; `poll` is called between batches and may raise.

        Raises:
            UserError: A single prompt and its answer find too little memory.
        """
        while True:
            poll()
            try:
                return generation.sample(
                    self._model,
                    self._tokenizer,
                    prompts,
                    self._sampling,
                    seed=seed,
                    batch_size=self.rows_at_once,
                    on_batch=lambda _: poll(),
                )
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if self.rows_at_once == 1:
                raise UserError(
                    "Out of memory while sampling a single answer; lower response_length or max_prompt_length."
                )
            self.rows_at_once = -(-self.rows_at_once // 2)
            release()
            console.print(f"[yellow]out of memory while sampling: from now on {self.rows_at_once} prompts at once")
