"""Sampling answers from a model: transformers' `generate` behind one function.

Prompts are left-padded in batches of similar length. The whole distribution is sampled unless told otherwise:
`generate` would cut it to the fifty likeliest tokens by default.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from finlm import chat_format


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample.

    Example:
        Sampling(max_new_tokens=256, temperature=0.7, top_p=0.95)
    """

    max_new_tokens: int
    """Tokens per answer at most, end token included."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy decoding."""
    top_p: float = 1.0
    """Smallest set of tokens with this probability mass; 1 keeps all."""
    top_k: int = 0
    """Number of likeliest tokens, before top_p; 0 keeps all."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more.")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or above.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must be 0 (off) or above.")

    def generation_config(self, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
        """The same as transformers has it."""
        is_sampled = self.temperature > 0
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=is_sampled,
            temperature=self.temperature if is_sampled else None,
            top_p=self.top_p if is_sampled else None,
            top_k=self.top_k if is_sampled else None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A sampled answer.

    Example:
        Answer(ids=(216, 6234, 2), ended=True)
    """

    ids: tuple[int, ...]
    """Token ids, the end token included where the model wrote one."""
    ended: bool
    log_probs: tuple[float, ...] = ()
    """Log-probability of each token where it was sampled, where the engine tells; training takes its own."""

    def text(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The answer as text, without the end token."""
        return chat_format.decode_answer(tokenizer, self.ids)[0]


@torch.inference_mode()
def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> list[Answer]:
    """Sample one answer for each prompt, in the order given.

    Args:
        model: A causal language model; the role that is active answers.
        tokenizer: Its tokenizer.
        prompts: Token ids of each prompt.
        sampling: How to sample.
        seed: Decides the answers, given the same prompts, model and machine; the global random state is left alone.
        batch_size: Prompts a batch.
        on_batch: Called with the number of prompts after each batch.
    """
    device = next(model.parameters()).device
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    settings = sampling.generation_config(tokenizer)
    answers: dict[int, Answer] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(by_length), batch_size):
            indices = by_length[start : start + batch_size]
            ids_BP, is_token_BP = pad_left([prompts[index] for index in indices], tokenizer.pad_token_id, device)
            with _contiguous_states_for(model.get_output_embeddings()):
                out_BT = model.generate(input_ids=ids_BP, attention_mask=is_token_BP.long(), generation_config=settings)
            for index, ids in zip(indices, out_BT[:, ids_BP.shape[1] :].tolist(), strict=True):
                answers[index] = _cut(ids, tokenizer.eos_token_id)
            on_batch(len(indices))
    return [answers[index] for index in range(len(prompts))]


@contextmanager
def _contiguous_states_for(head: torch.nn.Module) -> Iterator[None]:
    """Give the output head contiguous states for the `with` block.

    `generate` hands it a slice of the prompt's states; torch then copies the whole head once per row of the batch.
    On a CPU that takes a quarter of the time of a short answer.
    """
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    try:
        yield
    finally:
        hook.remove()


def _cut(ids: list[int], end: int) -> Answer:
    if end in ids:
        return Answer(tuple(ids[: ids.index(end) + 1]), ended=True)
    return Answer(tuple(ids), ended=False)


def pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack rows of ids, padded on the left.

    Returns:
        ids (B, T), and is_token (B, T): True where an id is not padding.
    """
    return _pad(rows, pad, device, on_left=True)


def pad_right(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack rows of ids, padded on the right; returns as `pad_left` does."""
    return _pad(rows, pad, device, on_left=False)


def _pad(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device, *, on_left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    is_token = torch.zeros((len(rows), longest), dtype=torch.bool)
    for index, row in enumerate(rows):
        span = slice(longest - len(row), longest) if on_left else slice(0, len(row))
        ids[index, span] = torch.tensor(row, dtype=torch.long)
        is_token[index, span] = True
    return ids.to(device), is_token.to(device)
