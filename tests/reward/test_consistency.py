"""Changes of formatting leave letters and digits alone; the summaries are arithmetic by hand."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from judging import judged, pair

from finlm import jsonl
from finlm.records import PreferencePair
from reward import consistency as it
from reward.formatting import CHANGES, bullets, content, full_stop, line_breaks, punctuation, trailing_spaces


@pytest.mark.parametrize(
    ("change", "language", "before", "after"),
    [
        (line_breaks, "en", "One.\n\nTwo.\n \nThree.", "One.\nTwo.\nThree."),
        (line_breaks, "en", "One\nTwo", "One\n\nTwo"),
        (line_breaks, "en", "It rose 1.5 % in the U.S. market. It fell. (Later!) \"Yes\" is no.",
         "It rose 1.5 % in the U.S. market.\nIt fell.\n(Later!) \"Yes\" is no."),
        (line_breaks, "en", "One sentence only", "One sentence only"),
        (line_breaks, "en", "1. First", "1. First"),
        (line_breaks, "zh", "增长。收入下降1.5%！“为何？”他问。", "增长。\n收入下降1.5%！\n“为何？”他问。"),
        (line_breaks, "en", "```\nx = 1\n\ny = 2\n```", "```\nx = 1\n\ny = 2\n```"),
        (bullets, "en", "List:\n- one\n  * two\n• three\n-4 is none", "List:\n* one\n  - two\n- three\n-4 is none"),
        (bullets, "en", "a - b * c", "a - b * c"),
        (full_stop, "en", "It rose.", "It rose"),
        (full_stop, "en", "It rose 5", "It rose 5."),
        (full_stop, "zh", "增长了\n", "增长了。\n"),
        (full_stop, "zh", "增长了。", "增长了"),
        (full_stop, "en", "Really?", "Really?"),
        (full_stop, "en", "And so on...", "And so on..."),
        (full_stop, "en", "", ""),
        (trailing_spaces, "en", "a\n\nb", "a  \n  \nb  "),
        (punctuation, "zh", "收入（亿元）：5，利润：3。", "收入(亿元):5,利润:3."),
        (punctuation, "zh", "收入增长,利润1,234.5元.很好!", "收入增长，利润1,234.5元。很好！"),
        (punctuation, "en", "One, two.", "One, two."),
    ],
)  # fmt: skip
def test_changes_by_hand(change, language: str, before: str, after: str) -> None:
    assert change(before, language) == after
    assert content(before) == content(after)


@pytest.mark.parametrize("name", CHANGES)
def test_no_change_touches_a_letter_or_digit(name: str) -> None:
    draw = random.Random(0)
    pieces = [
        "a",
        "B7",
        "1.5",
        "增长",
        "。",
        "，",
        ". ",
        "! ",
        "\n",
        "\n\n",
        "- ",
        "* ",
        "1. ",
        "(",
        "）",
        ",",
        " ",
        "\t",
        "U.S.",
    ]
    for _ in range(2000):
        text = "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 20)))
        for language in ("en", "zh"):
            assert content(CHANGES[name](text, language)) == content(text)


def test_real_answers_keep_their_content(shared_data: Path, tmp_path: Path) -> None:
    from annotation import importing

    importing.main(
        importing.ImportSettings(
            runs=str(tmp_path), input=str(shared_data / "preferences"), output=str(tmp_path / "pairs.jsonl"), limit=150
        )
    )
    pairs = list(jsonl.read(tmp_path / "pairs.jsonl", PreferencePair))
    changed = dict.fromkeys(CHANGES, 0)
    for one in pairs:
        for name in CHANGES:
            new = it.reformatted(one, name)
            if new is not None:
                changed[name] += 1
                assert (content(new.better), content(new.worse)) == (content(one.chosen), content(one.rejected))
    assert len(pairs) == 900
    assert changed["trailing spaces"] == 900
    assert min(changed["line breaks"], changed["full stop"]) > 450
    assert 90 < changed["punctuation width"] <= 150  # of the Chinese set


# ------------------------------------------------------------------------------------------------------ comparisons


def test_a_pair_that_differs_in_its_looks_only_is_left_out() -> None:
    assert it.reformatted(pair("It rose.", "It fell"), "bullets") is None
    assert it.reformatted(pair("It rose.", "It rose"), "full stop") is None
    assert it.reformatted(pair("It rose. Yes", "It rose.\nYes"), "line breaks") is None
    one = pair("It rose.", "Why?")
    found = it.reformatted(one, "full stop")
    assert found == it.Reformatted(pair_id=one.id, better="It rose", worse="Why?")
    assert it.changed_sides(one, found) == (True, False)


def test_swapping_by_hand() -> None:
    records = [judged("a", 1.0), judged("b", -1.0), judged("c", 0.1)]
    swapped = [records[2].scored(0.0, 0.1), records[0].scored(1.25, 0.0), records[1]]
    assert it.swapping(records, swapped) == it.Swapping(pairs=3, largest=0.25, turned=1)
    assert it.swapping(records, records[::-1]) == it.Swapping(pairs=3, largest=0.0, turned=0)
    for given, other in ((records, records[:2]), ([], [])):
        with pytest.raises(ValueError, match="are not the same pairs"):
            it.swapping(given, other)


def test_consistency_by_hand() -> None:
    """a: both answers fall by 1, the verdict stays, also from one side. b: the worse one rises above. c: one side.

    Moves in standard deviations of 2: -0.5, -0.5 | 0.25, 1.5 | -0.25.
    """
    before = [judged("a", 3.0), judged("b", 1.0), judged("c", 1.0), judged("not reformatted", 9.0)]
    after = [
        before[0].scored(2.0, -1.0),
        before[1].scored(1.5, 3.0),
        before[2].scored(0.5, 0.0),
    ]
    sides = {"a": (True, True), "b": (True, True), "c": (True, False)}
    found = it.consistency("bullets", before, after, sides, std=2.0, seed=0)
    assert found is not None
    assert found.stays.mean == pytest.approx(2 / 3)
    assert found.stays_one_sided.mean == pytest.approx((1 + 0.5 + 1) / 3)
    assert found.shift == pytest.approx((0.5 + 0.5 + 0.25 + 1.5 + 0.25) / 5)
    assert found.drift == pytest.approx((-0.5 - 0.5 + 0.25 + 1.5 - 0.25) / 5)
    assert (found.answers, found.stays.pairs, found.change) == (5, 3, "bullets")
    order = it.consistency("bullets", before[::-1], after[::-1], sides, std=2.0, seed=0)
    assert order == found
    doubled = [record.scored(2 * record.better, 2 * record.worse) for record in before]
    after_doubled = [record.scored(2 * record.better, 2 * record.worse) for record in after]
    assert it.consistency("bullets", doubled, after_doubled, sides, std=4.0, seed=0) == found


def test_consistency_of_nothing_and_of_other_pairs() -> None:
    one = judged("a", 1.0)
    assert it.consistency("bullets", [one], [], {}, std=1.0, seed=0) is None
    with pytest.raises(ValueError, match="pair b was reformatted and is not among the judged pairs"):
        it.consistency("bullets", [one], [replace(one, pair_id="b")], {}, std=1.0, seed=0)
    with pytest.raises(ValueError, match="standard deviation of the scores is 0"):
        it.consistency("bullets", [one], [one], {"a": (True, True)}, std=0.0, seed=0)


def test_a_verdict_that_becomes_a_tie_has_not_stayed() -> None:
    one = judged("a", 1.0)
    found = it.consistency("x", [one], [one.scored(0.0, 0.0)], {"a": (True, True)}, std=1.0, seed=0)
    assert found is not None
    assert found.stays.mean == 0
