"""Measuring a chat model: multiple choice by likelihood, held-out answers by figure checker and reward model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from finlm import chat_format
from finlm.figures import judge
from finlm.likelihood import answer_log_probs
from finlm.records import Category, ChoiceItem, Message, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """One model's answer to a held-out prompt with all that was measured on it.

    Example:
        AnswerRecord(model="ppo", prompt_id="9f…", prompt="…", reference="…", text="…", ended=True, tokens=21,
                     score=0.8, is_right=True, fault="", kl_nats=1.2)
    """

    model: str
    prompt_id: str
    prompt: str
    reference: str
    text: str
    ended: bool
    tokens: int
    score: float
    """The reward model's normalised score, without penalties."""
    is_right: bool
    """True if the figure checker finds it right and it ended."""
    fault: str
    kl_nats: float | None
    """log-probability under its model minus under the baseline; None for the baseline itself."""
    category: Category = "general"
    """The prompt's category and sub-field."""
    subfield: str = ""


def choose(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[ChoiceItem],
    *,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> list[int]:
    """Return the index of the likeliest choice of each item.

    Each choice is read as the answer to the question in the chat format; log-likelihoods are divided by the choice's
    bytes, as `acc_norm` of lm-evaluation-harness does, so that long choices are not at a disadvantage.
    """
    prompts, answers, sizes = [], [], []
    for item in items:
        prompt = chat_format.encode(tokenizer, (Message(role="user", content=item.question),)).ids
        for choice in item.choices:
            prompts.append(prompt)
            answers.append(chat_format.encode_answer(tokenizer, choice, ended=False))
            sizes.append(len(f" {choice}".encode()))
    totals = answer_log_probs(
        model, prompts, answers, pad=tokenizer.pad_token_id, batch_size=batch_size, on_batch=on_batch
    )
    chosen, first = [], 0
    for item in items:
        last = first + len(item.choices)
        normed = [total / size for total, size in zip(totals[first:last], sizes[first:last], strict=True)]
        chosen.append(normed.index(max(normed)))
        first = last
    return chosen


def is_right(prompt: Prompt, text: str, *, ended: bool) -> tuple[bool, str]:
    """Judge an answer by the figure checker; one that did not end by itself is never right.

    Returns:
        True if right, and the fault otherwise; without a known right answer nothing is judged.
    """
    if not prompt.reference:
        return False, ""
    verdict = judge(text, prompt.reference, prompt.question)
    return verdict.is_right and ended, verdict.fault or ("" if ended else "cut-off")


def win_rate(scores: Sequence[float], baseline: Sequence[float]) -> float:
    """Share of prompts on which the score is above the baseline's; a tie counts half."""
    wins = sum((one > other) + 0.5 * (one == other) for one, other in zip(scores, baseline, strict=True))
    return wins / len(scores)
