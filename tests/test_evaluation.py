"""Measures of a chat model: intervals against theory, choices against likelihoods taken one by one."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from finlm import evaluation, intervals, jsonl
from finlm.model import load_causal
from finlm.records import ChoiceItem, Message, Prompt
from finlm.tokenizer import load_tokenizer


def test_the_interval_is_that_of_normal_theory() -> None:
    rng = random.Random(1)
    numbers = [rng.gauss(2.0, 3.0) for _ in range(400)]
    mean = sum(numbers) / 400
    spread = (sum((number - mean) ** 2 for number in numbers) / 400) ** 0.5
    got = intervals.bootstrap(numbers, seed=0)
    assert got.mean == pytest.approx(mean)
    half = 1.96 * spread / 400**0.5
    assert got.low == pytest.approx(mean - half, abs=0.1 * half)
    assert got.high == pytest.approx(mean + half, abs=0.1 * half)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    rng = random.Random(2)
    covered = 0
    for trial in range(200):
        numbers = [float(rng.random() < 0.3) for _ in range(60)]
        got = intervals.bootstrap(numbers, seed=trial, draws=300)
        covered += got.low <= 0.3 <= got.high
    assert 178 <= covered <= 200  # 95 % of 200 is 190, four standard deviations are 12


def test_intervals_of_one_and_of_equal_numbers() -> None:
    assert intervals.bootstrap([0.5], seed=0) == intervals.Interval(mean=0.5, low=0.5, high=0.5)
    assert intervals.bootstrap([1.0] * 9, seed=0) == intervals.Interval(mean=1.0, low=1.0, high=1.0)
    assert intervals.bootstrap([0.0, 1.0, 1.0], seed=3) == intervals.bootstrap([0.0, 1.0, 1.0], seed=3)
    with pytest.raises(ValueError, match="no numbers"):
        intervals.bootstrap([], seed=0)


def test_win_rate_by_hand() -> None:
    # a win, a loss, a tie, a win: (1 + 0 + 0.5 + 1) / 4
    assert evaluation.win_rate([1.0, 0.0, 2.0, -1.0], [0.0, 1.0, 2.0, -3.0]) == 0.625
    assert evaluation.win_rate([1.0], [1.0]) == 0.5
    with pytest.raises(ValueError, match="zip"):
        evaluation.win_rate([1.0, 2.0], [1.0])


def test_right_means_right_and_ended() -> None:
    prompt = Prompt(
        messages=(Message(role="user", content="What was Acme's revenue in 2024?"),),
        reference="Acme's revenue was $412.6 million in 2024.",
    )
    assert evaluation.is_right(prompt, "It was $412.6 million.", ended=True) == (True, "")
    assert evaluation.is_right(prompt, "It was $412.6 million.", ended=False) == (False, "cut-off")
    assert evaluation.is_right(prompt, "It was $412.7 million.", ended=True) == (False, "figure")
    assert evaluation.is_right(prompt, "It was $412.7 million.", ended=False) == (False, "figure")


@pytest.fixture(scope="module")
def model(tiny: Any) -> LlamaForCausalLM:
    loaded = load_causal(Path(tiny.base), dtype=torch.float32, device=torch.device("cpu"))
    assert isinstance(loaded, LlamaForCausalLM)
    return loaded.eval()


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny.base)


def likeliest(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, item: ChoiceItem) -> int:
    """Sum the log-softmax over each choice's tokens, one forward pass a choice, per byte of its text."""
    prompt = tokenizer(f" Human: {item.question} Assistant:")["input_ids"]
    normed = []
    for choice in item.choices:
        ids = tokenizer(f" {choice}")["input_ids"]
        with torch.no_grad():
            every = torch.log_softmax(model(input_ids=torch.tensor([prompt + ids])).logits[0].double(), dim=-1)
        total = sum(float(every[len(prompt) - 1 + place, token]) for place, token in enumerate(ids))
        normed.append(total / len(f" {choice}".encode()))
    return normed.index(max(normed))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_likeliest_choice_is_chosen(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tiny: Any, batch_size: int
) -> None:
    items = [
        *jsonl.read(tiny.choices, ChoiceItem),
        ChoiceItem(
            benchmark="t",
            subject="s",
            question="Which is it?",
            choices=("Revenue", "zqx", "收入", "Revenue was $1.0 million in fiscal 2024."),
            answer=0,
        ),
        ChoiceItem(benchmark="t", subject="s", question="Up or down?", choices=("down", "up and up"), answer=0),
    ]
    seen: list[int] = []
    got = evaluation.choose(model, tokenizer, items, batch_size=batch_size, on_batch=seen.append)
    assert got == [likeliest(model, tokenizer, item) for item in items]
    assert len(set(got)) > 1
    assert sum(seen) == sum(len(item.choices) for item in items)
