"""The four streams of mixed fine-tuning: files read, encoded once, split into training and held out.

Encoded files lie below `cache`, named by what made them: the file's content, the tokenizer, the lengths. A file that
changes is encoded anew; one that does not costs nothing the next time.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import overload

from transformers import PreTrainedTokenizerBase

from finlm import data, encoding, instruction_files, runs, text_files, token_store
from finlm.drawing import Picked
from finlm.errors import UserError
from finlm.progress import bar
from finlm.records import Category, Removal, content_id
from finlm.samples import Row, Sample
from finlm.sft_records import STREAMS, StreamName, is_text
from finlm.token_store import TokenStore
from finlm.tokenizer import tokenizer_fingerprint

FORMAT = 1
"""Of the encoded files; raised when equal files would be encoded otherwise."""
WAYS_OUT = {
    "too-long": "raise {}max_length",
    "other-form": "change {}forms",
    "over-limit": "lower {}test_share",
    "held-out": "lower {}test_share",
}
"""What lets records through that a rule sets aside."""


class Stream(Sequence[Sample]):
    """Some samples of several stores, in order."""

    def __init__(self, places: Sequence[tuple[TokenStore, int]]) -> None:
        self._places = places

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Stream": ...
    def __getitem__(self, index: int | slice) -> "Sample | Stream":
        """Return one sample, or some as a stream."""
        if isinstance(index, slice):
            return Stream(self._places[index])
        store, place = self._places[index]
        return store[place]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._places)


@dataclass(frozen=True, slots=True)
class Streams:
    """What there is to train on and to test on, and what was set aside.

    Example:
        Streams(train={"text-general": Stream(…)}, held_out={"text-general": Stream(…)}, removals=[])
    """

    train: dict[str, Stream]
    held_out: dict[str, Stream]
    removals: list[Removal]
    rules: dict[str, Counter[str]] = field(default_factory=dict)
    """How many records of each stream were set aside by each rule."""


def load(
    files: Mapping[StreamName, Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    forms: Collection[str],
    test_share: float,
    test_samples: int,
    cache: Path,
) -> Streams:
    """Read and encode the files of every stream, and split them.

    Args:
        files: Files of each stream.
        tokenizer: The tokenizer.
        max_length: Tokens of a sample at most.
        forms: Forms of instructions to use.
        test_share: Share of groups (companies, questions, documents) held out.
        test_samples: Held-out samples of a stream at most; further ones are set aside and counted: `over-limit`, or
            `held-out` where none is wanted.
        cache: Folder of the encoded files.
    """
    train: dict[str, Stream] = {}
    held_out: dict[str, Stream] = {}
    aside: dict[StreamName, list[Removal]] = {stream: [] for stream in STREAMS}
    seen: set[str] = set()
    encode = partial(encoded, tokenizer=tokenizer, max_length=max_length, forms=forms, cache=cache)
    stores = _read({stream: files.get(stream, ()) for stream in STREAMS}, encode)
    for stream, removals in aside.items():
        learned: list[tuple[TokenStore, int]] = []
        tested: list[tuple[TokenStore, int]] = []
        for store in stores[stream]:
            removals += store.removals
            for place, note in enumerate(store.notes):
                if note.record_id in seen:
                    reason = f"{note.place}: there was an equal one before"
                    removals.append(Removal(record_id=note.record_id, rule="duplicate", reason=reason))
                    continue
                seen.add(note.record_id)
                (tested if data.is_test_group(note.group, test_share=test_share) else learned).append((store, place))
        chosen = evenly(len(tested), test_samples)
        rule = "over-limit" if test_samples else "held-out"
        reason = f"held out, and {test_samples or 'no'} held-out samples of {stream} are tested on"
        removals += [
            Removal(record_id=store.notes[place].record_id, rule=rule, reason=reason)
            for number, (store, place) in enumerate(tested)
            if number not in chosen
        ]
        train[stream], held_out[stream] = Stream(learned), Stream([tested[number] for number in sorted(chosen)])
    rules: dict[str, Counter[str]] = {stream: Counter(one.rule for one in its) for stream, its in aside.items()}
    return Streams(train, held_out, [one for its in aside.values() for one in its], rules)


def _read(
    files: Mapping[StreamName, Sequence[str]], encode: Callable[[Path, StreamName], TokenStore]
) -> dict[StreamName, list[TokenStore]]:
    """Encode every file, with a bar: a new one of ten million tokens takes half a minute."""
    stores: dict[StreamName, list[TokenStore]] = {stream: [] for stream in files}
    with bar(is_shown=os.environ.get("RANK", "0") == "0") as shown:  # other processes read what the first encoded
        task = shown.add_task("Reading", total=sum(map(len, files.values())), note="")
        for stream, its in files.items():
            for path in its:
                shown.update(task, note=Path(path).name)
                stores[stream].append(encode(Path(path), stream))
                shown.advance(task)
        shown.update(task, note="")
    return stores


def evenly(count: int, most: int) -> set[int]:
    """Return `most` places among `count`, or all, spread evenly: every file of a stream is tested on."""
    return set(range(count)) if count <= most else {place * count // most for place in range(most)}


def encoded(
    path: Path,
    stream: StreamName,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    forms: Collection[str],
    cache: Path,
) -> TokenStore:
    """Return a file's samples, encoded now or at an earlier time."""
    made_of = [FORMAT, path.name, runs.fingerprint(path), tokenizer_fingerprint(tokenizer), stream, max_length]
    folder = cache / content_id(*made_of, [] if is_text(stream) else sorted(forms))
    if runs.damage(folder) is None:
        return TokenStore(folder, stream)
    with _alone(cache):
        if runs.damage(folder) is None:  # another run has made it meanwhile
            return TokenStore(folder, stream)
        category: Category = "finance" if stream.endswith("finance") else "general"
        if is_text(stream):
            by_piece = text_files.is_one_document(path)
            found = text_files.documents(path)
            made = encoding.documents(found, tokenizer, stream, max_length=max_length, by_piece=by_piece)
        else:
            talks = instruction_files.conversations(path, category=category)
            made = encoding.conversations(talks, tokenizer, stream, max_length=max_length, forms=forms)
        token_store.write(folder, made)
    return TokenStore(folder, stream)


def rows_of(streams: Mapping[str, Sequence[Sample]], drawn: Sequence[Sequence[Picked]]) -> list[Row]:
    """Return the rows that were drawn."""
    return [Row(tuple(streams[one.stream][one.place] for one in row)) for row in drawn]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes below a folder; one that is killed lets the others go on."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_shares(shares: Mapping[str, float], files: Mapping[StreamName, Sequence[str]]) -> None:
    """Refuse shares that cannot be drawn.

    Raises:
        ValueError: A share is negative, they do not sum to 1, or a stream has a share and no files.
    """
    for name, share in shares.items():
        if share < 0:
            raise ValueError(f"the share of {name} is {share}; it must be 0 or more.")
        if share > 0 and not files.get(name):  # type: ignore[call-overload]
            raise ValueError(f"{name} has a share of {share} and no files; name some, or set its share to 0.")
    if abs(sum(shares.values()) - 1) > 1e-6:
        told = ", ".join(f"{name} {share}" for name, share in shares.items())
        raise ValueError(f"the shares of the streams sum to {sum(shares.values()):.4f}, not 1: {told}.")


def require_samples(
    shares: Mapping[str, float], streams: Streams, *, called: Mapping[str, str] | None = None, prefix: str = ""
) -> None:
    """Refuse a stream with a share whose files gave nothing to train on.

    Args:
        shares: Share of each stream.
        streams: What was read.
        called: What a stream is called in the message, if not by its name.
        prefix: Of the settings' names in the message.

    Raises:
        UserError: There is such a stream.
    """
    for name, share in shares.items():
        if share > 0 and not len(streams.train.get(name, ())):
            rules = Counter(streams.rules.get(name)) + Counter({"held-out": len(streams.held_out.get(name, ()))})
            counts = [f"{count:,} {rule}" for rule, count in sorted(rules.items())]
            ways = dict.fromkeys(way.format(prefix) for rule, way in WAYS_OUT.items() if rules[rule])
            told = (called or {}).get(name, name)
            raise UserError(
                f"{told} has a share of {share} and no samples to train on (what its files gave: "
                f"{', '.join(counts) or 'nothing'}); {', '.join(ways) or 'give other files'}, or set its share to 0."
            )
