"""What benchmarks ask, so that no training question is one of theirs: shared runs of words or characters."""

import csv
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finlm.errors import MissingInput
from finlm.figures import narrow

WORDS = 10
"""Words in a row that make an English question a benchmark's (of a shorter text, all)."""
CHARACTERS = 20
"""Characters in a row, marks apart, of a Chinese one."""
LEAST = 6
"""A benchmark's text with fewer words (or twice as many characters) is no question."""


class Contamination:
    """The runs of words of all texts below a folder of benchmark files."""

    def __init__(self) -> None:
        self._runs: dict[int, str] = {}
        self.files = 0
        self.texts = 0

    @classmethod
    def read(cls, folder: Path) -> "Contamination":
        """Read every .json, .jsonl, .csv, .tsv and .txt below a folder, in .gz, .xz, .zip and .tar.xz as well.

        Raises:
            MissingInput: There is no such folder.
        """
        if not folder.is_dir():
            raise missing_benchmarks(folder)
        made = cls()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            for name, raw in _members(path):
                texts = list(_texts(name, raw))
                made.files += bool(texts)
                for text in texts:
                    made.add(text, path.relative_to(folder).as_posix())
        return made

    def add(self, text: str, source: str) -> None:
        """Add a text of a benchmark."""
        pieces = _pieces(text)
        if len(pieces) >= (2 * LEAST if _is_chinese(text) else LEAST):
            self.texts += 1
            for run in _runs(pieces, _size(text)):
                self._runs.setdefault(run, source)

    def source_of(self, text: str) -> str:
        """Return the benchmark file that a text shares a run with, an empty string if none."""
        runs = _runs(_pieces(text), _size(text))
        return next((self._runs[run] for run in runs if run in self._runs), "")


def missing_benchmarks(folder: Path) -> MissingInput:
    """Return the error of a folder that is not there."""
    return MissingInput(f"--benchmarks {folder}: no such folder; name the one that the benchmark files lie in.")


def _is_chinese(text: str) -> bool:
    return len(re.findall(r"[一-鿿]", text)) * 4 > len(text)


def _size(text: str) -> int:
    return CHARACTERS if _is_chinese(text) else WORDS


def _pieces(text: str) -> list[str]:
    plain = narrow(text).lower()
    return re.findall(r"[一-鿿]|[a-z0-9]", plain) if _is_chinese(text) else re.findall(r"[a-z0-9]+", plain)


def _runs(pieces: list[str], size: int) -> Iterator[int]:
    for at in range(max(1, len(pieces) - size + 1)):
        yield hash(" ".join(pieces[at : at + size]))


# ---------------------------------------------------------------------------------------------- files


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of a file, or of the files packed in it."""
    name = path.name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as packed:
            yield from ((member, packed.read(member)) for member in packed.namelist() if not member.endswith("/"))
    elif name.endswith((".tar.xz", ".tar.gz", ".tgz")):
        with tarfile.open(path) as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isfile() else None
                if content is not None:
                    yield entry.name, content.read()
    elif name.endswith(".gz"):
        yield name.removesuffix(".gz"), gzip.decompress(path.read_bytes())
    elif name.endswith(".xz"):
        yield name.removesuffix(".xz"), lzma.decompress(path.read_bytes())
    else:
        yield name, path.read_bytes()


def _texts(name: str, raw: bytes) -> Iterator[str]:
    text = raw.decode("utf-8", errors="replace")
    if name.endswith((".json", ".jsonl")):
        try:
            yield from _strings(json.loads(text))
        except json.JSONDecodeError:
            for line in text.splitlines():
                try:
                    yield from _strings(json.loads(line))
                except json.JSONDecodeError:
                    continue  # a damaged line holds no question
    elif name.endswith((".csv", ".tsv")):
        rows = csv.reader(io.StringIO(text), delimiter="\t" if name.endswith(".tsv") else ",")
        yield from (cell for row in rows for cell in row)
    elif name.endswith((".txt", ".md")):
        yield from text.splitlines()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
