"""The files of a folder, any depth: links are followed, but not in circles, and what cannot be opened is named."""

import os
from collections.abc import Iterator
from pathlib import Path

from finlm.errors import MissingInput, UserError
from selfqa.formats.kinds import KINDS
from selfqa.unread import Unread


def corpus_files(corpus: Path) -> tuple[list[Path], list[Unread]]:
    """Return the files below `corpus` that can be read, sorted by path, and what cannot be.

    Passed over without a word: names that begin with a dot, and what Office locks a file with (`~$`).

    Raises:
        MissingInput: There is no such folder.
        UserError: It holds no file of a known kind.
    """
    if not corpus.exists():
        raise MissingInput(f"--corpus {corpus}: no such folder; name the folder that your filings lie in.")
    if corpus.is_file():
        raise UserError(f"--corpus {corpus} is a file; name the folder that it lies in.")
    known: list[Path] = []
    unread: list[Unread] = []
    for found in _walk(corpus, corpus, frozenset()):
        if isinstance(found, Unread):
            unread.append(found)
        else:
            known.append(found)
    if not known:
        told = "".join(f"; {item.reason}" for item in unread[:3])
        raise UserError(f"--corpus {corpus} holds no filing: none of its files ends in {', '.join(KINDS)}{told}.")
    order = sorted(known, key=lambda path: path.relative_to(corpus).parts)
    return order, sorted(unread, key=lambda item: item.path)


def _walk(folder: Path, corpus: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path | Unread]:
    """Yield what a folder holds; `above` are the folders that it lies in, by device and inode."""
    name = folder.relative_to(corpus).as_posix()
    try:
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in above:
            yield Unread(name, "link-loop", f"{name} links to a folder that it lies in; it is read once")
            return
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield Unread(name, "no-permission", f"{name} cannot be opened ({error.strerror}); its files are left out")
        return
    for entry in entries:
        if entry.name.startswith((".", "~$")):
            continue
        path = Path(entry.path)
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself
            is_folder = False
        if is_folder:
            yield from _walk(path, corpus, above | {(here.st_dev, here.st_ino)})
        else:
            yield _file(path, path.relative_to(corpus).as_posix())


def _file(path: Path, name: str) -> Path | Unread:
    if not path.is_file():
        if path.is_symlink():
            return Unread(name, "broken-link", f"{name} is a link that leads nowhere")
        return Unread(name, "unknown-kind", f"{name} is no ordinary file")
    if path.suffix.lower() not in KINDS:
        return Unread(name, "unknown-kind", f"{name} is of no known kind; known are {', '.join(KINDS)}")
    return path
