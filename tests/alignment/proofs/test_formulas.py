"""Our formulas in float64 against those of TRL 1.12, OpenRLHF and DeepSpeed-Chat.

tests/oracles/formulas.py made the numbers and tells where conventions differ. OpenRLHF's KL is computed in float32, so
what stands on it is compared to 1e-6; TRL's whitening has one float32 factor and is compared to 5e-8; everything else
to 1e-12.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alignment.objective import advantages, kl_estimate, moments, policy_loss, token_rewards, value_loss, whiten

ORACLE = json.loads((Path(__file__).parents[2] / "oracles" / "formulas.json").read_text(encoding="utf-8"))
SETTINGS: dict[str, float] = ORACLE["settings"]
PROJECTS = ("trl", "openrlhf", "deepspeed_chat")
IS_ANSWER = torch.tensor(ORACLE["inputs"]["is_answer"])
TOKENS = int(IS_ANSWER.sum())


def given(name: str) -> Tensor:
    return torch.tensor(ORACLE["inputs"][name], dtype=torch.float64)


def close(ours: Tensor, theirs: Any, *, to: float = 1e-12) -> None:
    torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), atol=to, rtol=0)


def pairs(prefix: str) -> list[Any]:
    """(project, name) of every number whose name begins so; a test without any would pass unseen."""
    found = [(project, name) for project in PROJECTS for name in ORACLE[project] if name.startswith(prefix)]
    assert found
    return found


@pytest.mark.parametrize(("project", "name"), pairs("kl_"))
def test_kl(project: str, name: str) -> None:
    ours = kl_estimate(given("old"), given("ref"), name.removeprefix("kl_"))
    close(ours, ORACLE[project][name], to=1e-6 if project == "openrlhf" else 1e-12)


@pytest.mark.parametrize(("project", "name"), pairs("rewards_"))
def test_token_rewards(project: str, name: str) -> None:
    kl = kl_estimate(given("old"), given("ref"), name.removeprefix("rewards_"))
    ours = token_rewards(given("score"), kl, IS_ANSWER, kl_coef=SETTINGS["kl_coef"])
    close(ours, ORACLE[project][name], to=1e-6 if project == "openrlhf" else 1e-12)


@pytest.mark.parametrize("project", PROJECTS)
def test_advantages_and_returns(project: str) -> None:
    ours = advantages(given("reward"), given("old_value"), IS_ANSWER, gamma=SETTINGS["gamma"], lam=SETTINGS["lam"])
    close(ours.advantage_BA, ORACLE[project]["advantages"])
    close(ours.return_BA, ORACLE[project]["returns"])


@pytest.mark.parametrize(("name", "shift_mean"), [("whiten", True), ("whiten_unshifted", False)])
def test_whitening(name: str, shift_mean: bool) -> None:
    """TRL divides the variance by n - 1, ours by n: deviations from the mean differ by the roots' quotient."""
    reward = given("reward")
    counted = reward[IS_ANSWER]
    kept = 0.0 if shift_mean else float(counted.mean())
    ours = whiten(reward, IS_ANSWER, moments(reward, IS_ANSWER), shift_mean=shift_mean)
    quotient = ((float(counted.var(correction=0)) + 1e-8) / (float(counted.var(correction=1)) + 1e-8)) ** 0.5
    # TRL's n / (n - 1) is a float32 number whatever it corrects
    close(((ours - kept) * quotient + kept) * IS_ANSWER, ORACLE["trl"][name], to=5e-8)


@pytest.mark.parametrize("project", PROJECTS)
def test_policy_loss_and_its_gradient(project: str) -> None:
    logp = given("logp").requires_grad_()
    ours = policy_loss(logp, given("old"), given("advantage"), IS_ANSWER, cliprange=SETTINGS["cliprange"])
    (ours.loss / TOKENS).backward()
    assert logp.grad is not None
    close(ours.loss.detach() / TOKENS, ORACLE[project]["policy_loss"])
    close(logp.grad, ORACLE[project]["policy_gradient"])
    assert 0 < int(ours.clipped) < TOKENS
    if project == "openrlhf":
        # which tokens it counts as clipped: those on which the clipped surrogate is the smaller, as ours
        assert int(ours.clipped) / TOKENS == pytest.approx(ORACLE[project]["policy_clipped_share"], abs=1e-6)


@pytest.mark.parametrize("project", PROJECTS)
def test_value_loss_and_its_gradient(project: str) -> None:
    value = given("value").requires_grad_()
    ours = value_loss(
        value, given("old_value"), given("target"), IS_ANSWER, cliprange_value=SETTINGS["cliprange_value"]
    )
    (ours.loss / TOKENS).backward()
    assert value.grad is not None
    close(ours.loss.detach() / TOKENS, ORACLE[project]["value_loss"])
    close(value.grad, ORACLE[project]["value_gradient"])
    assert 0 < int(ours.clipped) < TOKENS
    if project == "trl":
        assert int(ours.clipped) / TOKENS == pytest.approx(ORACLE[project]["value_clipped_share"], abs=1e-6)
