"""Sampling, against transformers one prompt at a time and against the softmax itself."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from finlm import chat_format
from finlm.generation import Answer, Sampling, pad_left, pad_right, sample
from finlm.model import load_causal
from finlm.records import Message
from finlm.tokenizer import load_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny: Any) -> LlamaForCausalLM:
    loaded = load_causal(Path(tiny.base), dtype=torch.float32, device=CPU)
    assert isinstance(loaded, LlamaForCausalLM)
    return loaded.eval()


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny.base)


@pytest.fixture(scope="module")
def prompts(tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    asked = [
        "What was Fernhill Inc.'s revenue in fiscal 2024?",
        "Revenue?",
        "What was Jay Inc.'s net income in fiscal 2023? Say it in one sentence, please.",
        "Net income of Alder Inc.",
        "A",
    ]
    return [chat_format.encode(tokenizer, (Message(role="user", content=text),)).ids for text in asked]


GREEDY = Sampling(max_new_tokens=20, temperature=0.0)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_greedy_answers_equal_those_of_one_prompt_at_a_time(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[tuple[int, ...]], batch_size: int
) -> None:
    got = sample(model, tokenizer, prompts, GREEDY, seed=0, batch_size=batch_size)
    for answer, prompt in zip(got, prompts, strict=True):
        ids = list(prompt)
        wanted = []
        while len(wanted) < 20 and tokenizer.eos_token_id not in wanted:  # no cache, no padding, no generate
            with torch.no_grad():
                wanted.append(int(model(input_ids=torch.tensor([ids + wanted])).logits[0, -1].argmax()))
        alone = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)).long(),
            do_sample=False,
            max_new_tokens=20,
        )
        assert list(answer.ids) == wanted == alone[0, len(ids) :].tolist()
        assert answer.ended == (wanted[-1] == tokenizer.eos_token_id)


def test_answers_end_with_their_end_token_and_nothing_follows(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[tuple[int, ...]]
) -> None:
    answers = sample(model, tokenizer, prompts * 8, Sampling(max_new_tokens=24), seed=1, batch_size=8)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert {answer.ended for answer in answers} == {True, False}
    for answer in answers:
        if answer.ended:
            assert answer.ids.index(end) == len(answer.ids) - 1
            assert "</s>" not in answer.text(tokenizer)
        else:
            assert end not in answer.ids
            assert len(answer.ids) == 24
        assert pad not in answer.ids[:-1] or not answer.ended


def test_the_same_seed_gives_the_same_answers_and_the_global_state_is_left_alone(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[tuple[int, ...]]
) -> None:
    sampling = Sampling(max_new_tokens=12)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = sample(model, tokenizer, prompts, sampling, seed=7, batch_size=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert sample(model, tokenizer, prompts, sampling, seed=7, batch_size=2) == first
    assert sample(model, tokenizer, prompts, sampling, seed=8, batch_size=2) != first


def frequencies_fit(counts: Counter[int], probabilities: torch.Tensor, number: int) -> None:
    """Each token within four standard deviations; those expected fewer than five times are counted as one."""
    expected = {token: p for token, p in enumerate(probabilities.tolist()) if number * p >= 5}
    expected[-1] = 1 - sum(expected.values())
    observed: Counter[int] = Counter()
    for token, count in counts.items():
        observed[token if token in expected else -1] += count
    for token, p in expected.items():
        sigma = math.sqrt(number * p * (1 - p))
        assert abs(observed[token] - number * p) <= 4 * sigma, f"token {token}"


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_first_tokens_come_as_often_as_the_softmax_says(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[tuple[int, ...]], temperature: float
) -> None:
    number = 4000
    answers = sample(
        model,
        tokenizer,
        [prompts[1]] * number,
        Sampling(max_new_tokens=1, temperature=temperature),
        seed=3,
        batch_size=number,
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompts[1]])).logits[0, -1]
    frequencies_fit(Counter(answer.ids[0] for answer in answers), torch.softmax(logits / temperature, dim=-1), number)


def test_the_whole_distribution_is_sampled_beyond_the_fifty_likeliest(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[tuple[int, ...]]
) -> None:
    hot = Sampling(max_new_tokens=1, temperature=50.0)
    answers = sample(model, tokenizer, [prompts[1]] * 1000, hot, seed=3, batch_size=1000)
    assert len({answer.ids[0] for answer in answers}) > 200
    nucleus = Sampling(max_new_tokens=1, temperature=1.0, top_p=0.01)
    answers = sample(model, tokenizer, [prompts[1]] * 50, nucleus, seed=3, batch_size=50)
    assert len({answer.ids[0] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 1, "temperature": -0.1}, "temperature is -0.1"),
        ({"max_new_tokens": 1, "top_p": 0.0}, "top_p is 0.0"),
        ({"max_new_tokens": 1, "top_p": 1.1}, "top_p is 1.1"),
    ],
)
def test_settings_that_cannot_be_sampled_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**fields)


def test_padding_by_hand() -> None:
    ids, is_token = pad_left([[5], [6, 7, 8]], 0, CPU)
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert is_token.tolist() == [[False, False, True], [True, True, True]]
    ids, is_token = pad_right([[5], [6, 7, 8]], 0, CPU)
    assert ids.tolist() == [[5, 0, 0], [6, 7, 8]]
    assert is_token.tolist() == [[True, False, False], [True, True, True]]


def test_an_answer_reads_as_text(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tuple(chat_format.encode_answer(tokenizer, "Revenue rose."))
    assert Answer(ids, ended=True).text(tokenizer) == "Revenue rose."
