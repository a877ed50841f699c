"""The page of a reward model: its numbers are those of the records, and it is honest about what is not there."""

import random
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from judging import pair, votes

from finlm import jsonl, report
from finlm.errors import MissingInput, UserError
from finlm.records import Message, PreferencePair, Removal
from reward import baselines, consistency
from reward.findings import (
    EPOCHS,
    Findings,
    findings,
    read_epoch_findings,
    read_findings,
    worst,
    write_findings,
    write_mistakes,
)
from reward.judged import Judged, write_judged
from reward.judged import judged as judged_of
from reward.page import page_of, write_reward_page
from reward.selection import ChoiceRule, select, write_selection

ATTACK = "<script>alert(1)</script>\x1b[2J"


def pairs_of(count: int) -> list[PreferencePair]:
    """Two pairs a prompt, of two sets, with votes on one of them; one text is an attack on the page."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        one = pair(f"better {number}", f"worse {number} {ATTACK}", question=f"{ATTACK} question {number // 2}?")
        sides = "".join(draw.choice("++-0") for _ in range(4)) if number % 4 < 2 else ""
        source = "voted" if number % 4 < 2 else f"other {ATTACK}"
        found.append(replace(one, source=source, votes=votes(sides), strength=number % 4))
    return found


def scored(pairs: list[PreferencePair], shift: float, seed: int) -> list[Judged]:
    draw = random.Random(seed)
    return [
        judged_of(
            one,
            better_tokens=draw.randrange(8, 30),
            worse_tokens=draw.randrange(8, 30),
            better=draw.gauss(shift, 1),
            worse=draw.gauss(0, 1),
        )
        for one in pairs
    ]


def write_run(folder: Path) -> Findings:
    """Two epochs of which the second is chosen, with all that a run can hold."""
    pairs = pairs_of(240)
    epochs = {1: scored(pairs, 0.0, 1), 2: scored(pairs, 0.9, 2)}
    chosen = select(epochs, ChoiceRule(), seed=0)
    records = epochs[chosen.epoch]
    again = [record.scored(record.better + 0.01, record.worse) for record in records]
    sides = {record.pair_id: (True, False) for record in records}
    kept = consistency.consistency("bullets", records, again, sides, std=1.0, seed=0)
    assert kept is not None
    found = findings(
        records,
        seed=0,
        scale=1.5,
        baselines=[baselines.baseline(baselines.LONGER, records, baselines.longer(records), seed=0, remark="as is")],
        swapping=consistency.swapping(records, records[::-1]),
        consistency=[kept],
    )
    write_judged(folder, records)
    write_findings(folder, found)
    write_mistakes(folder, records, pairs)
    write_selection(folder, chosen)
    for epoch, its in epochs.items():
        write_findings(folder / EPOCHS / f"epoch-{epoch:02d}", findings(its, seed=0))
    removals = [Removal(record_id=f"p{n}", rule=rule, reason="a reason") for n, rule in enumerate(["weak", "long"] * 2)]
    jsonl.write(folder / "rejected.jsonl", [*removals, Removal(record_id="<b>", rule="weak", reason="the last")])
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "run"
    write_run(folder)
    return folder


def table(page: report.Page, title: str) -> report.Table:
    (found,) = (section for section in page.sections if isinstance(section, report.Table) and section.title == title)
    return found


def test_files_hold_what_was_found(run: Path, tmp_path: Path) -> None:
    assert read_findings(run) == write_run(tmp_path / "again")
    assert read_findings(tmp_path) is None


def test_its_numbers_are_those_of_the_records(run: Path) -> None:
    page, found = page_of(run), read_findings(run)
    assert found is not None
    assert page.subtitle == "epoch 2, 180 held-out pairs of 120 prompts"
    headline = page.sections[0]
    assert isinstance(headline, report.Figures)
    shown = {figure.label: figure for figure in headline.figures}
    accuracy = found.measures.accuracy
    assert shown["Accuracy"].value == f"{accuracy.mean:.3f}"
    assert shown["Accuracy"].remark == f"[{accuracy.low:.3f}, {accuracy.high:.3f}]"
    assert shown["Longer answer"].value == f"{found.baselines[0].accuracy.mean:.3f}"
    assert "60 pairs of strength 0" in headline.remark
    assert found.verdict in table(page, "Baselines").remark
    assert [row[0] for row in table(page, "Epochs, and the choice").rows] == ["1", "2 (chosen)"]
    assert "Epoch 2 is the most accurate" in table(page, "Epochs, and the choice").remark
    each = table(page, "Epoch by epoch")
    assert each.columns == ("accuracy by", "part", "epoch 1", "epoch 2")
    by_epoch = read_epoch_findings(run)
    assert each.rows[0][2:] == tuple(f"{by_epoch[epoch].measures.accuracy.mean:.3f}" for epoch in (1, 2))
    right = [record.hit for record in scored(pairs_of(240), 0.0, 1) if record.strength == 3]
    row = next(row for row in each.rows if row[:2] == ("", "3"))
    assert row[2] == f"{sum(right) / len(right):.3f}"
    assert [row[0] for row in each.rows[-2:]] == ["calibration error", "agreement"]
    aside = table(page, "Set aside")
    assert [row[:2] for row in aside.rows] == [("weak", 3), ("long", 2)]
    assert aside.rows[0][2] == "p0: a reason"
    sources = table(page, "Source by source")
    assert [row[1] for row in sources.rows] == [120, 60]
    parts = table(page, "Accuracy by part")
    assert sum(int(row[4] or 0) for row in parts.rows[:4]) == 240  # by strength, 0 included
    calibration = table(page, "Calibration")
    assert sum(int(row[5] or 0) for row in calibration.rows) == 180
    assert "Leads are multiplied by 1.5" in calibration.remark
    agreed = table(page, "Agreement with annotators")
    assert found.agreement is not None
    assert str(agreed.rows[1][2]).startswith(f"{found.agreement.annotator_and_others.mean:.3f} [")
    annotators = table(page, "Annotators")
    assert [row[0] for row in annotators.rows] == [one.annotator for one in found.agreement.annotators]
    consistent = table(page, "Consistency")
    assert [row[0] for row in consistent.rows] == ["order and batch", "bullets"]
    assert consistent.rows[1][4:6] == ("0.010", "+0.010")


def test_the_largest_mistakes_come_first_and_each_answer_once(run: Path) -> None:
    (samples,) = (section for section in page_of(run).sections if isinstance(section, report.Samples))
    leads = [float(re.search(r"lead ([-+][\d.]+)", sample.label)[1]) for sample in samples.samples]  # type: ignore[index]
    assert leads == sorted(leads)
    assert len(leads) == 20
    assert max(leads) < 0
    first = samples.samples[0].answers
    assert first[0].text.startswith("better")
    assert first[1].score is not None
    assert first[0].score is not None
    assert first[0].score < first[1].score


def test_one_bad_answer_does_not_fill_the_mistakes() -> None:
    record = scored(pairs_of(4), 0.0, 0)[1].scored(0.0, 9.0)
    same = [replace(record, pair_id=f"p{number}", better=float(number)) for number in range(5)]
    other = replace(record, pair_id="other", better=7.0, worse=8.0)
    tie = replace(record, pair_id="tie", strength=0)
    right = replace(record, pair_id="right", better=10.0)
    assert [one.pair_id for one in worst([right, tie, other, *same[::-1]])] == ["p0", "other"]


def test_text_of_people_is_never_live(run: Path) -> None:
    html = report.render(page_of(run))
    HTMLParser().feed(html)
    assert "<script" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;␛[2J" in html


def test_turns_have_their_speakers(tmp_path: Path) -> None:
    write_run(tmp_path)
    pairs = pairs_of(240)
    turns = (
        *pairs[1].prompt.messages,
        Message(role="assistant", content="Because."),
        Message(role="user", content="So?"),
    )
    talk = replace(pairs[1], prompt=replace(pairs[1].prompt, messages=turns, id=""), id="")
    write_judged(tmp_path, [judged_of(talk, better_tokens=3, worse_tokens=4, better=0.0, worse=2.0)])
    write_mistakes(tmp_path, [judged_of(talk, better_tokens=3, worse_tokens=4, better=0.0, worse=2.0)], [talk])
    (samples,) = (section for section in page_of(tmp_path).sections if isinstance(section, report.Samples))
    assert samples.samples[0].prompt.endswith("assistant: Because.\n\nuser: So?")
    assert "95% sure" in samples.samples[0].label  # 1 / (1 + exp(-1.5 * 2))


def test_the_page_says_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"findings\.json is not there; make it with: python reward/train\.py"):
        page_of(tmp_path)
    records = [replace(record, votes=(), source="s") for record in scored(pairs_of(40), 0.5, 1)]
    write_findings(tmp_path, findings(records, seed=0))
    page = page_of(tmp_path)
    last = page.sections[-1]
    assert isinstance(last, report.Notes)
    assert last.text.count("\n") == 4
    assert "No baseline was measured" in last.text
    assert not any(getattr(section, "title", "") == "Source by source" for section in page.sections)
    (tmp_path / "findings.json").write_text("{}")
    with pytest.raises(UserError, match=r"findings\.json: not a valid Findings"):
        page_of(tmp_path)


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere")
    one, other = write_reward_page(run), write_reward_page(tmp_path / "elsewhere", tmp_path / "page.html")
    assert (one.name, other) == ("report.html", tmp_path / "page.html")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.browser
def test_a_browser_shows_the_page(run: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    write_reward_page(run, tmp_path / "page.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(tmp_path / "page.html")]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count("<svg") == 3  # accuracy, scores, reliability
    assert "<script" not in dom
