"""The rollouts of a PPO run: the right answers in the right order, harmless in a terminal and on a page."""

import re
from pathlib import Path

import pytest

from finlm import config, jsonl, rollouts
from finlm.errors import MissingInput, UserError
from finlm.metrics import append_metrics
from finlm.ppo_records import BestPolicy, GuardVerdict, HeldOutRecord, write_best
from finlm.records import RolloutRecord
from finlm.rollout_files import parts, read_update, update_files, visible
from finlm.rollout_page import NEWEST_ANSWERS, SHOWN_ANSWERS, SHOWN_UPDATES, page_of, write_rollout_page

ATTACK = "\x1b[2J\x1b]0;gone\x07<script>alert(1)</script>[bold]"


def record(update: int, number: int, score: float, **more: object) -> RolloutRecord:
    given = {
        "prompt": f" Human: A passage.\n\nWhat is number {number}? Assistant:",
        "response": f"It is {number}.",
        "kl_nats": float(-number),
        "tokens": number,
        "ended": True,
    } | more
    return RolloutRecord(update=update, prompt_id=f"p{number}", score=score, **given)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two updates of four answers; the second one has the same prompts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    folder = tmp_path / "runs" / "ppo"
    for update in (1, 2):
        rows = [record(update, number, score * update) for number, score in ((1, 0.5), (2, -1.5), (3, 2.0), (4, -3.0))]
        jsonl.write(folder / "rollouts" / f"update-{update:05d}.jsonl", rows)
        append_metrics(folder / "metrics.jsonl", update, {"objective/scores": -0.5 * update, "eps": 1 / 3})
    return folder


def show(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    rollouts.main(config.parse(rollouts.RolloutSettings, "", ["--runs", "runs", *flags]))
    return capsys.readouterr().out


def numbers(said: str) -> list[int]:
    return [int(number) for number in re.findall(r"It is (\d+)\.", said)]


def test_newest_update_in_the_order_of_its_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = show(capsys)
    assert numbers(said) == [1, 2, 3, 4]
    # mean of 1, -3, 4, -6
    assert "update 2" in said
    assert "4 answers  ·  score -1.00 (-6.00 to +4.00)  ·  KL -2.50 nats  ·  2.5 tokens  ·  4 ended" in said
    assert "A passage." in said
    assert "Human:" not in said


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--update", "1"), [1, 2, 3, 4]),
        (("--sort", "score"), [3, 1, 2, 4]),
        (("--sort", "kl"), [1, 2, 3, 4]),
        (("--sort", "tokens"), [4, 3, 2, 1]),
        (("--best", "2"), [3, 1]),
        (("--worst", "2"), [2, 4]),
        (("--best", "1", "--worst", "1"), [3, 4]),
        (("--best", "3", "--worst", "3"), [3, 1, 2, 4]),
        (("--worst", "9", "--sort", "tokens"), [4, 3, 2, 1]),
        (("--search", "NUMBER 3"), [3]),
        (("--search", "it is"), [1, 2, 3, 4]),
        (("--limit", "2"), [1, 2]),
        (("--limit", "0"), [1, 2, 3, 4]),
        (("--search", "nothing like it"), []),
    ],
)
def test_choice_and_order(
    run: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], expected: list[int]
) -> None:
    assert numbers(show(capsys, *flags)) == expected


def test_what_is_not_there_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No answer of update 2 has 'xyz'" in show(capsys, "--search", "xyz")
    assert "2 of 4 answers; --limit 0 shows all" in show(capsys, "--limit", "2")
    with pytest.raises(UserError, match=r"has no rollouts of update 7; it has those of 1 to 2"):
        show(capsys, "--update", "7")
    with pytest.raises(MissingInput, match="PPO run not found at runs/none"):
        show(capsys, "--run", "runs/none")
    with pytest.raises(MissingInput, match="has kept no rollouts"):
        update_files(run / "rollouts")
    with pytest.raises(UserError, match="worst is -1; it must be 0 or more"):
        show(capsys, "--worst", "-1")
    (run / "rollouts" / "update-00002.jsonl").write_text('{"update": 2\n')
    with pytest.raises(UserError, match=r"update-00002\.jsonl:1: not a valid RolloutRecord"):
        read_update(run)
    (run / "rollouts" / "update-00002.jsonl").write_text("")
    with pytest.raises(UserError, match=r"update-00002\.jsonl: holds no answer"):
        read_update(run)


def test_a_long_passage_is_folded_and_said_to_be(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = record(3, 1, 0.0, prompt=f" Human: {'word ' * 200}\n\nWhy? Assistant:", response="")
    jsonl.write(run / "rollouts" / "update-00003.jsonl", [long])
    said = show(capsys)
    assert said.count("word") == 240 // 5
    assert "--full true" in said
    assert "(empty answer)" in said
    assert show(capsys, "--full", "true").count("word") == 200


def test_prompts_are_unframed() -> None:
    assert parts(" Human: A.\n\nB.\n\nC? Assistant:") == ("A.\n\nB.", "C?")
    assert parts(" Human: C? Assistant:") == ("", "C?")
    turns = " Human: C? Assistant: D.</s>Human: E? Assistant:"
    assert parts(turns) == ("", turns.strip())
    assert parts("") == ("", "")


def test_a_terminal_is_not_steered(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [record(3, 1, 0.0, response=ATTACK, prompt=f" Human: {ATTACK} Assistant:")]
    jsonl.write(run / "rollouts" / "update-00003.jsonl", rows)
    said = show(capsys)
    assert "\x1b[2J" not in said
    assert "\x1b]" not in said
    assert "\x07" not in said
    assert said.count("[bold]") == 2  # not read as markup
    assert visible("a\tb\nc\x1b\x7f\x9b\u202e") == "a\tb\nc␛���"


# ------------------------------------------------------------------------------------------------ the page


def test_page_lies_in_the_run_and_is_the_same_each_time(run: Path) -> None:
    page = write_rollout_page(run)
    assert page == run / "rollouts.html"
    first = page.read_bytes()
    lines = (run / "metrics.jsonl").read_text().replace("0.333", "0.777")  # another speed is no other run
    (run / "metrics.jsonl").write_text(lines)
    assert write_rollout_page(run).read_bytes() == first


def test_page_by_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "rollouts: a/b.html" in show(capsys, "--html", "a/b.html")
    html = Path("a/b.html").read_text(encoding="utf-8")
    assert html.count('class="entry') == 8
    assert "eld out" not in html
    assert "4 prompts came back" in html


def test_page_shows_evaluations_and_verdicts(run: Path) -> None:
    evaluated = [
        HeldOutRecord(
            update=update, reward=0.1 * update, kl_nats=1.0, tokens=30.0, ended=1.0, anchor=None, right=0.5,
            rewards=(0.0,), rights=(True,),
        )
        for update in (0, 20)
    ]  # fmt: skip
    jsonl.write(run / "held_out.jsonl", evaluated)
    said = [
        GuardVerdict(guard="length", update=21, action="warn", sentence="Answers are <b>long</b>.", since=20),
        GuardVerdict(guard="kl", update=30, action="roll back", sentence="KL is 19.", since=25, back_to=20),
    ]
    jsonl.write(run / "guards.jsonl", said)
    figures = {"reward": 2.0, "kl_nats": 1.0, "tokens": 30.0, "ended": 1.0, "anchor": None, "right": 0.5}
    best = BestPolicy(update=20, policy="policies/update-00020", reason="the highest of 2", **figures)  # type: ignore[arg-type]
    write_best(run, best)
    sections = {section.title: section for section in page_of(run).sections}
    reward = sections["Held out: reward"]
    (series,) = reward.series  # type: ignore[union-attr]  # no line for an anchor that is not there
    assert (series.x, series.y) == ((0.0, 20.0), (0.0, 2.0))
    assert [row[2] for row in sections["What the guards said"].rows] == ["warn", "rolled back to 20"]  # type: ignore[union-attr]
    html = write_rollout_page(run).read_text(encoding="utf-8")
    assert "Best kept policy on held-out prompts" in html
    assert "policies/update-00020" in html
    assert "Answers are &lt;b&gt;long" in html


def test_page_holds_text_harmlessly(run: Path) -> None:
    jsonl.write(run / "rollouts" / "update-00003.jsonl", [record(3, 1, 0.0, response=ATTACK, prompt=ATTACK)])
    html = write_rollout_page(run).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_page_without_metrics_or_returning_prompts(tmp_path: Path) -> None:
    jsonl.write(tmp_path / "rollouts" / "update-00004.jsonl", [record(4, 1, 0.5)])
    titles = [section.title for section in page_of(tmp_path).sections]
    assert titles == ["The newest update beside the first", "Scores within an update", "Answers, update by update"]
    jsonl.write(tmp_path / "rollouts" / "update-00004.jsonl", [])
    with pytest.raises(MissingInput, match="holds no answer"):
        page_of(tmp_path)


def test_a_long_run_is_sampled_and_says_so(tmp_path: Path) -> None:
    updates = 40
    for update in range(1, updates + 1):
        rows = [record(update, number, float(number)) for number in range(200)]
        jsonl.write(tmp_path / "rollouts" / f"update-{update:05d}.jsonl", rows)
    browser = page_of(tmp_path).sections[-1]
    assert [browser.groups[0].title, browser.groups[-1].title] == ["Update 40", "Update 1"]  # type: ignore[union-attr]
    assert [len(group.entries) for group in browser.groups] == [  # type: ignore[union-attr]
        NEWEST_ANSWERS,
        *[SHOWN_ANSWERS] * (SHOWN_UPDATES - 1),
    ]
    assert "24 of 40 updates are left out" in browser.remark  # type: ignore[union-attr]
    assert "the 12 highest and 12 lowest are shown" in browser.groups[1].remark  # type: ignore[union-attr]
    shown = {entry.numbers[0] for entry in browser.groups[1].entries}  # type: ignore[union-attr]
    assert shown == {float(number) for number in [*range(12), *range(188, 200)]}
