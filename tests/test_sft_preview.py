"""The preview shows what is learned, whole characters and all, and nothing in a text steers the terminal."""

import io
import re

import numpy as np
import pytest
from rich.console import Console
from tiny import Tiny
from transformers import PreTrainedTokenizerBase

from finlm import chat_format
from finlm.records import Message
from finlm.samples import Row, Sample
from finlm.sft_preview import Piece, marked, pieces, preview, shortened
from finlm.sft_records import StreamName
from finlm.tokenizer import load_tokenizer

ATTACK = "[red]<script>alert(1)</script>[/red] \x1b[2J\u202e </s>"


@pytest.fixture(scope="module")
def tokenizer(tiny: Tiny) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny.base)


def conversation(
    tokenizer: PreTrainedTokenizerBase,
    *turns: str,
    stream: StreamName = "instructions-finance",
    place: str = "a.jsonl:7",
) -> Sample:
    """Questions and answers in turn."""
    messages = [Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(turns)]
    encoded = chat_format.encode(tokenizer, messages)
    return sample(encoded.ids, encoded.is_answer, stream, place)


def document(tokenizer: PreTrainedTokenizerBase, text: str, place: str = "b.txt:3") -> Sample:
    ids = chat_format.plain_ids(tokenizer, text)
    return sample(ids, [False, *[True] * (len(ids) - 1)], "text-general", place)


def sample(ids: object, is_learned: object, stream: StreamName, place: str) -> Sample:
    return Sample(
        stream=stream,
        ids=np.array(ids, np.int32),
        is_learned=np.array(is_learned, np.bool_),
        record_id="0" * 16,
        language="en",
        place=place,
    )


def shown(rows: list[Row], tokenizer: PreTrainedTokenizerBase, colour: bool = False, **flags: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=colour, color_system="truecolor" if colour else None)
    preview(rows, tokenizer, console, **{"count": 3, **flags})  # type: ignore[arg-type]
    return out.getvalue()


def test_answers_are_learned_with_their_end_and_questions_are_not(tokenizer: PreTrainedTokenizerBase) -> None:
    found = pieces(conversation(tokenizer, "Why?", "So.", "And?", "No."), tokenizer)
    assert found == [
        Piece(" Human: Why? Assistant:", "prompt"),
        Piece(" So.", "learned"),
        Piece("</s>", "learned", is_special=True),
        Piece("Human: And? Assistant:", "prompt"),
        Piece(" No.", "learned"),
        Piece("</s>", "learned", is_special=True),
    ]
    assert marked(found, has_colour=False).plain == (
        " Human: Why? Assistant:⟦ So.⏎</s>⟧Human: And? Assistant:⟦ No.⏎</s>⟧"
    )


def test_an_end_that_a_person_wrote_is_no_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    found = pieces(conversation(tokenizer, "What is </s>?", "An </s>."), tokenizer)
    assert marked(found, has_colour=False).plain == " Human: What is </s>? Assistant:⟦ An </s>.⏎</s>⟧"


def test_characters_of_several_tokens_stay_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "净利润增长7.4%。🙂"
    whole = document(tokenizer, text)
    assert len(whole) > len(text)  # the vocabulary knows no Chinese: bytes
    # the first token is a third of the first character, whose other two are learned
    assert pieces(whole, tokenizer) == [Piece(text, "learned")]


@pytest.mark.parametrize("cut", range(1, 9))
@pytest.mark.parametrize("learns_first", [True, False])
def test_a_mask_that_changes_within_a_character_takes_it_whole(
    tokenizer: PreTrainedTokenizerBase, cut: int, learns_first: bool
) -> None:
    ids = chat_format.plain_ids(tokenizer, "净利润")
    assert len(ids) == 9  # three bytes each
    is_learned = [(place < cut) == learns_first for place in range(9)]
    found = pieces(sample(ids, is_learned, "text-general", "x"), tokenizer)
    # learned before the cut: characters begun by then; learned after it: those that end after it
    split = -(-cut // 3) if learns_first else cut // 3
    first, second = ("learned", "prompt") if learns_first else ("prompt", "learned")
    expected = [Piece("净利润"[:split], first), Piece("净利润"[split:], second)]  # type: ignore[arg-type]
    assert found == [piece for piece in expected if piece.text]


def test_a_replacement_character_in_the_data_moves_no_border(tokenizer: PreTrainedTokenizerBase) -> None:
    found = pieces(conversation(tokenizer, "Is it �", "� it is �"), tokenizer)
    assert [piece.text for piece in found] == [" Human: Is it � Assistant:", " � it is �", "</s>"]
    ids = chat_format.plain_ids(tokenizer, "ab�cd")
    mask = [place >= len(ids) - 2 for place in range(len(ids))]
    split = pieces(sample(ids, mask, "text-general", "x"), tokenizer)
    assert "".join(piece.text for piece in split) == "ab�cd"
    assert split[-1].text == "cd"


def test_rows_are_shown_with_their_figures(tokenizer: PreTrainedTokenizerBase) -> None:
    first = conversation(tokenizer, "Why?", "So.")
    second = document(tokenizer, "Revenue grew.", place="folder/b.txt:3")
    row = Row(samples=(first, second))
    said = shown([row, row], tokenizer, row_tokens=2 * len(row))
    told = f"{len(row)} tokens of {2 * len(row)}, 50.0% filled  ·  2 samples  ·  text-general {len(second)}"
    told += f"  ·  instructions-finance {len(first)}  ·  {first.learned + len(second) - 1} learned"
    assert f"row 1 of 2  {told}" in said
    assert f"row 2 of 2  {told}" in said
    assert f"1/2  ·  a.jsonl:7  ·  instructions-finance  ·  en  ·  {len(first)} tokens" in said
    assert f"2/2  ·  folder/b.txt:3  ·  text-general  ·  en  ·  {len(second)} tokens" in said
    assert said.count("prompt, no loss") == 1  # the legend, once
    assert said.count("╭") == said.count("╰") == 4
    assert "Human: Why? Assistant:⟦ So.⏎</s>⟧" in said
    assert "filled" not in shown([row], tokenizer)
    assert shown([row, row], tokenizer, count=1).count("row 1 of 1") == 1
    assert "No row was packed" in shown([], tokenizer)


def test_text_is_never_markup_and_steers_no_terminal(tokenizer: PreTrainedTokenizerBase) -> None:
    row = Row(samples=(conversation(tokenizer, ATTACK, ATTACK, place="[red]\x1b[2J.jsonl:1"),))
    for colour in (False, True):
        said = shown([row], tokenizer, colour=colour)
        assert "\x1b[2J" not in said
        assert "\u202e" not in said
        assert said.count("[red]<script>alert(1)</script>[/red] ␛[2J� </s>") == 2
        assert "[red]␛[2J.jsonl:1" in said


def test_colours_are_used_where_there_are_some(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row(samples=(conversation(tokenizer, "Why?", "So."),))
    said = shown([row], tokenizer, colour=True)
    assert "⟦" not in said
    assert "\x1b[32m So.\x1b[0m" in said  # green
    assert "\x1b[2m Human: Why? Assistant:\x1b[0m" in said  # dim
    assert re.search(r"\x1b\[1;7;32m⏎</s>\x1b\[0m", said)  # bold, reversed, green
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    preview([row], tokenizer, Console(file=out, width=400, force_terminal=True), count=1)
    assert "\x1b[32m" not in out.getvalue()
    assert "⟦" in out.getvalue()


def test_a_long_sample_loses_its_middle_and_keeps_its_end(tokenizer: PreTrainedTokenizerBase) -> None:
    row = Row(samples=(conversation(tokenizer, "word " * 600 + "Why?", "So it is."),))
    said = shown([row], tokenizer)
    assert "Human: word" in said
    assert "⟦ So it is.⏎</s>⟧" in said
    # " Human: " 8, 600 words of 5, "Why?" 4, " Assistant:" 11, " So it is." 10, "</s>" 4; 1,200 of them are shown
    assert f"{8 + 3000 + 4 + 11 + 10 + 4 - 1200:,} characters left out, 0 of them learned" in said
    whole = shown([row], tokenizer, full=True)
    assert whole.count("word") == 600
    assert "left out" not in whole


def test_what_is_left_out_and_what_is_shown_is_all_there_was() -> None:
    found = [Piece("a" * 30, "prompt"), Piece("b" * 30, "learned"), Piece("</s>", "learned", is_special=True)]
    assert shortened(found, 52) == found  # 64 characters are at most a quarter more
    cut = shortened(found, 20)
    assert cut == [
        Piece("a" * 10, "prompt"),
        Piece(" … 44 characters left out, 24 of them learned … ", "omitted"),
        Piece("b" * 6, "learned"),
        Piece("</s>", "learned", is_special=True),
    ]
