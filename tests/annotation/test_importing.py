"""Published preferences become pairs: worked out by hand for each format, counted on the real files."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from annotation import importing, published
from annotation.published import FORMATS, Fault, Pair
from finlm import config, jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import PreferencePair, Removal


def found(name: str, row: dict[str, Any]) -> list[Pair | Fault]:
    known = FORMATS[name]
    return list(known.pairs(msgspec.json.decode(json.dumps(row), type=known.row)))


def imported(tmp_path: Path, rows: list[dict[str, Any]], *more: str) -> tuple[list[PreferencePair], list[Removal]]:
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "preferences.jsonl"
    arguments = ["--input", str(file), "--output", str(out), *more]
    importing.main(config.parse(importing.ImportSettings, "", arguments))
    return list(jsonl.read(out, PreferencePair)), list(jsonl.read(tmp_path / "preferences/rejected.jsonl", Removal))


# ------------------------------------------------------------------------------------------------ by hand


def test_a_dialogue_is_cut_before_its_last_answer() -> None:
    begun = "\n\nHuman: Hi\n\nAssistant: Hello. Human: is a word.\n\nHuman: A pun?\n\nAssistant:"
    (pair,) = found("hh", {"chosen": f"{begun} No.", "rejected": f"{begun} Yes, two."})
    turns = (("user", "Hi"), ("assistant", "Hello. Human: is a word."), ("user", "A pun?"))
    assert pair == Pair(turns, "No.", "Yes, two.", 1)
    (fault,) = found("hh", {"chosen": f"{begun} No.", "rejected": "\n\nHuman: Else\n\nAssistant: Yes."})
    assert fault.rule == "other-prompt"
    (fault,) = found("hh", {"chosen": f"{begun}", "rejected": f"{begun} Yes."})
    assert fault.rule == "empty-answer"


@pytest.mark.parametrize(
    ("begun", "rule"),
    [
        ("\n\nAssistant: Hi\n\nHuman: A pun?", "roles"),
        ("\n\nHuman: Hi\n\nHuman: A pun?", "roles"),
        ("You are kind.\n\nHuman: A pun?", "no-speaker"),
        ("\n\nHuman: Hi\n\nAssistant: Hello", "no-prompt"),
        ("", "no-prompt"),
    ],
)
def test_a_dialogue_that_no_prompt_can_be_made_of_is_set_aside(begun: str, rule: str) -> None:
    (fault,) = found("hh", {side: f"{begun}\n\nAssistant: {side}" for side in ("chosen", "rejected")})
    assert isinstance(fault, Fault)
    assert fault.rule == rule


def test_a_ranking_of_five_has_ten_pairs_and_no_strength_beyond_three() -> None:
    row = {"instruction": "Why?", "input": "Because.", "output": list("abcde"), "history": [["Hi", "Hello"]]}
    pairs = found("ranking", row)
    turns = (("user", "Hi"), ("assistant", "Hello"), ("user", "Why?\n\nBecause."))
    assert pairs[0] == Pair(turns, "a", "b", 1)
    assert [(pair.better + pair.worse, pair.strength) for pair in pairs] == [
        ("ab", 1), ("ac", 2), ("ad", 3), ("ae", 3), ("bc", 1), ("bd", 2), ("be", 3), ("cd", 1), ("ce", 2), ("de", 1),
    ]  # fmt: skip


def test_a_tree_is_walked_to_every_ranked_set_of_replies() -> None:
    def reply(text: str, rank: int | None, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"text": text, "role": "assistant", "rank": rank, "replies": list(replies)} | more

    deeper = {
        "text": "More?",
        "role": "prompter",
        "replies": [reply("x", 1), reply("y", 0), reply("z", 2, deleted=True)],
    }
    tree = {"text": "Why?", "role": "prompter", "replies": [reply("b", 1, deeper), reply("a", 0), reply("c", None)]}
    got = found("tree", {"message_tree_id": "t1", "prompt": tree})
    why, more = (("user", "Why?"),), (("user", "Why?"), ("assistant", "b"), ("user", "More?"))
    pairs = [item for item in got if isinstance(item, Pair)]
    assert pairs == [Pair(why, "a", "b", 1, "t1"), Pair(more, "y", "x", 1, "t1")]
    assert [item.rule for item in got if isinstance(item, Fault)] == ["unranked", "unranked"]


def test_six_judgements_of_four_answers() -> None:
    row = {"question": "Q?", "passages": [["T", "One."], ["Two."]], "preference": [0, 1, 2, 1, 0, 2]}
    row |= {f"prediction {number}": text for number, text in zip("1234", "abcd", strict=True)}
    pairs = found("finegrained", row)
    assert pairs[0].turns == (("user", "T\nOne.\n\nTwo.\n\nQ?"),)
    assert [(pair.better + pair.worse, pair.strength) for pair in pairs] == [
        ("ab", 0), ("ac", 1), ("da", 1), ("bc", 1), ("bd", 0), ("dc", 1),
    ]  # fmt: skip


def test_a_correction_beats_what_the_first_answer_was_no_worse_than(tmp_path: Path) -> None:
    """The judge rewrote the first answer, which ties with the second, beats the third and loses to the fourth."""
    row: dict[str, Any] = {"question": "Q?", "passages": [["One."]], "preference": [0, 1, 2, 1, 0, 2]}
    row |= {f"prediction {number}": text for number, text in zip("1234", "abcd", strict=True)}
    row["feedback"] = {"errors": [], "corrected-prediction": " A "}
    uncorrected = row | {"question": "R?", "feedback": {"corrected-prediction": ""}}
    plain, left_out = imported(tmp_path, [row, uncorrected])
    more, removals = imported(tmp_path, [row, uncorrected], "--corrections", "true", "--overwrite", "true")
    corrected = [pair for pair in more if pair.source == "set_corrected"]
    assert [(pair.chosen, pair.rejected, pair.strength) for pair in corrected] == [
        ("A", "a", 2), ("A", "b", 2), ("A", "c", 2),
    ]  # fmt: skip
    assert [pair for pair in more if pair.source == "set"] == plain
    assert {pair.prompt.id for pair in corrected} < {pair.prompt.id for pair in plain}
    assert left_out == []
    assert [(one.record_id, one.rule) for one in removals] == [("set.jsonl:2", "empty-answer")] * 3


def test_votes_of_five_workers() -> None:
    row = {"topic": "t", "title": "T", "description": "D", "stance": "yes", "a1": "one", "a2": "two"}
    row |= {"votes": ["a2", "equal", "a2", "a2", "a1"], "workers": list("VWXYZ")}
    (pair,) = found("votes", row)
    assert (pair.better, pair.worse, pair.strength, pair.group) == ("two", "one", 2, "t")  # lead 2 of 5
    assert [(one.person, one.is_for_first, one.strength) for one in pair.opinions] == [
        ("V", True, 1), ("W", True, 0), ("X", True, 1), ("Y", True, 1), ("Z", False, 1),
    ]  # fmt: skip
    (nobody,) = found("votes", row | {"votes": [], "workers": []})
    assert nobody.rule == "no-votes"
    (tie,) = found("votes", row | {"votes": ["a1", "a2"], "workers": ["V", "W"]})
    assert (tie.better, tie.strength) == ("one", 0)
    # reliable workers may outweigh a majority
    (weighed,) = found("votes", row | {"gold": "a1"})
    assert (weighed.better, weighed.strength) == ("one", 1)
    assert [one.is_for_first for one in weighed.opinions] == [False, True, False, False, True]
    (undecided,) = found("votes", row | {"gold": None})
    assert (undecided.better, undecided.strength) == ("two", 0)


def test_error_points_of_raters() -> None:
    systems = [
        {"system": "s1", "text": "one", "mqm": {"r1": 4.0, "r2": 1.0}},
        {"system": "s2", "text": "two", "mqm": {"r1": 1.0, "r2": 1.5, "r3": 0.0}},
        {"system": "s3", "text": "three", "mqm": {"r9": 1.0}},
    ]
    first, *others = found("mqm", {"id": "news/7", "prompt": "句子", "responses": systems})
    # r1 sees 3 points less in two, r2 half a point less in one; on average 1.25
    assert (first.better, first.worse, first.strength, first.group) == ("two", "one", 1, "news")
    assert [(one.person, one.is_for_first, one.strength) for one in first.opinions] == [
        ("r1", True, 2),
        ("r2", False, 1),
    ]
    assert [fault.rule for fault in others] == ["no-common-rater", "no-common-rater"]


def test_a_format_is_known_by_its_keys() -> None:
    for name, known in FORMATS.items():
        assert published.format_of(dict.fromkeys([*known.keys, "more"], 0)) == name
    assert published.format_of({"prompt": "", "answer": ""}) is None


# ------------------------------------------------------------------------------------------------ the command


def test_repeated_contradicting_and_too_many_pairs_are_written_down(tmp_path: Path) -> None:
    rows = [{"instruction": "A?", "output": ["a", "b"]}, {"instruction": "A?", "output": ["a", "b"]}]
    rows += [{"instruction": "B?", "output": ["a", "b"]}, {"instruction": "B?", "output": ["b", "a"]}]
    rows += [{"instruction": "C?", "output": list("abcd")}, {"instruction": "D?", "output": ["same", " same"]}]
    pairs, removals = imported(tmp_path, rows, "--pairs_per_prompt", "4", "--language", "en")
    assert Counter(pair.prompt.messages[0].content for pair in pairs) == {"A?": 1, "C?": 4}
    assert Counter(one.rule for one in removals) == {
        "duplicate": 1, "contradiction": 2, "over-quota": 2, "equal-answers": 1,
    }  # fmt: skip
    assert {pair.prompt.language for pair in pairs} == {"en"}
    again, _ = imported(tmp_path, rows, "--pairs_per_prompt", "4", "--language", "en", "--overwrite", "true")
    assert again == pairs


def test_votes_provenance_and_group_go_with_the_pair(tmp_path: Path) -> None:
    row = {"topic": "t", "title": "T", "description": "D", "stance": "yes", "a1": "one", "a2": "two"}
    row |= {"votes": ["a1", "a1", "a2"], "workers": list("VWX")}
    ((pair,), removals) = imported(tmp_path, [row])
    assert removals == []
    assert (pair.chosen, pair.source, pair.provenance.maker) == ("one", "set", "import:set")
    assert pair.prompt.group == "set:t"
    assert [(vote.annotator, vote.side, vote.strength) for vote in pair.votes] == [
        ("person:set-V", "chosen", 1), ("person:set-W", "chosen", 1), ("person:set-X", "rejected", 1),
    ]  # fmt: skip
    assert len({vote.annotation_id for vote in pair.votes}) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ('{"question": "x"}\n', "no format has"),
        ('{"instruction": "x", "output": ["a", "b"]}\n{"instruction": 7, "output": []}\n', "set.jsonl:2: not a valid"),
        ('{"a1": "x", "a2": "y", "votes": ["a1"], "workers": [], "topic": "", "title": "t", "description": "d", '
         '"stance": "s"}\n', "set.jsonl:1: the row's parts do not fit"),
        ('{"a1": "x", "a2": "y", "votes": ["A1"], "workers": ["V"], "topic": "", "title": "t", "description": "d", '
         '"stance": "s"}\n', "set.jsonl:1: not a valid Voted: Invalid enum value 'A1'"),
        ('{"question": "q", "passages": [], "preference": [0, 1, 2, 3, 0, 0], "prediction 1": "a", "prediction 2": '
         '"b", "prediction 3": "c", "prediction 4": "d"}\n', "set.jsonl:1: not a valid Judged: Invalid enum value 3"),
        ('{"instruction": "x", "output": ["a"]}\n', "gave no pair"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(text, encoding="utf-8")
    settings = importing.ImportSettings(input=str(file), output=str(tmp_path / "p.jsonl"))
    with pytest.raises(UserError, match=words):
        importing.main(settings)
    assert not (tmp_path / "p.jsonl").exists()


def test_a_folder_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"no folder with \.jsonl"):
        importing.main(importing.ImportSettings(input=str(tmp_path)))


# ------------------------------------------------------------------------------------------------ the real files


@pytest.mark.parametrize(
    ("name", "rows", "longer"),
    # how often the longer answer is the better one among pairs that are no tie: known of these sets
    [("hh_harmless", 1803, 0.44), ("oasst_zh", 592, 0.76), ("wmt23_zhen", 300, 0.59)],
)
def test_real_sets_prefer_longer_answers_as_often_as_is_known(
    shared_data: Path, name: str, rows: int, longer: float
) -> None:
    path = shared_data / "preferences" / f"{name}.jsonl.xz"
    known = importing.guessed(path)
    found = list(jsonl.read(path, known.row))
    assert len(found) == rows
    pairs = [item for row in found for item in known.pairs(row) if isinstance(item, Pair) and item.strength]
    share = sum(len(pair.better) > len(pair.worse) for pair in pairs) / len(pairs)
    assert share == pytest.approx(longer, abs=0.01)


def test_real_votes_prefer_longer_arguments_as_often_as_is_known(shared_data: Path) -> None:
    path = shared_data / "preferences" / "ukp_convarg.jsonl.xz"
    known = importing.guessed(path)
    pairs = [item for row in jsonl.read(path, known.row) for item in known.pairs(row) if isinstance(item, Pair)]
    decided = [pair for pair in pairs if pair.strength]
    assert len(decided) == 5174 + 5144  # rows whose gold is a2, a1
    share = sum(len(pair.better) > len(pair.worse) for pair in decided) / len(decided)
    assert share == pytest.approx(0.74, abs=0.01)


def test_counts_of_the_real_folder_add_up(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "preferences.jsonl"
    importing.main(importing.ImportSettings(input=str(shared_data / "preferences"), output=str(out)))
    kept = list(jsonl.read(out, PreferencePair))
    removed = list(jsonl.read(tmp_path / "preferences" / "rejected.jsonl", Removal))
    made = 0
    for path in importing.files(shared_data / "preferences"):
        known = importing.guessed(path)
        made += sum(len(list(known.pairs(row))) for row in jsonl.read(path, known.row))
    assert len(kept) + len(removed) == made
    assert len({pair.id for pair in kept}) == len(kept)
    assert len({pair.source for pair in kept}) == 6
