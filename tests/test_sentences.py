"""Cuts of long documents: behind sentences, never inside a character, every token in one piece."""

import random
import re
from itertools import pairwise

import pytest

from finlm.sentences import Cut, cut_points, cuts


def characters(text: str) -> list[int]:
    """Starts of tokens that are one character each."""
    return list(range(len(text)))


def words(text: str) -> list[int]:
    """Starts of tokens as a byte-level tokenizer makes them: words without the space before them, single marks."""
    return [found.start() for found in re.finditer(r"\w+|\n+|[^\w\s]", text)]


def pieces(text: str, starts: list[int], room: int) -> list[str]:
    places = [0, *(starts[cut] for cut in cut_points(text, starts, room)), len(text)]
    return [text[left:right] for left, right in pairwise(places)]


def test_what_fits_is_not_cut() -> None:
    assert cut_points("A. B.", characters("A. B."), 5) == []
    assert cut_points("", [], 1) == []
    assert cut_points("A. B.", characters("A. B."), 4) != []


@pytest.mark.parametrize(
    ("text", "room", "expected"),
    [
        # 5 tokens of room: "Costs rose . Sales fell" would be five, its last sentence has no end in them
        ("Costs rose. Sales fell. Cash grew.", 5, ["Costs rose. ", "Sales fell. ", "Cash grew."]),
        ("Costs rose. Sales fell. Cash grew.", 6, ["Costs rose. Sales fell. ", "Cash grew."]),
        ("Did it? Yes! It did.", 5, ["Did it? Yes! ", "It did."]),
        ('He said "No." Then he left us.', 7, ['He said "No." ', "Then he left us."]),
        ("One line\nAnother line\nA third", 4, ["One line\n", "Another line\n", "A third"]),
        ("Wait... what now? Go", 6, ["Wait... ", "what now? Go"]),
    ],
)
def test_cut_at_the_last_sentence_that_fits(text: str, room: int, expected: list[str]) -> None:
    starts = words(text)
    assert pieces(text, starts, room) == expected
    assert {cut.behind for cut in cuts(text, starts, room)} == {"sentence"}


@pytest.mark.parametrize(
    ("text", "room", "expected"),
    [
        ("收入增长。成本下降！现金充足？是；好", 12, ["收入增长。成本下降！", "现金充足？是；好"]),
        ("他说：“收入增长。”然后离开了会场。", 12, ["他说：“收入增长。”", "然后离开了会场。"]),
        ("第一行\n\n第二行结束了", 6, ["第一行\n\n", "第二行结束了"]),
    ],
)
def test_chinese_sentences_keep_their_closing_marks(text: str, room: int, expected: list[str]) -> None:
    assert pieces(text, characters(text), room) == expected


@pytest.mark.parametrize(
    "text",
    [
        "It grew by 3.5 points over the year",
        "The U.S. market was the largest of all",
        "See No. 5 of the annex for more of it",
        "Mr. Smith met J. Doe of Acme Inc. in town",
        "Sold on Dec. 31 for cash, e.g. in bills",
        "1. Business of the company and its parts",
    ],
)
def test_a_full_stop_within_a_sentence_is_no_end(text: str) -> None:
    starts = characters(text)
    for room in range(2, len(text)):
        assert "sentence" not in {cut.behind for cut in cuts(text, starts, room)}


def test_an_abbreviation_at_the_end_of_a_line_ends_with_it() -> None:
    text = "It moved to the U.S.\nThen it grew"
    assert cuts(text, characters(text), 25) == [Cut(text.index("Then"), "sentence")]


def test_the_answer_no_is_a_sentence_where_no_number_follows() -> None:
    text = "The answer is No. Then they left"
    assert pieces(text, characters(text), 20) == ["The answer is No. ", "Then they left"]


def test_without_a_sentence_a_clause_or_word_ends_the_piece() -> None:
    text = "营业收入增长，成本下降，现金充足"
    assert cuts(text, characters(text), 13) == [Cut(12, "clause")]
    text = "revenue grew while costs"
    assert cuts(text, characters(text), 14) == [Cut(len("revenue grew "), "clause")]


def test_without_anything_room_ends_the_piece() -> None:
    assert cuts("营业收入增长成本", characters("营业收入增长成本"), 3) == [Cut(3, "token"), Cut(6, "token")]


def test_no_cut_parts_the_tokens_of_one_character() -> None:
    # three tokens a character, as bytes of characters that no token holds whole
    starts = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert cuts("龘龘龘", starts, 4) == [Cut(3, "token"), Cut(6, "token")]
    assert cut_points("龘龘龘", starts, 2) == [2, 3, 5, 6, 8]  # where one character is more than a piece, it must


def test_a_token_that_holds_an_end_and_what_follows_is_not_cut_behind_the_end() -> None:
    # tokens: "Up" ".\nA" "nd" " on"
    assert cuts("Up.\nAnd on", [0, 2, 5, 7], 3) == [Cut(3, "clause")]


def test_white_space_may_belong_to_either_token() -> None:
    text = "Up it went. Down it came"
    for start_of_down in (11, 12):  # " Down" and "Down"
        starts = [0, 2, 5, 10, start_of_down, 16, 19]
        assert cuts(text, starts, 6) == [Cut(4, "sentence")]


def test_room_must_be_positive() -> None:
    with pytest.raises(ValueError, match="room is 0"):
        cut_points("a", [0], 0)


def kind_by_hand(text: str, starts: list[int], token: int) -> str:
    """What a cut before the token is behind, told one character at a time; the text has no abbreviations."""
    start = starts[token]
    if start == starts[token - 1]:
        return "inside"
    kind = "token"
    for end in range(start, -1, -1):
        before, behind = text[max(0, end - 1) : end], text[end : end + 1]
        if before in ("。", "!") and behind != before and (before == "。" or behind.isspace()):
            return "sentence"
        if (before == "." and behind.isspace()) or behind == "\n":
            return "sentence"
        if (before == "，" and behind != "，") or behind.isspace():
            kind = "clause"
        if not before.isspace():
            break
    return kind


def test_random_texts_are_cut_as_by_hand() -> None:
    rng = random.Random(7)
    seen = set()
    for _ in range(3000):
        text = "".join(rng.choices(["cash", "3.5", "营", "。", "，", ".", "!", " ", "\n"], k=rng.randrange(60)))
        starts = sorted(rng.choices(range(len(text)), k=rng.randrange(1, 80))) if text else []
        room = rng.randrange(1, 20)
        found = cuts(text, starts, room)
        places = [0, *(cut.token for cut in found), len(starts)]
        assert all(right - left <= room for left, right in pairwise(places))
        for left, cut in zip(places, found, strict=False):
            kinds = {token: kind_by_hand(text, starts, token) for token in range(left + 1, left + room + 1)}
            best = min(kinds.values(), key=["sentence", "clause", "token", "inside"].index)
            last = max(token for token, kind in kinds.items() if kind == best)
            assert cut == Cut(last, "token" if best == "inside" else best), (text, starts, room)
            seen.add(best)
    assert len(seen) == 4


def test_a_megabyte_is_cut_whatever_it_repeats() -> None:
    """Hours for some of these, if the patterns tried every end of every run."""
    for unit in ("Revenue grew by 3.5% in 2024. ", "营业收入增长，成本下降。", ".", " ", "\n", "a", '."', "，", "1. "):
        text = unit * (1_000_000 // len(unit))
        found = cut_points(text, characters(text), 2048)
        assert len(text) / 2048 - 1 < len(found) < len(text) / 1900, unit
