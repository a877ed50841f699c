"""The page of a round: what was asked, how people agreed, how right the reward model is, and what PPO gained."""

import json
from collections.abc import Mapping
from typing import Any

from finlm import evaluated_page, jsonl, report, runs
from finlm.records import PreferencePair, Removal
from finlm.rounds import Round

STAGES = {
    "candidates": "answers",
    "preferences": "preferences by rule",
    "reward": "reward model",
    "prompts": "prompts for PPO",
    "ppo": "PPO",
    "evaluation": "evaluation",
}
"""Run folders of a round, and what they are called."""
PAGES = {
    "annotation/report.html": ("how people agree", "agreement, annotators, pairs to discuss"),
    "reward/report.html": ("reward model", "accuracy, calibration, its worst mistakes"),
    "rollouts.html": ("PPO", "its curves, and what it sampled"),
}


def write(now: Round, models: Mapping[str, str]) -> dict[str, Any]:
    """Write `report.html` and return the counts that belong into the round's state.

    Args:
        now: The round, all of whose stages are finished.
        models: Name -> folder of the models that its evaluation compared.
    """
    evaluated = json.loads((now.evaluation / "summary.json").read_text(encoding="utf-8"))
    states = {name: runs.read_state(now.folder / name) or {"seconds": 0.0, "counts": {}} for name in STAGES}
    pairs = list(jsonl.read(now.preferences, PreferencePair))
    learned = sum(1 for _ in jsonl.read(now.learned, PreferencePair))
    newest = f"round {now.number}"
    page = report.Page(
        title=f"Round {now.number}",
        subtitle=f"Answers of {answering(now)}, compared by {judges(pairs)}",
        sections=(
            headline(states, pairs, ties_of(now), learned, evaluated[newest]),
            evaluated_page.figures(
                evaluated,
                "No stage of any round trained on these companies. Reward: mean score of this round's reward model, "
                "for all models alike. Right: the figure checker finds the answer right and it ended by itself.",
            ),
            asked(states, pairs, learned),
            rounds_so_far(now),
            evaluated_page.samples(now.evaluation, list(models)),
            report.Table(
                title="Stages",
                columns=("stage", "seconds", "folder"),
                rows=tuple(
                    (STAGES[name], round(state["seconds"]), str(now.folder / name)) for name, state in states.items()
                ),
                remark="PPO began at the fine-tuned model, as in every round: policies differ by what they learned "
                "from, and KL is counted from the same reference.",
            ),
            report.Links(
                title="More",
                links=tuple(
                    report.Link(name, path, remark)
                    for path, (name, remark) in PAGES.items()
                    if (now.folder / path).is_file()
                ),
            ),
        ),
    )
    report.write(page, now.page)
    return {
        "prompts": states["candidates"]["counts"]["prompts"],
        "pairs": len(pairs),
        "learned_pairs": learned,
        "test_accuracy": states["reward"]["counts"]["test_accuracy"],
        "reward": {name: figures["reward"] for name, figures in evaluated.items()},
    }


def answering(now: Round) -> str:
    """Say whose answers were compared."""
    state = runs.read_state(now.candidates.with_suffix(""))
    assert state is not None
    voices = [state["settings"]["model"], *(one["model"] for one in state["settings"]["also"])]
    return " and ".join(voices)


def judges(pairs: list[PreferencePair]) -> str:
    """Say who preferred."""
    people = {vote.annotator for pair in pairs for vote in pair.votes}
    if not people:
        return "the figure checker, no person"
    return f"{len(people)} {'person' if len(people) == 1 else 'people'}"


def agreement(pairs: list[PreferencePair], ties: int) -> tuple[int, int]:
    """Return how many pairs several people judged, and of how many of them all preferred the same answer.

    Args:
        pairs: The preferences.
        ties: Pairs whose votes were split evenly, so that they are no preference.
    """
    sides = [{vote.annotator: vote.side for vote in pair.votes if not vote.is_verdict} for pair in pairs]
    several = [its for its in sides if len(its) > 1]
    return len(several) + ties, sum(len(set(its.values())) == 1 for its in several)


def ties_of(now: Round) -> int:
    """Return how many pairs a pull set aside because their votes were split evenly."""
    path = now.preferences.with_name("rejected.jsonl")
    return sum(one.rule == "tie" for one in jsonl.read(path, Removal)) if path.is_file() else 0


def headline(
    states: Mapping[str, Any], pairs: list[PreferencePair], ties: int, learned: int, policy: Mapping[str, Any]
) -> report.Figures:
    """The key numbers."""
    several, agreed = agreement(pairs, ties)
    reward, gain = states["reward"]["counts"], policy["reward_gain"]
    return report.Figures(
        title="In short",
        figures=(
            report.Figure("Preferences", len(pairs), remark=f"{learned:,} of all rounds"),
            report.Figure(
                "People agree",
                f"{agreed / several:.2f}" if several else None,
                remark=f"on the better answer, of {several:,} pairs judged by several",
            ),
            report.Figure(
                "Reward model, held-out accuracy",
                f"{reward['test_accuracy']:.2f}",
                remark=f"{reward['longer_accuracy']:.2f} by length alone",
            ),
            report.Figure(
                "Reward, this round minus SFT",
                f"{gain['mean']:+.2f}",
                remark=f"95 % interval {gain['low']:+.2f} to {gain['high']:+.2f}",
            ),
            report.Figure("KL to SFT", f"{policy['kl_nats']:.2f}", "nats per answer"),
        ),
    )


def asked(states: Mapping[str, Any], pairs: list[PreferencePair], learned: int) -> report.Funnel:
    """What became of the prompts."""
    answers, prompts = states["candidates"]["counts"], states["prompts"]["counts"]
    return report.Funnel(
        title="What was asked",
        steps=(
            report.Step("prompts asked", answers["prompts"], "none of them in an earlier round"),
            report.Step("answers", answers["responses"], f"{answers['ended']:,} ended by themselves"),
            report.Step("preferences", len(pairs)),
            report.Step("preferences of all rounds", learned, "what the reward model learned from and was tested on"),
            report.Step("PPO prompts", prompts["from_preferences"] + prompts["new"]),
        ),
    )


def rounds_so_far(now: Round) -> report.Table:
    """One row a round, each by its own reward model."""
    rows = []
    for one in (*now.earlier, now):
        reward = (runs.read_state(one.reward) or {})["counts"]
        policy = json.loads((one.evaluation / "summary.json").read_text(encoding="utf-8"))[f"round {one.number}"]
        gain = policy["reward_gain"]
        rows.append(
            (
                one.number,
                sum(1 for _ in jsonl.read(one.preferences, PreferencePair)),
                f"{reward['test_accuracy']:.2f}",
                f"{gain['mean']:+.2f} ({gain['low']:+.2f} to {gain['high']:+.2f})",
                f"{policy['right']:.2f}",
                f"{policy['kl_nats']:.2f}",
            )
        )
    return report.Table(
        title="Rounds so far",
        columns=("round", "preferences", "reward accuracy", "reward minus SFT", "right", "KL (nats)"),
        rows=tuple(rows),
        remark="Each round is scored by its own reward model here, so rewards of two rows are of two scales; the table "
        "above has all models by one.",
    )
