"""Preferences without people, for the demo: the figure checker judges, and every record says so.

    python annotation/by_figures.py               reads runs/candidates.jsonl, writes runs/preferences.jsonl
    python annotation/by_figures.py --candidates '' --instructions '[runs/selfqa/instructions.jsonl]'

The second form needs no model: the answers of Self-QA against altered copies of them, from which a reward model learns
to hold an answer against its passage before it learns what people prefer (`reward/train.py --start`).

Where a prompt has a known right answer, sampled answers and altered copies of right ones are judged against it. Each
pair carries `maker: rule:figures` and no votes. It stands in for people where there are none; it knows nothing of
style, tone or usefulness.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from annotation import alter
from finlm import config, data, jsonl, runs
from finlm.errors import UserError
from finlm.figures import judge
from finlm.records import Candidates, PreferencePair, Prompt, Provenance, Removal, Response, content_id

MAKER = "rule:figures"
SELF_QA = "selfqa"
STRENGTH = {
    "neighbour": 3,
    "figure": 3,
    "period": 3,
    "metric": 3,
    "entity": 3,
    "empty": 3,
    "missing": 2,
    "extra": 2,
    "cut-off": 2,
}
"""How clearly an answer with this fault is worse; 1 for the faults not named."""
WORDS = re.compile(r"[A-Za-z]+|[一-鿿]")


@dataclass(frozen=True, kw_only=True)
class ByFiguresSettings:
    """Settings of preferences by rule."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    candidates: str = "{runs}/candidates.jsonl"
    """File of Candidates records; empty: none."""
    instructions: list[str] = field(default_factory=list)
    """Files of Conversation records whose open-book answers are paired with altered copies besides."""
    instruction_limit: int = 0
    """Questions of `instructions` at most, spread over companies; 0: all."""
    instruction_languages: list[str] = field(default_factory=lambda: ["en", "zh"])
    """Their languages."""
    instruction_kinds: list[str] = field(default_factory=list)
    """Their kinds; empty: all."""
    output: str = "{runs}/preferences.jsonl"
    """File of PreferencePair records; what gave no pair goes to rejected.jsonl in the folder of the same name."""
    sampled_pairs: int = 2
    """Pairs per prompt with a sampled answer, at most."""
    altered_pairs: int = 3
    """Pairs per prompt with an altered copy, at most."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Judge afresh."""

    def __post_init__(self) -> None:
        if not self.candidates and not self.instructions:
            raise ValueError("candidates and instructions are empty; one of them must say what is judged.")
        if self.instruction_limit < 0:
            raise ValueError(f"instruction_limit is {self.instruction_limit}; it must be 0 (all) or more.")


@dataclass(frozen=True, slots=True)
class Wrong:
    """A worse answer, with what is wrong with it."""

    text: str
    fault: str
    ended: bool = True


def main(settings: ByFiguresSettings) -> None:
    """Judge every candidate, pair right with wrong, write."""
    out = Path(settings.output)
    inputs = {path: path for path in settings.instructions}
    for path in settings.instructions:
        runs.require(path, what="Instructions", made_by="python selfqa/generate.py --corpus filings/")
    if settings.candidates:
        runs.require(settings.candidates, what="Candidates", made_by="python alignment/respond.py")
        inputs["candidates"] = settings.candidates
    run = runs.Run.open(out.with_suffix(""), "by-figures", settings, inputs=inputs, overwrite=settings.overwrite)
    if run.is_finished and out.is_file():
        print(f"{out} is finished; --overwrite true judges afresh, --output names another file.")
        return

    items = list(jsonl.read(settings.candidates, Candidates)) if settings.candidates else []
    items += answered(settings)
    entities = sorted({item.prompt.group for item in items if item.prompt.group})
    found: dict[str, PreferencePair] = {}
    removals = []
    for item in items:
        pairs = list(pairs_of(item, entities, settings)) if item.prompt.reference else []
        found |= {pair.id: pair for pair in pairs}
        if not pairs:
            rule = "no-fault-found" if item.prompt.reference else "no-reference"
            removals.append(Removal(record_id=item.id, rule=rule, reason="no pair of a right and a wrong answer"))
    if not found:
        read = ", ".join([settings.candidates] * bool(settings.candidates) + settings.instructions)
        raise UserError(f"{read} gave no pair: none of its {len(items)} prompts has a reference answer.")
    jsonl.write(run.folder / "rejected.jsonl", removals)
    jsonl.write(out, found.values())
    faults = Counter(pair.rejected_fault for pair in found.values())
    run.finish(pairs=len(found), prompts=len(items), without_pair=len(removals), faults=dict(sorted(faults.items())))
    print(f"{len(found)} pairs by rule ({', '.join(f'{name} {count}' for name, count in faults.most_common())}): {out}")


def answered(settings: ByFiguresSettings) -> Iterator[Candidates]:
    """Yield the open-book questions of Self-QA that are asked for, each with its own answer as the only candidate."""
    found = data.questions(
        settings.instructions,
        forms=["open-book"],
        languages=settings.instruction_languages,
        kinds=settings.instruction_kinds,
    )
    known = [prompt for prompt in found if prompt.reference]
    for prompt in data.spread(known, settings.instruction_limit, seed=settings.seed):
        yield Candidates(prompt=prompt, responses=(Response(text=prompt.reference, model=SELF_QA, ended=True),))


def pairs_of(item: Candidates, entities: list[str], settings: ByFiguresSettings) -> Iterator[PreferencePair]:
    """Yield the pairs of one prompt: the right answer, known or sampled, against sampled and altered wrong ones."""
    prompt = item.prompt
    rng = random.Random(int(content_id(settings.seed, prompt.id), 16))
    right = [prompt.reference]
    sampled: dict[str, Wrong] = {}
    for response in item.responses:
        verdict = judge(response.text, prompt.reference, prompt.question)
        if verdict.is_right and response.ended:
            right.append(response.text)
        else:
            fault = verdict.fault or "cut-off"
            sampled.setdefault(response.text, Wrong(response.text, fault, response.ended))
    shuffled = rng.sample(list(sampled.values()), len(sampled))
    wrong = sorted(shuffled, key=lambda one: -likeness(one.text, prompt))[: settings.sampled_pairs]
    wrong += altered(prompt, entities, rng)[: settings.altered_pairs]
    for worse in wrong:
        chosen = rng.choice(right)
        yield PreferencePair(
            prompt=prompt,
            chosen=chosen,
            rejected=worse.text,
            strength=STRENGTH.get(worse.fault, 1),
            source=MAKER,
            provenance=Provenance(maker=MAKER, parents=(prompt.id, item.id)),
            rejected_ended=worse.ended,
            rejected_fault=worse.fault,
        )


def likeness(answer: str, prompt: Prompt) -> float:
    """Return the share of an answer's words that the question, its passage or the right answer has.

    Of wrong answers those teach most that could be right: one of words that nobody used is told from any fluent one.
    """
    known = {word.lower() for text in (prompt.messages[-1].content, prompt.reference) for word in WORDS.findall(text)}
    words = [word.lower() for word in WORDS.findall(answer)]
    return sum(word in known for word in words) / len(words) if words else 0.0


def altered(prompt: Prompt, entities: list[str], rng: random.Random) -> list[Wrong]:
    """Return altered copies of the known right answer that the checker finds wrong: first the figure beside the right
    one, the others in random order.
    """
    answer, passage = prompt.reference, prompt.passage
    copies = [
        ("neighbour", alter.neighbour(answer, passage, rng)),
        ("figure", alter.other_figure(answer, passage, rng)),
        ("period", alter.other_period(answer, passage, rng)),
        ("entity", alter.other_entity(answer, prompt.group, entities, rng)),
        ("run-on", alter.run_on(answer, passage, rng)),
        ("missing", alter.stub(answer, rng)),
    ]
    found: dict[str, Wrong] = {}
    for fault, text in copies:
        if text and not judge(text, answer, prompt.question).is_right:
            found.setdefault(text, Wrong(text, fault))
    cut = alter.cut_off(answer, rng)
    if cut:
        found.setdefault(cut, Wrong(cut, "cut-off", ended=False))
    return sorted(rng.sample(list(found.values()), len(found)), key=lambda one: one.fault != "neighbour")


if __name__ == "__main__":
    config.run(main, ByFiguresSettings, __doc__ or "")
