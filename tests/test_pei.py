"""Rounds that change the mixture: what an evaluation says of a category, and what follows from it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from finlm import config, jsonl, prompts
from finlm.category_figures import CategoryFigures, JudgedPair, by_category, own_pairs
from finlm.errors import MissingInput, UserError
from finlm.evaluation import AnswerRecord
from finlm.intervals import Interval
from finlm.mixture_rounds import CHANGES, Decision, RoundSettings, decide, grade, next_shares, read_figures
from finlm.prompt_mixture import Cell, Mixture
from finlm.prompt_tables import settled
from finlm.records import Message, PreferencePair, Prompt, Provenance

ACCOUNTING, MARKETS, WRITING = Cell("finance", "accounting"), Cell("finance", "markets"), Cell("general")


def answer(model: str, subfield: str, score: float, is_right: bool, reference: str = "A.") -> AnswerRecord:
    return AnswerRecord(
        model=model,
        prompt_id="p",
        prompt="Q?",
        reference=reference,
        text="A.",
        ended=True,
        tokens=2,
        score=score,
        is_right=is_right,
        fault="",
        kl_nats=None,
        category="finance",
        subfield=subfield,
    )


def figures(cell: Cell, gain: float, agreement: float | None, count: int = 100, **more: Any) -> CategoryFigures:
    return CategoryFigures(
        model="ppo",
        baseline="sft",
        category=cell.category,
        subfield=cell.subfield,
        answers=count,
        referenced=count,
        right_gain=Interval(mean=gain, low=gain, high=gain),
        reward_gain=Interval(mean=-gain, low=-gain, high=-gain),
        agreement=agreement,
        pairs=count,
        judge="preferences",
        **more,
    )


# ------------------------------------------------------------------------------------------------ what is said


def test_figures_by_hand() -> None:
    records = {
        "sft": [
            answer("sft", "tax", 0.0, False),
            answer("sft", "tax", 1.0, True),
            answer("sft", "law", 2.0, False, ""),
        ],
        "ppo": [answer("ppo", "tax", 0.5, True), answer("ppo", "tax", 3.0, True), answer("ppo", "law", 1.0, False, "")],
    }
    pairs = [
        JudgedPair(category="finance", subfield="law", better=1.0, worse=0.0, judge="preferences"),
        JudgedPair(category="finance", subfield="law", better=0.0, worse=0.0, judge="preferences"),
        *own_pairs(records),
    ]
    found = {one.subfield: one for one in by_category(records, "sft", pairs, seed=0)}
    assert set(found) == {"*", "tax", "law"}
    tax, law, whole = found["tax"], found["law"], found["*"]
    assert (tax.answers, tax.referenced, law.answers, law.referenced, whole.answers) == (2, 2, 1, 0, 3)
    assert tax.right_gain is not None
    assert tax.right_gain.mean == 0.5
    assert tax.reward_gain.mean == 1.25
    assert law.right_gain is None
    assert whole.reward_gain.mean == pytest.approx((0.5 + 2.0 - 1.0) / 3)
    # one answer pair of the first prompt tells right from wrong, and the right one has the higher score
    assert (tax.agreement, tax.pairs, tax.judge) == (1.0, 1, "figures")
    assert (law.agreement, law.pairs, law.judge) == (0.75, 2, "preferences")
    assert (whole.agreement, whole.pairs, whole.judge) == (0.75, 2, "preferences")
    (alone,) = [one for one in by_category(records, "sft", [], seed=0) if one.subfield == "law"]
    assert (alone.agreement, alone.pairs, alone.judge) == (None, 0, "")


def test_answers_written_before_there_were_categories_load(tmp_path: Path) -> None:
    line = '{"model":"m","prompt_id":"p","prompt":"Q","reference":"","text":"","ended":true,"tokens":0,"score":0.0,'
    (tmp_path / "a.jsonl").write_text(line + '"is_right":false,"fault":"","kl_nats":null}\n')
    (old,) = jsonl.read(tmp_path / "a.jsonl", AnswerRecord)
    assert (old.category, old.subfield) == ("general", "")


# ------------------------------------------------------------------------------------------------ what follows


def test_grades() -> None:
    limits = {"good": 0.7, "bad": 0.6, "least": 20}
    told = [grade(value, 20, **limits) for value in (0.71, 0.7, 0.65, 0.6, 0.1)]
    assert told == ["good", "good", "medium", "bad", "bad"]
    assert grade(0.9, 19, **limits) == grade(None, 99, **limits) == "unknown"
    assert grade(0.0, 20, good=0.0, bad=0.0, least=20) == "bad"


def test_the_grid_is_whole_and_never_rewards_a_worse_reward_model() -> None:
    grades, order = ("bad", "medium", "good"), ("lower", "keep", "raise")
    assert len(CHANGES) == 9
    for gain in grades:
        steps = [order.index(CHANGES[gain, agreement]) for agreement in grades]  # type: ignore[index]
        assert steps == sorted(steps)


def test_a_round_by_hand() -> None:
    mixture = Mixture({ACCOUNTING: 0.5, MARKETS: 0.3, WRITING: 0.2})
    told = [figures(ACCOUNTING, 0.02, 0.75), figures(MARKETS, -0.1, 0.5), figures(WRITING, 0.2, 0.9, count=5)]
    raised, lowered, kept = decide(mixture, told, RoundSettings())
    assert (raised.gain_grade, raised.agreement_grade, raised.change) == ("medium", "good", "raise")
    assert (lowered.gain_grade, lowered.agreement_grade, lowered.change) == ("bad", "bad", "lower")
    assert (kept.gain_grade, kept.agreement_grade, kept.change) == ("unknown", "unknown", "keep")
    total = 0.5 * 1.25 + 0.3 / 1.25 + 0.2
    assert raised.after == pytest.approx(0.5 * 1.25 / total)
    assert lowered.after == pytest.approx(0.3 / 1.25 / total)
    assert kept.after == pytest.approx(0.2 / total)
    by_reward = decide(mixture, told, RoundSettings(gain_by="reward"))
    assert [one.gain for one in by_reward] == [-0.02, 0.1, -0.2]


@pytest.mark.parametrize("change", ["raise", "keep", "lower"])
def test_what_is_decided_for_all_changes_nothing(change: Any) -> None:
    shares = {ACCOUNTING: 0.55, MARKETS: 0.25, WRITING: 0.2}
    after = next_shares(shares, dict.fromkeys(shares, change), RoundSettings())
    assert after == pytest.approx(shares)


def test_bounds_hold_whatever_is_decided() -> None:
    settings = RoundSettings(mixture_step=4.0, least_share=0.1, most_share=0.6)
    shares = {ACCOUNTING: 0.5, MARKETS: 0.45, WRITING: 0.05}  # the last one is below the bound already
    for _ in range(6):
        before = shares
        shares = next_shares(shares, {ACCOUNTING: "raise", MARKETS: "lower", WRITING: "lower"}, settings)
        assert sum(shares.values()) == pytest.approx(1)
        assert shares[ACCOUNTING] <= 0.6 + 1e-9
        assert shares[MARKETS] >= 0.1
        assert shares[WRITING] >= min(0.1, before[WRITING]) - 1e-9
    assert shares[ACCOUNTING] == pytest.approx(0.6)


def test_the_end_of_the_rounds_is_said() -> None:
    one = Decision(
        category="finance",
        subfield="*",
        gain=0.1,
        gain_grade="good",
        agreement=0.8,
        agreement_grade="good",
        change="keep",
        before=0.5,
        after=0.5,
    )
    assert "at their end" in settled([one])


# ------------------------------------------------------------------------------------------------ the stage


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FINLM_RUNS", raising=False)
    makers = {"accounting": "Bookkeeping", "markets": "Trading"}
    pool = [
        Prompt(
            messages=(Message(role="user", content=f"{word} question {letter * 3}?"),),
            category="finance",
            subfield=name,
        )
        for name, word in makers.items()
        for letter in "abcdefghijklmnopqrst"
    ]
    pairs = [
        PreferencePair(
            prompt=one, chosen="A", rejected="B", strength=1, source="t", provenance=Provenance(maker="person:1")
        )
        for one in pool
    ]
    jsonl.write("runs/preferences.jsonl", pairs)
    jsonl.write("evaluation/categories.jsonl", [figures(ACCOUNTING, 0.02, 0.75), figures(MARKETS, -0.1, 0.5)])
    return tmp_path


def collect(*more: str) -> None:
    base = ["--instructions", "[]", "--test_share", "0", "--max_prompt_length", "0", "--new_per_preference", "0"]
    prompts.main(config.parse(prompts.PromptSettings, "", [*base, *more]))


def test_a_round_ends_in_a_mixture_that_the_next_one_begins_with(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["--total", "20", "--output"]
    collect(*begin, "one.jsonl", "--shares", '{"finance": {"accounting": 0.5, "markets": 0.5}}')
    collect(*begin, "two.jsonl", "--mixture", "one/mixture.yaml", "--mixture_from", "evaluation")
    said = " ".join(capsys.readouterr().out.split())
    assert "next mixture" in said
    assert "+0.020 medium" in said
    shares = yaml.safe_load(Path("two/mixture.yaml").read_text())["shares"]["finance"]
    assert shares["accounting"] == pytest.approx(1.25 / (1.25 + 0.8))
    assert [one.change for one in jsonl.read("two/decisions.jsonl", Decision)] == ["raise", "lower"]
    drawn = list(jsonl.read("two.jsonl", Prompt))
    assert sum(one.subfield == "accounting" for one in drawn) == 12  # 20 x 0.6098
    collect(*begin, "three.jsonl", "--mixture", "two/mixture.yaml", "--mixture_from", "evaluation")
    later = yaml.safe_load(Path("three/mixture.yaml").read_text())["shares"]["finance"]
    assert later["accounting"] > shares["accounting"]


def test_a_round_without_what_it_needs(folder: Path) -> None:
    with pytest.raises(MissingInput, match="none is given; name that of the round before with --mixture"):
        collect("--mixture_from", "evaluation")
    with pytest.raises(UserError, match=r"has figures of ppo, not of 'dpo'; set policy"):
        collect("--mixture_from", "evaluation", "--policy", "dpo", "--shares", '{"finance": 1.0}')
    with pytest.raises(MissingInput, match=r"holds no categories\.jsonl; make it with: finlm evaluate"):
        read_figures(folder / "elsewhere", "ppo")
    for flags, message in (
        (("--gain_bad", "1"), "gain_bad 1.0 is above gain_good 0.05"),
        (("--agreement_bad", "0.9"), "agreement_bad 0.9 and agreement_good 0.7"),
        (("--mixture_step", "1"), "mixture_step is 1.0"),
        (("--least_share", "0.9", "--most_share", "0.5"), "least_share 0.9 and most_share 0.5"),
    ):
        with pytest.raises(UserError, match=message):
            collect(*flags)
    assert not Path("runs/prompts").exists()
