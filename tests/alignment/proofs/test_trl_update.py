"""One whole update against TRL 1.12's own loop, on the same model, prompts and answers.

TRL's side ran in float64 in an environment of its own and is kept as numbers: tests/oracles/trl_update.py says what of
TRL was changed (the score's place, the variance's divisor) and made `trl_update.json`. Our side is `PPOTrainer` in
float32: everything is compared to 1e-5 or better (whitened advantages to 2e-5), where the four optimizer steps move
each tensor by more than 1e-2.

Compared: log-probabilities under policy and reference, values, scores, advantages, returns; the mean losses, clipped
shares, KL, ratio and rewards that both log; every weight of policy and critic (LoRA and head) after four epochs of
AdamW. Not compared: sampling (both are given the answers), the learning rate's schedule (constant), gradient clipping
(TRL 1.12 has none), micro-batches (TRL averages their means, we divide by all tokens), entropy (TRL's counts padding).
"""

import json
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from oracles import trl_update as world

from alignment import ppo_log
from alignment.ppo_trainer import PPOTrainer
from finlm.generation import Answer

ORACLE = json.loads((Path(__file__).parents[2] / "oracles" / "trl_update.json").read_text(encoding="utf-8"))
ANSWERS = [Answer(tuple(ids), ended=ids[-1] == small.END) for ids in world.ANSWERS]
TOKENS = sum(len(ids) for ids in world.ANSWERS)


def make(case: str, folder: Path) -> PPOTrainer:
    torch.set_num_threads(1)
    trainer: PPOTrainer = small.trainer(
        world.base(),
        small.tokenizer(world.VOCABULARY),
        world.PROMPTS,
        folder,
        adapter=small.lora(modules=world.MODULES),
        adapter_scale=world.SCALES["policy"],
        reward_scale=world.SCALES["reward"],
        critic_learning_rate=world.SHARED["learning_rate"],
        max_grad_norm=0.0,
        **world.SHARED,
        **world.CASES[case],
    )
    return trainer


def close(ours: Any, theirs: Any, *, to: float) -> None:
    torch.testing.assert_close(
        torch.as_tensor(ours).double(), torch.as_tensor(theirs, dtype=torch.float64), atol=to, rtol=0
    )


@pytest.mark.parametrize("case", list(world.CASES))
def test_an_update_is_trls(case: str, tmp_path: Path) -> None:
    theirs, trainer = ORACLE[case], make(case, tmp_path)
    measured = trainer.measure(world.PROMPTS, ANSWERS)
    lessons = trainer.credit(measured)
    for item, lesson in zip(measured, lessons, strict=True):
        for row, place in enumerate(item.batch.index):
            length = len(world.ANSWERS[place])
            for name, found, to in (
                ("logprobs", item.old_BA, 1e-5),
                ("ref_logprobs", item.ref_BA, 1e-5),
                ("values", item.value_BA, 1e-5),
                ("advantages", lesson.advantage_BA, 2e-5),
                ("returns", lesson.return_BA, 1e-5),
            ):
                close(found[row, :length], theirs[name][place][:length], to=to)
            close(item.score_B[row], theirs["scores"][place], to=1e-5)

    before = {name: parameter.detach().clone() for name, parameter in weights(trainer).items()}
    learned = trainer.learn(lessons, update=1)
    for name, parameter in weights(trainer).items():
        role, part = name.split(" ")
        close(parameter, theirs[role][part], to=1e-5)
        assert float((parameter.detach() - before[name]).abs().max()) > 1e-2, f"{name} hardly moved"

    said = theirs["metrics"]
    for name in ("loss/policy_avg", "loss/value_avg"):
        assert learned[name] == pytest.approx(said[name], abs=1e-5)
    for name in ("policy/clipfrac_avg", "val/clipfrac_avg"):
        assert learned[name] == pytest.approx(said[name], abs=1e-6)
        assert learned[name] > 0, "nothing was clipped: the epochs moved too little to prove anything"
    # TRL's means of ratio and approximate KL count the padding, where they are 1 and 0
    places = len(ANSWERS) * world.RESPONSE_LENGTH
    assert learned["policy/approxkl_avg"] * TOKENS / places == pytest.approx(said["policy/approxkl_avg"], abs=1e-6)
    ratio = (learned["val/ratio"] * TOKENS + places - TOKENS) / places
    assert ratio == pytest.approx(said["val/ratio"], abs=1e-5)
    summary = ppo_log.summary(
        measured,
        ANSWERS,
        trainer.processes,
        kl_coef=trainer.args.kl_coef,
        kl_estimator=trainer.args.kl_estimator,
    )
    for name in ("objective/scores", "objective/non_score_reward", "objective/rlhf_reward", "val/num_eos_tokens"):
        assert summary[name] == pytest.approx(said[name], abs=1e-5)
    if trainer.args.kl_estimator == "k1":  # TRL logs its estimator's sum, we log the log-ratio's
        assert summary["objective/kl"] == pytest.approx(said["objective/kl"], abs=1e-5)


def weights(trainer: PPOTrainer) -> dict[str, torch.nn.Parameter]:
    """Every trained parameter as `<role> <name in the oracle>`."""
    found = {
        f"{role} {small.adapter_name(name)}": parameter
        for role in ("policy", "critic")
        for name, parameter in trainer.roles.adapter(role).items()
    }
    return found | {f"critic head.{name}": parameter for name, parameter in trainer.critic_head.named_parameters()}


def test_the_oracle_holds_every_trained_weight(tmp_path: Path) -> None:
    trainer = make("plain", tmp_path)
    held = {f"{role} {name}" for role in ("policy", "critic") for name in ORACLE["plain"][role]}
    assert held == set(weights(trainer))
