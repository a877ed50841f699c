"""Packed rows in the terminal, so that a person sees what is learned: learned tokens in green, the rest dim."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import Literal

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from finlm.rollout_files import visible
from finlm.samples import Row, Sample
from finlm.sft_records import STREAMS

SHOWN = 1200
"""Characters of a sample that are shown unless `full` is set: half of them from its beginning, half from its end."""
END = "⏎"
"""Stands before a special token: the letters `</s>` in a text, which are no end, come without it."""
STYLES = {"learned": "green", "prompt": "dim", "omitted": "yellow"}
SPECIAL = "bold reverse"


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters of a sample that are shown alike.

    Example:
        Piece(text=" Revenue was $1.", kind="learned")
    """

    text: str
    kind: Literal["learned", "prompt", "omitted"]
    """Learned: every token of it has a loss. Omitted: says what was left out."""
    is_special: bool = False
    """True if it is one special token, as an id and not as letters."""


def preview(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    console: Console,
    *,
    count: int,
    row_tokens: int | None = None,
    full: bool = False,
) -> None:
    """Print the first packed rows, each sample in a frame of its own.

    Args:
        rows: Packed rows.
        tokenizer: What the ids are decoded with.
        console: Where to print; without colour, learned tokens stand in ⟦ ⟧.
        count: Rows to print at most.
        row_tokens: Room of a row, tokens; without it, how full a row is goes unsaid.
        full: Print long samples whole.
    """
    has_colour = console.color_system is not None and not console.no_color
    shown = rows[:count]
    console.print(_legend(str(tokenizer.eos_token), has_colour))
    for number, row in enumerate(shown, 1):
        console.print()
        console.print(_row_line(row, f"row {number} of {len(shown)}", row_tokens))
        for place, sample in enumerate(row.samples, 1):
            found = pieces(sample, tokenizer)
            body = marked(found if full else shortened(found), has_colour)
            head = Text(_sample_line(sample, f"{place}/{len(row.samples)}"), "bold", overflow="fold")
            console.print(Panel(Group(head, body), border_style="dim"))
    if not shown:
        console.print("No row was packed.")


def pieces(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
    """Return a sample's text in pieces, cut where the mask changes and around special tokens.

    A character may be several tokens (a Chinese one often is three); where the mask changes within one, it counts as
    learned. The text is decoded from its beginning to each cut: a piece decoded alone would lose its leading space in a
    SentencePiece vocabulary.
    """
    ids = sample.ids.tolist()
    special = set(tokenizer.all_special_ids)
    kinds = [
        (bool(learns), place if token in special else None)
        for place, (token, learns) in enumerate(zip(ids, sample.is_learned.tolist(), strict=True))
    ]
    whole = _decoded(tokenizer, ids)
    made = []
    start = offset = 0
    for (is_learned, special_at), group in groupby(kinds):
        start += len(list(group))
        end = (
            len(whole) if start == len(ids) else max(offset, _cut(whole, _decoded(tokenizer, ids[:start]), is_learned))
        )
        text = whole[offset:end]
        if text:
            made.append(Piece(text, "learned" if is_learned else "prompt", special_at is not None))
        offset = end
    return made


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _cut(whole: str, before: str, was_learned: bool) -> int:
    """Where the text `before` a cut ends within the whole; a character that is cut in two goes to the learned side."""
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, before, strict=False)))
    return common + (was_learned and common < len(before))


def shortened(found: Sequence[Piece], limit: int = SHOWN) -> list[Piece]:
    """Return the pieces without the middle of a text of more than `limit` characters, and a piece that says so."""
    length = sum(len(piece.text) for piece in found)
    # what is left out should be longer than the words that say so
    if length <= limit + limit // 4:
        return list(found)
    first, last = limit // 2, length - limit // 2
    learned = sum(len(piece.text) for piece in _between(found, first, last) if piece.kind == "learned")
    told = Piece(f" … {last - first:,} characters left out, {learned:,} of them learned … ", "omitted")
    return [*_between(found, 0, first), told, *_between(found, last, length)]


def _between(found: Sequence[Piece], start: int, end: int) -> Iterator[Piece]:
    offset = 0
    for piece in found:
        text = piece.text[max(0, start - offset) : max(0, end - offset)]
        offset += len(piece.text)
        if text:
            yield replace(piece, text=text)


def marked(found: Sequence[Piece], has_colour: bool) -> Text:
    """Return the pieces as one text, whose markup and control characters are signs like any other."""
    made = Text(overflow="fold")
    for kind, group in groupby(found, key=lambda piece: piece.kind):
        is_bracketed = kind == "learned" and not has_colour
        made.append("⟦" if is_bracketed else "")
        for piece in group:
            style = f"{STYLES[kind]} {SPECIAL}" if piece.is_special else STYLES[kind]
            made.append((END if piece.is_special else "") + visible(piece.text), style)
        made.append("⟧" if is_bracketed else "")
    return made


def _legend(end_token: str, has_colour: bool) -> Text:
    samples = (
        Piece("learned", "learned"),
        Piece("prompt, no loss", "prompt"),
        Piece(end_token, "learned", is_special=True),
    )
    made = Text.assemble(*[part for one in samples for part in (marked([one], has_colour), "   ")])
    return made.append(
        "end token, an id of its own: its letters in a text are no end. The first token of each sample has no loss; "
        "a character of several tokens counts as learned if one of them is."
    )


def _row_line(row: Row, name: str, row_tokens: int | None) -> Text:
    streams: Counter[str] = Counter()
    for sample in row.samples:
        streams[sample.stream] += len(sample)
    learned = sum(sample.learned for sample in row.samples)
    room = f"{len(row):,} tokens" + (
        f" of {row_tokens:,}, {len(row) / row_tokens:.1%} filled" if row_tokens is not None else ""
    )
    figures = (
        room,
        f"{len(row.samples)} sample{'' if len(row.samples) == 1 else 's'}",
        *(f"{stream} {streams[stream]:,}" for stream in STREAMS if stream in streams),
        f"{learned:,} learned",
    )
    return Text.assemble((name, "bold"), "  ", "  ·  ".join(figures))


def _sample_line(sample: Sample, number: str) -> str:
    parts = (number, sample.place, sample.stream, sample.language or "no language", f"{len(sample):,} tokens")
    return visible("  ·  ".join((*parts, f"{sample.learned:,} learned")))
