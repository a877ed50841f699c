"""The plan of a document's questions: shares, limits, shortfalls; and what a table gives besides its figures."""

import re
from collections import Counter
from collections.abc import Callable

import pytest

from finlm.errors import UserError
from finlm.figures import narrow
from selfqa.background import backgrounds
from selfqa.entities import Filing
from selfqa.extractive import extract
from selfqa.pairs import Pair
from selfqa.plain import read_markdown
from selfqa.plan import make_plan, template_limit
from selfqa.selection import Chosen, choose

ACME = Filing("Acme Rope", "Acme Rope", "en", 2024, 12)


def pair(kind: str, rule: str, number: int) -> Pair:
    return Pair(
        question=f"{kind} {rule} {number}?",
        answer="-",
        kind=kind,
        start=number,
        end=number + 1,
        rule=rule,
        topic=str(number),
        place=rule,
    )


def made(**counts: int) -> list[Pair]:
    """So many pairs of each type, each from a template of its own name."""
    return [pair(kind.replace("_", "-"), kind, 100 * n) for kind, count in counts.items() for n in range(count)]


def test_shares_are_honoured_where_there_is_material() -> None:
    plan = make_plan({"figure": 6, "cause": 3, "yes-no": 1}, {}, {}, 1.0)
    chosen = choose(made(figure=500, cause=500, yes_no=500), 100, plan, lambda pair: "other")
    assert Counter(one.kind for one in chosen.kept) == {"figure": 60, "cause": 30, "yes-no": 10}
    assert not [share for share in chosen.shares if share.missing]


def test_what_is_missing_goes_to_the_others_and_is_reported() -> None:
    plan = make_plan({"figure": 0.5, "cause": 0.25, "risk": 0.25}, {}, {}, 1.0)
    chosen = choose(made(figure=500, cause=5, fact=50), 100, plan, lambda pair: "other")
    assert Counter(one.kind for one in chosen.kept) == {"figure": 95, "cause": 5}  # a fact was not planned
    missing = {share.name: (share.wanted, share.found, share.kept, share.missing) for share in chosen.shares}
    assert missing == {"figure": (50, 500, 95, 0), "cause": (25, 5, 5, 20), "risk": (25, 0, 0, 25)}


def test_no_template_makes_more_than_its_share_of_what_is_kept() -> None:
    plan = make_plan({"figure": 1, "cause": 1, "risk": 1, "fact": 1}, {}, {}, 0.3)
    pairs = made(figure=300, cause=12, risk=10, fact=8)
    chosen = choose(pairs, 400, plan, lambda pair: "other")
    # 12 + 10 + 8 others are at least 70 %: 12 of the first are the most that keeps to it (12 of 42 is 28.6 %)
    assert Counter(one.rule for one in chosen.kept) == {"figure": 12, "cause": 12, "risk": 10, "fact": 8}


def test_three_templates_cannot_all_stay_below_thirty_percent() -> None:
    assert template_limit(made(figure=50, fact=50, list=50), 150, 0.3) == 150


def test_sections_and_difficulties_share_too() -> None:
    plan = make_plan({"figure": 1, "change": 1}, {}, {"risk": 0.5, "notes": 0.5}, 1.0)
    chosen = choose(made(figure=40), 20, plan, lambda one: "risk" if one.start < 1000 else "notes")
    assert Counter("risk" if one.start < 1000 else "notes" for one in chosen.kept) == {"risk": 10, "notes": 10}
    assert {share.name: share.kept for share in chosen.shares if share.dimension == "section"} == {
        "risk": 10,
        "notes": 10,
    }


@pytest.mark.parametrize(
    ("types", "difficulties", "sections", "template", "said"),
    [
        ({}, {}, {}, 0.3, "types is empty"),
        ({"figures": 1}, {}, {}, 0.3, "'figures'"),
        ({"figure": 0}, {}, {}, 0.3, "above 0"),
        ({"figure": 1}, {"tough": 1}, {}, 0.3, "easy, medium, hard"),
        ({"figure": 1}, {}, {"intro": 1}, 0.3, "business"),
        ({"figure": 1}, {}, {}, 1.5, "template_share is 1.5"),
    ],
)
def test_a_wrong_share_is_named(
    types: dict[str, float], difficulties: dict[str, float], sections: dict[str, float], template: float, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        make_plan(types, difficulties, sections, template)


def kept_by(joint: Callable[[Pair], object], chosen: Chosen) -> dict[object, int]:
    return dict(Counter(map(joint, chosen.kept)))


def zone(one: Pair) -> str:
    """The first ten of each type stand in the discussion, the rest in the notes."""
    return "discussion" if one.start < 1000 else "notes"


def test_quotas_of_type_and_section_are_kept_jointly() -> None:
    quotas = {"cause/medium/discussion": 0.1, "cause/*/notes": 0.3}
    plan = make_plan({"figure": 3, "yes-no": 1}, {}, {}, 1.0, quotas)
    chosen = choose(made(figure=200, yes_no=200, cause=200), 50, plan, zone)
    # 5 and 15 of 50 as the quotas say; of the 30 that are left 3 in 4 are figures, 22.5
    kept = kept_by(lambda one: (one.kind, zone(one)) if one.kind == "cause" else one.kind, chosen)
    assert {name: kept[name] for name in kept if isinstance(name, tuple)} == {
        ("cause", "discussion"): 5,
        ("cause", "notes"): 15,
    }
    assert kept["figure"] in {22, 23}
    assert kept["yes-no"] == 30 - kept["figure"]
    told = {one.name: (one.wanted, one.found, one.kept) for one in chosen.shares if one.dimension == "joint"}
    assert told == {"cause/medium/discussion": (5, 10, 5), "cause/*/notes": (15, 190, 15)}


def test_what_a_joint_quota_lacks_goes_to_its_type_first_and_is_told_with_the_reason() -> None:
    quotas = {"cause/*/discussion": 0.5, "cause/hard/notes": 0.1, "cause/*/notes": 0.4}
    chosen = choose(made(cause=40), 40, make_plan({"figure": 1}, {}, {}, 1.0, quotas), zone)
    assert kept_by(zone, chosen) == {"discussion": 10, "notes": 30}  # all there is
    told = {one.name: (one.wanted, one.found, one.kept, one.missing, one.reason) for one in chosen.shares}
    assert told["cause/*/discussion"] == (20, 10, 10, 10, "the document gives fewer")
    assert told["cause/hard/notes"] == (4, 0, 0, 4, "the document gives none")
    assert told["cause/*/notes"] == (16, 30, 30, 0, "")


def test_without_quotas_the_three_shares_multiply() -> None:
    plan = make_plan({"figure": 1, "cause": 1}, {}, {"discussion": 0.25, "notes": 0.75}, 1.0)
    chosen = choose(made(figure=400, cause=400), 32, plan, zone)
    assert kept_by(lambda one: (one.kind, zone(one)), chosen) == {
        ("figure", "discussion"): 4,
        ("figure", "notes"): 12,
        ("cause", "discussion"): 4,
        ("cause", "notes"): 12,
    }


def test_a_question_of_no_cell_comes_last() -> None:
    plan = make_plan({"figure": 1}, {}, {"discussion": 1.0}, 1.0)
    chosen = choose(made(figure=40), 15, plan, zone)
    assert kept_by(zone, chosen) == {"discussion": 10, "notes": 5}


def test_a_template_that_has_its_share_is_a_reason_too() -> None:
    plan = make_plan({"figure": 1, "cause": 1, "risk": 1, "fact": 1}, {}, {"notes": 1.0}, 0.3)
    chosen = choose(made(figure=300, cause=12, risk=10, fact=8), 400, plan, lambda one: "notes")
    told = {one.name: one for one in chosen.shares if one.dimension == "joint"}
    figures = told["figure/*/notes"]
    # a quarter of the 330 there are; 12 of one template are the most that stay below 30 %
    assert (figures.wanted, figures.found, figures.kept) == (82, 300, 12)
    assert "templates that have their share" in figures.reason


@pytest.mark.parametrize(
    ("quotas", "said"),
    [
        ({"cause/discussion": 0.1}, "a quota is type/difficulty/section"),
        ({"causes/*/notes": 0.1}, "'causes' must be one of"),
        ({"cause/tough/notes": 0.1}, "'tough' must be one of easy, medium, hard"),
        ({"cause/*/item 7": 0.1}, "'item 7' must be one of business"),
        ({"cause/*/notes": 0}, "above 0"),
        ({"cause/*/notes": 0.6, "figure/easy/*": 0.6}, "quotas sum to 1.2"),
    ],
)
def test_a_wrong_quota_is_named(quotas: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        make_plan({"figure": 1}, {}, {}, 0.3, quotas)


TABLE = """# Acme Rope

Consolidated Balance Sheets (in millions)

| | December 31, 2024 | December 31, 2023 |
|---|---|---|
| Cash and cash equivalents | $ 120 | $ 100 |
| Accounts receivable | 80 | 90 |
| Inventories | 200 | 210 |
| Total current assets | $ 400 | $ 400 |
| Goodwill | 50 | 50 |
| Total assets | $ 450 | $ 450 |
"""


def table_pairs(text: str) -> list[Pair]:
    source = read_markdown(text)
    kept, _ = backgrounds(source, 2400, 0)
    return list(extract(source, ACME, kept, 450, ("Birch Kettles",)).pairs)


def test_rows_that_add_up_say_what_a_total_is_made_of() -> None:
    by_question = {one.question: one for one in table_pairs(TABLE)}
    listed = by_question["Which items made up Acme Rope's total current assets as of December 31, 2024?"]
    assert listed.answer == (
        "Acme Rope's total current assets were made up of cash and cash equivalents; accounts receivable; and "
        "inventories as of December 31, 2024."
    )
    share = by_question[
        "What share of Acme Rope's total current assets did its inventories make up as of December 31, 2024?"
    ]
    assert "50.0%" in share.answer
    assert share.derivation is not None
    assert share.derivation.operands == ("$200 million", "$400 million")
    # 400 + 50 are the total assets: a sum is a part of a later sum
    assert "What share of Acme Rope's total assets did its goodwill make up as of December 31, 2024?" in by_question


def test_rows_that_do_not_add_up_say_nothing() -> None:
    wrong = TABLE.replace("Inventories | 200", "Inventories | 201")
    pairs = table_pairs(wrong)
    assert not [one for one in pairs if one.rule == "total-parts"]
    shares = {one.topic for one in pairs if one.rule == "derived-share"}
    assert shares == {"share of total current assets", "share of goodwill"}  # these still add up, to the total assets


def test_yes_and_no_follow_the_figures() -> None:
    found = [one for one in table_pairs(TABLE) if one.rule == "row-direction"]
    assert len(found) == 3  # goodwill and the totals did not move
    rose = {"cash and cash equivalents": True, "accounts receivable": False, "inventories": False}
    for one in found:
        is_yes = rose[one.topic] == (" increase " in one.question)
        assert one.answer.startswith("Yes," if is_yes else "No,")
        assert (" rose " in one.answer) == rose[one.topic]


def test_an_absent_figure_is_absent_from_the_passage() -> None:
    found = [one for one in table_pairs(TABLE) if one.kind == "unanswerable"]
    assert found
    for one in found:
        passage = narrow(one.passage())
        assert one.is_open_only
        if one.rule == "unanswerable-entity":
            assert "Birch Kettles" in one.question
            assert "Birch" not in passage
        elif one.rule == "unanswerable-period":
            assert ("2025" in one.question and "2025" not in passage) or (
                "2022" in one.question and "2022" not in passage
            )
