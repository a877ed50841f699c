"""Records to samples: conversations and documents as token ids, many at a time.

What comes out is what `finlm.chat_format` gives for one conversation; a tokenizer is several times as fast on many
texts as on one. A conversation that is longer than a row is set aside, a document continues in further samples, cut at
the ends of sentences.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from finlm import chat_format
from finlm.records import Conversation, Document, Removal, content_id
from finlm.row_files import Found
from finlm.samples import Sample
from finlm.sentences import cuts
from finlm.sft_records import StreamName

T = TypeVar("T")

BATCH = 256


def conversations(
    found: Iterable[Found[Conversation] | Removal],
    tokenizer: PreTrainedTokenizerBase,
    stream: StreamName,
    *,
    max_length: int,
    forms: Collection[str],
) -> Iterator[tuple[Sample, str] | Removal]:
    """Encode conversations; the assistant's turns are learned, with their end tokens.

    Args:
        found: What a reader gives; removals are handed on.
        tokenizer: The tokenizer.
        stream: The stream that they belong to.
        max_length: Tokens at most; longer conversations are removed.
        forms: Forms to use; others are removed.

    Yields:
        A sample and the group that decides whether it is held out, or a removal.
    """
    for batch in _batches(found, BATCH):
        kept = [one for one in batch if not isinstance(one, Removal) and one.record.form in forms]
        segments = [chat_format.segments(one.record.messages, eos_token="") for one in kept]
        ids = iter(_plain_ids(tokenizer, [text for its in segments for text, _ in its]))
        for one in batch:
            if isinstance(one, Removal):
                yield one
            elif one.record.form not in forms:
                reason = f"{one.place}: its form is {one.record.form!r}, forms are {list(forms)}"
                yield Removal(record_id=one.record.id, rule="other-form", reason=reason)
        for one, its in zip(kept, segments, strict=True):
            record, place = one.record, one.place
            pieces, masks = [], []
            for _, learns in its:
                piece = [*next(ids), *([tokenizer.eos_token_id] if learns else [])]
                pieces += piece
                masks += [learns] * len(piece)
            if len(pieces) > max_length:
                reason = f"{place}: {len(pieces)} tokens, the limit is {max_length}"
                yield Removal(record_id=record.id, rule="too-long", reason=reason)
                continue
            yield _sample(stream, pieces, masks, record.id, record.language, place), record.group or record.id


def documents(
    found: Iterable[Found[Document] | Removal],
    tokenizer: PreTrainedTokenizerBase,
    stream: StreamName,
    *,
    max_length: int,
    by_piece: bool = False,
) -> Iterator[tuple[Sample, str] | Removal]:
    """Encode documents; every token is learned, and the end token closes a document's last piece.

    A piece is held out with its document: with the company that it is about, where it says so.

    Args:
        found: What a reader gives; removals are handed on.
        tokenizer: A fast one.
        stream: The stream that they belong to.
        max_length: Tokens of a piece at most.
        by_piece: True lets each piece be held out for itself: of a file that is one document.

    Yields:
        A sample and its group, or a removal.
    """
    for batch in _batches(found, 16):
        yield from (one for one in batch if isinstance(one, Removal))
        kept = [one for one in batch if not isinstance(one, Removal)]
        if not kept:
            continue
        encoded = tokenizer(
            [one.record.text for one in kept],
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        for one, ids, offsets in zip(kept, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            record = one.record
            for start, stop in pairwise(
                [0, *(cut.token for cut in cuts(record.text, [at for at, _ in offsets], max_length - 1)), len(ids)]
            ):
                piece = ids[start:stop]
                if stop == len(ids):
                    piece = [*piece, tokenizer.eos_token_id]
                name = content_id(record.id, start)
                group = name if by_piece else record.entity or record.id
                yield _sample(stream, piece, [True] * len(piece), name, record.language, one.place), group


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    if not texts:  # which a fast tokenizer cannot take
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)[
        "input_ids"
    ]
    return ids


def _sample(
    stream: StreamName, ids: Sequence[int], learns: Sequence[bool], record_id: str, language: str, place: str
) -> Sample:
    is_learned: Any = np.asarray(learns, dtype=np.bool_)
    is_learned[0] = False
    return Sample(stream, np.asarray(ids, dtype=np.int32), is_learned, record_id, language, place)
