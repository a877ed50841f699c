"""Preferences by passage: the better answer is the passage's own words, the worse one is not; nothing else tells."""

import random
from itertools import pairwise
from pathlib import Path

import pytest

from annotation import by_passage, passages, unfaithful
from annotation.by_passage import MAKER, ByPassageSettings, in_turn, pairs_of
from finlm import jsonl, sentences
from finlm.errors import UserError
from finlm.records import Document, PreferencePair, Removal
from finlm.text_files import documents as read_documents

FILINGS = Path(__file__).parent.parent.parent / "examples" / "filings"
EN = "The company sold 12 ships in March. Rents in Oslo rose by 4.5 percent. It is run by Ada Berg and owned by a fund."
ZH = "公司去年营业收入为四亿二千万元，比上年增长百分之五。管理层预计明年利润将继续上升，但原料价格可能上涨。"


def document(text: str, language: str = "en", source: str = "a.txt") -> Document:
    return Document(text=text, source=source, sha256="0", language=language)


def texts() -> list[str]:
    return [str(path) for path in sorted(FILINGS.glob("*.txt")) + sorted(FILINGS.glob("*.md"))]


def filings() -> list[Document]:
    return [found.record for path in texts() for found in read_documents(path) if not isinstance(found, Removal)]


def settings(**changes: object) -> ByPassageSettings:
    return ByPassageSettings(texts=["x"], **changes)  # type: ignore[arg-type]


def made(**changes: object) -> list[PreferencePair]:
    found = filings()
    each = [settings(shortest=300, longest=900, seed=seed, **changes) for seed in range(8)]
    return [pair for asked in each for passage in in_turn(found, asked) for pair in pairs_of(passage, asked)]


# ---------------------------------------------------------------------------------------------------------- sentences


def test_spans_are_the_sentences_and_leave_white_space_out() -> None:
    text = "  Rents rose.\nMr. Berg left in 2021. \n\n Profit"
    assert [text[begin:end] for begin, end in sentences.spans(text)] == [
        "Rents rose.", "Mr. Berg left in 2021.", "Profit"
    ]  # fmt: skip
    assert sentences.spans(" \n ") == []


@pytest.mark.parametrize("name", ["garnet-mesa-energy-10-k-2024.txt", "copperpan-kitchens-10-q-2025q2.md"])
def test_spans_hold_every_letter_of_a_filing_once(name: str) -> None:
    text = (FILINGS / name).read_text(encoding="utf-8")
    places = sentences.spans(text)
    assert "".join(text[begin:end] for begin, end in places).split() != []
    covered = "".join(text[begin:end] for begin, end in places)
    assert "".join(covered.split()) == "".join(text.split())
    assert all(one[1] <= other[0] for one, other in pairwise(places))


# ----------------------------------------------------------------------------------------------------------- passages


def test_passages_follow_each_other_and_are_as_long_as_asked() -> None:
    for whole in filings():
        found = list(passages.cut(whole, 300, 900, random.Random(1)))
        assert found
        for one, other in pairwise(found):
            assert one.end <= other.start
        for one in found:
            assert one.text == whole.text[one.start : one.end]
            assert len(one.text) >= 300 / (3 if whole.language == "zh" else 1)
            everything = passages.unwrapped(whole.text)
            assert one.said.split() == one.text.split()
            assert all(sentence in one.said for sentence in one.plain)
            # what is written once and outside is not inside
            assert all(sentence not in one.said for sentence in one.outside if everything.count(sentence) == 1)


def test_the_lines_of_a_paragraph_are_one_and_those_of_a_table_are_not() -> None:
    line = "The company sold its last ships to a buyer in Oslo and rented"
    assert passages.unwrapped(f"{line}\nthem back. It\nsails on.") == f"{line} them back. It\nsails on."
    row = "Revenue of all segments, less what they sold to each other   412"
    assert passages.unwrapped(f"{row}\n{row}") == f"{row}\n{row}"
    assert passages.unwrapped(f"{line}\n\nA heading") == f"{line}\n\nA heading"


def test_headings_and_rows_are_no_plain_sentences() -> None:
    assert passages.is_plain("Rents in Oslo rose by 4.5 percent.", "en")
    assert not passages.is_plain("Item 1. Business of the Company", "en")
    assert not passages.is_plain("Revenue rose.", "en")
    assert not passages.is_plain("and sold 12 ships in March of that year.", "en")
    assert passages.is_plain("公司去年营业收入为四亿二千万元，比上年增长。", "zh")
    assert passages.size("四亿二千万元", "zh") == 18


# ------------------------------------------------------------------------------------------------------------- faults


def test_a_name_or_figure_is_exchanged_for_one_of_the_passage() -> None:
    said = [EN[begin:end] for begin, end in sentences.spans(EN)]
    found = {unfaithful.exchanged(said[0], said, random.Random(seed)) for seed in range(20)}
    assert found == {
        "The company sold 4.5 ships in March.", "The company sold 12 ships in Oslo.",
        "The company sold 12 ships in Ada Berg.",
    }  # fmt: skip
    assert unfaithful.exchanged("nothing to change here", said, random.Random(0)) is None


def test_a_sentence_runs_on_as_another_from_a_word_that_both_have() -> None:
    one, other = "The bank was founded by two brothers in Bergen.", "The mill was bought by a fund in the spring."
    found = {unfaithful.spliced(one, [one, other], random.Random(seed)) for seed in range(20)}
    assert found == {
        "The bank was founded by a fund in the spring.", "The bank was founded by two brothers in the spring."
    }  # fmt: skip
    assert unfaithful.spliced(one, [one], random.Random(0)) is None


def test_a_chinese_sentence_runs_on_behind_a_comma() -> None:
    said = [ZH[begin:end] for begin, end in sentences.spans(ZH)]
    assert unfaithful.spliced(said[0], said, random.Random(0)) == "公司去年营业收入为四亿二千万元，但原料价格可能上涨。"


def test_a_sentence_from_elsewhere_is_about_as_long() -> None:
    outside = ["Short one.", "Wages in Bergen fell by 2.5 percent.", "x" * 300]
    assert unfaithful.elsewhere("Rents in Oslo rose by 4.5 percent.", outside, random.Random(0)) == outside[1]
    assert unfaithful.elsewhere("Rents in Oslo rose by 4.5 percent.", [], random.Random(0)) is None


# -------------------------------------------------------------------------------------------------------------- pairs


def test_the_better_answer_of_two_has_more_of_the_passages_own_words() -> None:
    """Held against the passage by a rule that knows nothing of how faults are made: shares of word triples."""
    pairs = made()
    assert len(pairs) > 100

    def share(answer: str, passage: str) -> float:
        words, known = answer.split(), passage.split()
        triples = {tuple(known[at : at + 3]) for at in range(len(known))}
        mine = [tuple(words[at : at + 3]) for at in range(len(words) - 2)]
        return sum(one in triples for one in mine) / max(1, len(mine))

    clear = [pair for pair in pairs if pair.strength == 3 and pair.prompt.language == "en"]
    hits = [share(pair.chosen, pair.prompt.passage) > share(pair.rejected, pair.prompt.passage) for pair in clear]
    assert sum(hits) / len(hits) > 0.9
    assert {pair.rejected_fault for pair in pairs} == {"exchanged", "spliced", "elsewhere"}


def test_length_tells_nothing() -> None:
    pairs = made(answers=6)
    longer = [len(pair.chosen) > len(pair.rejected) for pair in pairs if len(pair.chosen) != len(pair.rejected)]
    assert 0.4 < sum(longer) / len(longer) < 0.6


def test_a_pair_names_its_maker_and_the_place_of_its_passage() -> None:
    by_id = {one.id: one for one in filings()}
    for pair in made():
        assert pair.provenance is not None
        assert (pair.source, pair.provenance.maker, pair.votes) == (MAKER, MAKER, ())
        whole = by_id[pair.provenance.document_id]
        assert pair.prompt.passage == whole.text[pair.provenance.start : pair.provenance.end]
        assert pair.prompt.group == whole.source


def test_the_same_seed_makes_the_same_and_documents_take_turns(tmp_path: Path) -> None:
    def run(name: str, **changes: int) -> list[PreferencePair]:
        out = tmp_path / f"{name}.jsonl"
        by_passage.main(ByPassageSettings(texts=texts(), output=str(out), shortest=300, longest=600, **changes))
        return list(jsonl.read(out, PreferencePair))

    one = run("one", passages=4)
    assert one == run("same", passages=4)
    assert one != run("other", passages=4, seed=1)
    assert len({pair.prompt.id for pair in one}) == 4
    first = [passage.document.id for passage, _ in zip(in_turn(filings(), settings()), filings(), strict=False)]
    assert len(set(first)) == len(filings())


def test_what_is_no_text_in_english_or_chinese_is_kept_with_its_rule(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": ""}\n{"id": 1}\n' + f'{{"text": "{EN} {EN.upper()}"}}\n', encoding="utf-8")
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(UserError, match=r"gave no pair: none of 1 documents .* has 600 letters with 3 whole sentences"):
        by_passage.main(ByPassageSettings(texts=[str(path)], output=str(out)))
    _, removals = by_passage.read([str(path)])
    assert [one.rule for one in removals] == ["empty", "no-text"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"texts": []}, "texts is empty"),
        ({"shortest": 9, "longest": 8}, "0 < shortest <= longest"),
        ({"answers": 1}, "answers is 1"),
        ({"faults": 0}, "faults is 0"),
    ],
)
def test_settings_that_make_no_pair_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ByPassageSettings(**({"texts": ["x"]} | changes))  # type: ignore[arg-type]
