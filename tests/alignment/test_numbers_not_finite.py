"""NaN and infinity: no step, the micro-batch at fault on disk, and a sentence that says where."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, PROMPTS, Maker
from safetensors.torch import load_file

from alignment import objective, rollout
from alignment.faults import FaultyAnswer, refuse_measured
from alignment.ppo_trainer import PPOTrainer
from finlm import jsonl
from finlm.errors import UserError

NAN = float("nan")


def weights(trainer: PPOTrainer) -> list[torch.Tensor]:
    return [one.detach().clone() for one in (*trainer.gradients.policy, *trainer.gradients.critic)]


def of_answer(batch: rollout.MicroBatch, ids: tuple[int, ...]) -> torch.Tensor:
    """True in the row of the answer with these ids."""
    found = [tuple(row[mask].tolist()) == ids for row, mask in zip(batch.answer_BA, batch.is_answer_BA, strict=True)]
    return torch.tensor(found)


def kept_below(folder: Path) -> tuple[list[FaultyAnswer], dict[str, torch.Tensor]]:
    (table,) = (folder / "faults").glob("*.jsonl")
    return list(jsonl.read(table, FaultyAnswer)), load_file(table.with_suffix(".safetensors"))


POISONED = ANSWERS[4].ids


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("log_probs", "The policy gives a token the log-probability nan"),
        ("values", "The critic values an answer nan"),
        ("scores", "The reward model scores an answer nan"),
    ],
)
def test_what_is_measured_is_checked_first(
    make: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, function: str, said: str
) -> None:
    trainer = make(per_device_train_batch_size=2, gradient_accumulation_steps=4, output_dir=str(tmp_path))
    straight = getattr(rollout, function)

    def poisoned(roles: Any, batch: rollout.MicroBatch, *given: Any, **named: Any) -> Any:
        found = straight(roles, batch, *given, **named)
        numbers = found[0] if isinstance(found, tuple) else found
        numbers[of_answer(batch, POISONED)] = NAN
        return found

    monkeypatch.setattr(rollout, function, poisoned)
    with pytest.raises(UserError, match=f"{said}; no step was taken.*is in .*update-00001-process-0.jsonl") as refused:
        trainer.measure(PROMPTS, ANSWERS)
    answers, tensors = kept_below(tmp_path)
    assert len(answers) == 2
    (faulty,) = [answer for answer in answers if answer.answer_ids == POISONED]
    (other,) = [answer for answer in answers if answer.answer_ids != POISONED]
    index = PROMPTS.index(list(other.prompt_ids))
    named = re.search(r"answers (\d), (\d) of", str(refused.value))
    assert named
    assert set(map(int, named.groups())) == {4, index}
    assert list(faulty.prompt_ids) == PROMPTS[4]
    assert faulty.ended
    assert faulty.reason == said
    numbers = {"log_probs": faulty.log_probs, "values": faulty.values, "scores": (faulty.score,)}
    assert all(number is None for number in numbers[function])
    assert all(number is not None for name in numbers if name != function for number in numbers[name])
    assert {"ids_BT", "old_BA", "ref_BA", "value_BA", "score_B", "raw_B"} <= set(tensors)


@pytest.mark.parametrize("loss", ["policy_loss", "value_loss"])
@pytest.mark.parametrize("number", [NAN, math.inf])
def test_a_loss_that_is_not_finite_moves_nothing_and_names_its_answers(
    make: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loss: str, number: float
) -> None:
    trainer = make(per_device_train_batch_size=2, gradient_accumulation_steps=4, output_dir=str(tmp_path))
    before = weights(trainer)
    lessons = trainer.credit(trainer.measure(PROMPTS, ANSWERS))
    (faulty,) = [lesson for lesson in lessons if 4 in lesson.measured.batch.index]
    straight, whose = getattr(objective, loss), "policy" if loss == "policy_loss" else "critic"

    def poisoned(now_BA: torch.Tensor, old_BA: torch.Tensor, *given: Any, **named: Any) -> Any:
        found = straight(now_BA, old_BA, *given, **named)
        mine = faulty.measured.old_BA if loss == "policy_loss" else faulty.measured.value_BA
        return found._replace(loss=found.loss * number) if old_BA is mine else found

    monkeypatch.setattr(objective, loss, poisoned)
    with pytest.raises(UserError, match=f"The {whose}'s gradient norm is (nan|inf); no step was taken") as refused:
        trainer.learn(lessons, update=1)
    assert f"answers {', '.join(map(str, faulty.measured.batch.index))} of" in str(refused.value)
    assert all(torch.equal(*pair) for pair in zip(weights(trainer), before, strict=True))
    assert all(one.grad is None for one in (*trainer.gradients.policy, *trainer.gradients.critic))
    answers, tensors = kept_below(tmp_path)
    assert {answer.answer_ids for answer in answers} == {ANSWERS[i].ids for i in faulty.measured.batch.index}
    torch.testing.assert_close(tensors["advantage_BA"], faulty.advantage_BA)
    for row, answer in enumerate(answers):
        length = len(answer.answer_ids)
        assert list(answer.advantages) == pytest.approx(faulty.advantage_BA[row, :length].tolist())
        assert list(answer.log_probs) == pytest.approx(faulty.measured.old_BA[row, :length].tolist())


def test_a_log_ratio_beyond_all_numbers_is_a_fault_too(make: Maker, tmp_path: Path) -> None:
    """Its loss and gradient are finite, since the ratio is clamped; the distance is not."""
    trainer = make(output_dir=str(tmp_path))
    lessons = trainer.credit(trainer.measure(PROMPTS, ANSWERS))
    lessons[3].measured.old_BA[0, 0] = -math.inf
    with pytest.raises(UserError, match=r"The policy/approxkl_avg is inf; no step was taken"):
        trainer.learn(lessons, update=1)
    answers, _ = kept_below(tmp_path)
    assert answers[0].log_probs[0] is None


def test_a_fault_elsewhere_stops_this_process_too(make: Maker, tmp_path: Path) -> None:
    processes = make(output_dir=str(tmp_path)).processes
    processes.any = lambda is_here: True  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"Another process measured a number that is not finite; no step was taken"):
        refuse_measured([], processes, tmp_path, update=1)
    assert not (tmp_path / "faults").exists()
