"""The benchmark of the checker: its alterations are real, its intervals right, its typed cells stand in the filing."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks import check_cells, check_ixbrl, check_tatqa
from benchmarks.check_alterations import KINDS, altered
from benchmarks.check_truths import Ground, TruePair, Truth, is_rounded, share_interval
from benchmarks.selfqa_check import checker_of

REVENUE = Truth(metric="revenue", period="in fiscal 2024", value=Decimal(5_000_000), unit="currency", currency="USD")
EQUAL = Truth(metric="sales", period="in fiscal 2024", value=Decimal(5_000_000), unit="currency", currency="USD")
BEFORE = Truth(metric="revenue", period="in fiscal 2023", value=Decimal(5_000_000), unit="currency", currency="USD")
PAIR = TruePair(
    source="test",
    language="en",
    document="test",
    question="What was Acme's revenue in fiscal 2024?",
    answer="Acme's revenue was $5 million in fiscal 2024.",
    entity="Acme",
    metric="revenue",
    periods=("in fiscal 2024",),
    amount="$5 million",
    truths=(REVENUE,),
)


def test_every_kind_changes_its_piece_and_nothing_else() -> None:
    made = {copy.kind: copy for copy in altered(PAIR, Ground([REVENUE], "Acme"))}
    assert set(made) == set(KINDS) - {"metric"}
    for kind in ("figure", "scale", "sign", "unit"):
        assert made[kind].question == PAIR.question
        assert made[kind].answer.endswith(" in fiscal 2024.")
        assert "$5 million in" not in made[kind].answer
    assert "Acme" not in made["entity"].answer
    assert "in fiscal 2024" not in made["period"].answer
    assert not any(copy.is_also_true for copy in made.values())


def test_what_is_true_as_well_is_marked() -> None:
    made = {copy.kind: copy for copy in altered(PAIR, Ground([REVENUE, EQUAL], "Acme"))}
    assert made["metric"].is_also_true  # sales were as high
    grounds = Ground([REVENUE, BEFORE], "Acme")
    told = [copy for copy in altered(PAIR, grounds) if copy.kind == "period" and "2023" in copy.answer]
    assert all(copy.is_also_true for copy in told)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(98, 100, 0.9300, 0.9945), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)],
)
def test_wilsons_interval(hits: int, count: int, low: float, high: float) -> None:
    """Values of scipy 1.17.1: binomtest(hits, count).proportion_ci(method="wilson")."""
    assert share_interval(hits, count) == pytest.approx((low, high), abs=5e-5)


def test_rounding() -> None:
    assert is_rounded(Decimal("23434"), Decimal("23.4E+3"))
    assert not is_rounded(Decimal("23434"), Decimal("23.5E+3"))


def test_the_typed_cells_stand_in_the_annual_report(shared_data: Path) -> None:
    (path,) = (shared_data / "filings" / "zh").glob("*.html")
    page = path.read_text(encoding="utf-8")
    cells = [json.loads(line) for line in check_cells.CELLS.read_text(encoding="utf-8").splitlines()]
    assert len(cells) > 100
    assert [cell for cell in cells if f">{cell['value']}" not in re.sub(r"%|\s", "", page)] == []


def test_ixbrlparse_and_the_page_agree(shared_data: Path) -> None:
    """Figures that a person read on the page."""
    ground = check_ixbrl.ground_of(shared_data / "filings" / "en" / "aapl-10-q-2025-08-01.html")
    (income,) = ground.by_key["net income", "in the three months ended June 28, 2025"]
    (assets,) = ground.by_key["total assets", "as of June 28, 2025"]
    assert (income.value, income.scale, assets.value) == (Decimal(23_434_000_000), "million", Decimal(331_495_000_000))
    assert len(ground.truths) > 500


def test_the_checker_on_the_typed_cells(shared_data: Path) -> None:
    """A tenth of what the benchmark tries: nothing true rejected, little that is false accepted."""
    (path,) = (shared_data / "filings" / "zh").glob("*.html")
    check, ground = checker_of(path), check_cells.ground_of()
    pairs = list(check_cells.pairs_of(ground))[::10]
    assert [pair.answer for pair in pairs if check(pair.question, pair.answer)] == []
    copies = [copy for pair in pairs for copy in altered(pair, ground) if not copy.is_also_true]
    passed = [copy for copy in copies if not check(copy.question, copy.answer)]
    assert len(copies) > 150
    assert len(passed) <= 0.02 * len(copies)


def test_tatqa_contexts(shared_data: Path) -> None:
    contexts = list(check_tatqa.contexts_of(shared_data / "evaluation" / "tatqa_dev.json.gz"))
    first = contexts[0]
    assert [(pair.answer, pair.derivation) for pair in first.pairs] == [
        ("$1,496.5 million", ""),
        ("-12.6 million", "44.1-56.7"),
        ("-22.22%", "(44.1-56.7)/56.7"),
    ]
    moved = check_tatqa.period_altered(first.pairs[0], first)
    assert moved is not None
    assert re.search(r"20(?:17|18)", moved.question)
    assert not moved.is_also_true


def test_the_halves_of_tatqas_unread_part(shared_data: Path) -> None:
    """Every fourth context, cut in two by context; no context of the developed part is in either."""
    contexts = list(check_tatqa.contexts_of(shared_data / "evaluation" / "tatqa_dev.json.gz"))
    parts = {one.number: {pair.source for pair in one.pairs} for one in contexts}
    assert all(len(its) == 1 for its in parts.values())
    assert {number for number, its in parts.items() if its != {check_tatqa.SEEN}} == set(range(3, 278, 4))
    assert [sum(its == {part} for its in parts.values()) for part in check_tatqa.PARTS] == [209, 35, 34]


def test_wrong_items_are_answered_by_figures(shared_data: Path) -> None:
    """Each is an item that the benchmark tries, so that none counts for nothing."""
    contexts = check_tatqa.contexts_of(shared_data / "evaluation" / "tatqa_dev.json.gz")
    tried = {pair.item for one in contexts for pair in one.pairs}
    assert check_tatqa.WRONG_ITEMS.keys() <= tried
