"""What an evaluation found, as sections of a page: each model's figures, and answers side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finlm import jsonl, report, runs
from finlm.evaluation import AnswerRecord

SHOWN_SAMPLES = 12
REMARK = (
    "No stage trained on these companies. Right: the figure checker finds the answer right and it ended by itself. "
    "Reward: mean score of the reward model (SFT's own ended answers: mean 0, standard deviation 1). Choices: share of "
    "multiple-choice questions whose likeliest choice is right."
)


def figures(evaluated: Mapping[str, Mapping[str, Any]], remark: str = REMARK) -> report.Table:
    """Return each model's figures on held-out companies.

    Args:
        evaluated: The evaluation's `summary.json`.
        remark: What is to be said of them.
    """
    rows = []
    for name, found in evaluated.items():
        gain = found.get("reward_gain")
        rows.append(
            (
                name,
                found["answers"],
                f"{found['right']:.2f}",
                f"{found['ended']:.2f}",
                f"{found['tokens']:.0f}",
                f"{found['reward']:+.2f}",
                f"{gain['mean']:+.2f} ({gain['low']:+.2f} to {gain['high']:+.2f})" if gain else "",
                f"{found['win_rate']:.2f}" if "win_rate" in found else "",
                f"{found['choice_accuracy']:.2f}" if "choice_accuracy" in found else "",
            )
        )
    return report.Table(
        title="Held-out companies",
        columns=(
            "model",
            "answers",
            "right",
            "ended",
            "tokens",
            "reward",
            "reward minus SFT",
            "wins over SFT",
            "choices",
        ),
        rows=tuple(rows),
        remark=remark,
    )


def samples(folder: Path, models: Sequence[str]) -> report.Samples:
    """Return the first answers of the models side by side; `folder` is the evaluation's."""
    state = runs.read_state(folder)
    assert state is not None
    by_prompt: dict[str, dict[str, AnswerRecord]] = {}
    for record in jsonl.read(folder / "answers.jsonl", AnswerRecord):
        by_prompt.setdefault(record.prompt_id, {})[record.model] = record
    found = []
    for records in list(by_prompt.values())[:SHOWN_SAMPLES]:
        first = records[models[0]]
        answers = tuple(
            report.Answer(
                records[name].text, round(records[name].score, 2), records[name].is_right, records[name].ended
            )
            for name in models
        )
        found.append(report.Sample(first.prompt, answers, first.reference))
    return report.Samples(
        title="Answers side by side",
        models=tuple(models),
        samples=tuple(found),
        remark=f"The first held-out prompts, sampled at temperature {state['settings']['temperature']:g}.",
    )
