"""Groups laid out for a pass: where readings lie, and losses that do not depend on how they are laid out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from finlm.model import load_causal
from finlm.records import Message, PreferencePair, Prompt, Provenance
from finlm.unpadded import hidden_states
from reward import batches, readings
from reward.groups import Comparison, Group


def pair(strength: int = 2) -> PreferencePair:
    prompt = Prompt(messages=(Message(role="user", content="?"),))
    maker = Provenance(maker="import:set")
    return PreferencePair(prompt=prompt, chosen="a", rejected="b", strength=strength, source="set", provenance=maker)


def groups() -> list[Group]:
    """One pair, and a ranking of three with two comparisons."""
    return [
        Group((11, 12, 13), ((20, 21, 1), (20, 1)), (Comparison(pair(), 0, 1, 1, 1.0),)),
        Group(
            (30, 31), ((40, 1), (41, 42, 43, 1), (44, 1)),
            (Comparison(pair(1), 1, 0, 0, 0.8), Comparison(pair(3), 1, 2, 0, 1.0)),
        ),
    ]  # fmt: skip


def test_places_by_hand() -> None:
    batch = batches.laid_out(groups(), every_token=True, margins=(0.0, 1.0, 2.0, 3.0))
    passed, compared = batch["passed"], batch["compared"]
    assert passed["input_ids"].tolist() == [
        11, 12, 13, 20, 21, 1, 11, 12, 13, 20, 1, 30, 31, 40, 1, 30, 31, 41, 42, 43, 1, 30, 31, 44, 1,
    ]  # fmt: skip
    assert passed["bounds"].tolist() == [0, 6, 11, 15, 21, 25]
    assert passed["longest"] == 6
    assert passed["read"].tolist() == [3, 4, 5, 9, 10, 13, 14, 17, 18, 19, 20, 23, 24]
    assert compared["start_S"].tolist() == [0, 3, 5, 7, 11]
    assert compared["length_S"].tolist() == [3, 2, 2, 4, 2]
    assert compared["width"] == 4
    assert compared["score_S"].tolist() == [2, 4, 6, 10, 12]
    assert compared["better_B"].tolist() == [0, 3, 3]
    assert compared["worse_B"].tolist() == [1, 2, 4]
    assert compared["margin_B"].tolist() == [2.0, 1.0, 3.0]
    assert compared["weight_B"].tolist() == [1.0, 0.5, 0.5]
    heavy = batches.laid_out([replace(one, weight=3.0) for one in groups()], every_token=False)
    assert heavy["compared"]["weight_B"].tolist() == [3.0, 1.5, 1.5]
    scores = batches.laid_out(groups(), every_token=False)
    assert scores["passed"]["read"].tolist() == [5, 10, 14, 20, 24]
    assert scores["compared"]["score_S"].tolist() == [0, 1, 2, 3, 4]
    filled = batches.laid_out(groups(), every_token=True, pad=0)
    assert filled["passed"]["input_ids"].tolist()[6:12] == [11, 12, 13, 20, 1, 0]
    assert filled["compared"]["length_S"].tolist() == [3, 3, 4, 4, 4]
    assert filled["compared"]["score_S"].tolist() == [2, 4, 7, 13, 15]


def test_predicted_places_by_hand() -> None:
    """Of the first group the first answer is preferred, of the second the second: three and four tokens."""
    batch = batches.laid_out(groups(), every_token=False, predicted=True)
    passed, compared = batch["passed"], batch["compared"]
    assert passed["learned"].tolist() == [2, 3, 4, 16, 17, 18, 19]
    assert passed["following"].tolist() == [20, 21, 1, 41, 42, 43, 1]
    assert [passed["input_ids"][place + 1] for place in passed["learned"]] == passed["following"].tolist()
    assert compared["predicted_S"].tolist() == [3, 0, 0, 4, 0]
    surprise = batches.surprise(torch.tensor([1.0, 2.0, 6.0, 1.0, 1.0, 2.0, 4.0]), compared)
    assert surprise.tolist() == [3.0, 2.0, 2.0]
    assert "learned" not in batches.laid_out(groups(), every_token=False)["passed"]


@pytest.fixture(scope="module")
def model(tiny: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return readings.install(load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu"))).eval()


def read(model: LlamaForCausalLM, its: list[Group], **how: Any) -> tuple[Tensor, batches.Comparisons]:
    batch = batches.laid_out(its, **how)
    return model(**batch["passed"]), batch["compared"]


@pytest.mark.parametrize("is_left", [False, True])
@torch.no_grad()
def test_a_score_is_read_at_the_true_last_token(model: LlamaForCausalLM, *, is_left: bool) -> None:
    """As transformers' own pass over padded rows has it, padded on the one side or the other."""
    found, compared = read(model, groups(), every_token=True)
    rows = [[*group.prompt, *answer] for group in groups() for answer in group.answers]
    width = max(map(len, rows)) + 2
    pads = [[0] * (width - len(row)) for row in rows]
    ids = torch.tensor([[*pad, *row] if is_left else [*row, *pad] for row, pad in zip(rows, pads, strict=True)])
    mask = torch.tensor(
        [
            [0] * len(pad) + [1] * len(row) if is_left else [1] * len(row) + [0] * len(pad)
            for row, pad in zip(rows, pads, strict=True)
        ]
    )
    position = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model.model(input_ids=ids, attention_mask=mask, position_ids=position).last_hidden_state
    last = torch.tensor([width - 1 if is_left else len(row) - 1 for row in rows])
    wanted = model.score(hidden[torch.arange(5), last]).squeeze(-1)
    torch.testing.assert_close(found[compared["score_S"]], wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read(model, groups(), every_token=False)[0], wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_surprise_is_that_of_the_models_own_pass(model: LlamaForCausalLM, tiny: Any) -> None:
    """Each preferred answer by itself, through the logits of a model that has no head; readings stay what they are."""
    batch = batches.laid_out(groups(), every_token=False, predicted=True)
    reading, nll = model(**batch["passed"])
    plain = load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu")).eval()
    wanted = []
    for group, answer in ((groups()[0], 0), (groups()[1], 1)):
        row = torch.tensor([[*group.prompt, *group.answers[answer]]])
        labels = row.clone()
        labels[:, : len(group.prompt)] = -100
        wanted.append(plain(input_ids=row, labels=labels).loss)
    found = batches.surprise(nll, batch["compared"])
    torch.testing.assert_close(found, torch.stack([wanted[0], wanted[1], wanted[1]]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reading, read(model, groups(), every_token=False)[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "end"), [("pairwise", "held"), ("token", "held"), ("token", "shorter"), ("token", "pads")]
)
@torch.no_grad()
def test_losses_do_not_depend_on_micro_batches_or_order(model: LlamaForCausalLM, loss: str, end: str) -> None:
    how: dict[str, Any] = {
        "every_token": loss == "token",
        "margins": (0.0, 1.0, 2.0, 3.0),
        "pad": 0 if end == "pads" else None,
    }
    reading, compared = read(model, groups(), **how)
    together = batches.comparison_losses(reading, compared, loss=loss, end=end)
    apart = []
    for group in reversed(groups()):
        reading, compared = read(model, [group], **how)
        apart.append(batches.comparison_losses(reading, compared, loss=loss, end=end))
    torch.testing.assert_close(together, torch.cat(apart[::-1]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_token_loss_of_a_model_is_the_loop(model: LlamaForCausalLM) -> None:
    reading, compared = read(model, groups(), every_token=True)
    found = batches.comparison_losses(reading, compared, loss="token", end="held")
    group = groups()[1]
    rows = [torch.tensor([[*group.prompt, *answer]]) for answer in group.answers]
    values = [
        model.score(hidden_states(model.model, torch.ones_like(row).bool(), input_ids=row))[0, 2:, 0] for row in rows
    ]
    total = 0.0
    for place in range(4):
        lead = float(values[1][place] - values[0][min(place, 1)])
        total += 0.8 * float(torch.nn.functional.softplus(torch.tensor(-lead)))
        total += 0.2 * float(torch.nn.functional.softplus(torch.tensor(lead)))
    assert float(found[1]) == pytest.approx(total / 4, abs=1e-5)


def test_micro_batches_hold_their_tokens() -> None:
    its = groups() * 3
    assert [one.tokens for one in its[:2]] == [11, 14]
    found = batches.micro_batches(its, 26)
    assert [len(one) for one in found] == [2, 2, 2]
    assert [group for one in found for group in one] == its
    assert [len(one) for one in batches.micro_batches(its, 5)] == [1] * 6


def test_the_most_tokens_of_a_pass() -> None:
    """Of groups of 11 and 14 tokens."""
    its = groups() * 3
    assert batches.most_tokens(its, 2, 0) == 28
    assert batches.most_tokens(its, 4, 0) == 14 * 3 + 11
    assert batches.most_tokens(its, 4, 26) == 26
    assert batches.most_tokens(its, 4, 5) == 14
    assert batches.most_tokens(its, 1, 26) == 14


@pytest.mark.parametrize("every_token", [True, False])
def test_gradients_are_those_of_a_pass_that_goes_on_with_every_token(
    model: LlamaForCausalLM, *, every_token: bool
) -> None:
    """Each row by itself through transformers' own layers, and the head at what is read."""
    batch = batches.laid_out(groups(), every_token=every_token)
    weights_R = torch.randn(len(batch["passed"]["read"]), generator=torch.Generator().manual_seed(1))
    found = gradients(model, (model(**batch["passed"]) * weights_R).sum())
    values = []
    for group in groups():
        for answer in group.answers:
            row = torch.tensor([[*group.prompt, *answer]])
            hidden = hidden_states(model.model, torch.ones_like(row).bool(), input_ids=row)[0]
            values.append(model.score(hidden[len(group.prompt) if every_token else -1 :]).squeeze(-1))
    wanted = gradients(model, (torch.cat(values) * weights_R).sum())
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def gradients(model: LlamaForCausalLM, loss: Tensor) -> Tensor:
    trained = [one for name, one in model.named_parameters() if "lm_head" not in name]
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, trained)])
