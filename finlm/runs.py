"""Run folders: every stage writes one, and a killed stage finds it again.

    runs/<stage>/
        run.json      stage, status, inputs with their hashes, versions, seconds, counts
        config.yaml   the resolved configuration
        …             what the stage makes

Whatever must be whole is written aside, synced and renamed: `write_text` for a file, `whole_folder` for a folder, whose
`manifest.json` lets `damage` tell a truncated or altered copy from a good one.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from finlm.errors import MissingInput, UserError

MANIFEST = "manifest.json"
STATE = "run.json"
CONFIG = "config.yaml"
ASIDE = (".tmp", ".writing", ".old", ".deleted")
"""Endings of the hidden names under which things are written or deleted; a killed process may leave them."""
EXPORTS = ("model", "policy")
"""What a run that trains makes at its end, and answers for from then on."""
VERSIONED = ("finlm", "torch", "transformers", "trl", "peft", "accelerate", "tokenizers")


# ---------------------------------------------------------------------------------------------- whole or not there


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file that is whole or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with aside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(aside, path)
    _sync_folder(path.parent)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextlib.contextmanager
def whole_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder aside to write into; on leaving, seal it with a manifest and rename it to `folder`.

    An earlier `folder` is replaced only after the new one is whole. On an error nothing of `folder` changes.
    """
    folder = Path(folder)
    aside = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        seal(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    replace_folder(aside, folder)


def seal(folder: Path) -> None:
    """Write the manifest of `folder` (size and SHA-256 of every file) and sync all of it to disk."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            entries[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    write_json(folder / MANIFEST, entries)
    _sync_folder(folder)


def replace_folder(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`, setting an earlier `folder` aside until the new one is in place."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    _sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def delete_folder(folder: Path) -> None:
    """Delete a folder; killed meanwhile, nothing of it stands under its own name."""
    aside = folder.with_name(f".{folder.name}.deleted")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)
    shutil.rmtree(aside)


def damage(folder: str | os.PathLike[str]) -> str | None:
    """Return what is wrong with a sealed folder, or None if every file is as it was written."""
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return f"{folder} has no {MANIFEST}: it was not written to its end"
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        written = {folder / name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{folder / MANIFEST} is not what was written ({type(error).__name__}: {error})"
    for path, (size, digest) in written.items():
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes, {size} were written"
        if file_hash(path) != digest:
            return f"{path} is not what was written (its SHA-256 differs)"
    return None


def _numbered(parent: Path, pattern: str) -> list[Path]:
    """The folders `<name>-<number>` under `parent`, lowest number first."""
    folders = [path for path in parent.glob(pattern) if path.name.rsplit("-", 1)[-1].isdigit()]
    return sorted(folders, key=lambda path: int(path.name.rsplit("-", 1)[-1]))


def numbered(parent: Path, pattern: str) -> dict[int, Path]:
    """Return number -> folder of the folders `<name>-<number>` under `parent`, lowest number first."""
    return {int(path.name.rsplit("-", 1)[-1]): path for path in _numbered(parent, pattern)}


def keep_newest(parent: Path, pattern: str, count: int, *, also: Collection[int] = ()) -> None:
    """Delete all but the `count` newest `<name>-<number>` folders under `parent` and those with numbers in `also`."""
    for number, folder in list(numbered(parent, pattern).items())[:-count]:
        if number not in also:
            delete_folder(folder)


def newest_whole(
    parent: Path, pattern: str, accepted: Callable[[Path], bool] = lambda folder: True
) -> tuple[Path | None, list[str]]:
    """Return the newest undamaged and accepted `<name>-<number>` folder under `parent`, and what is wrong with newer
    ones."""
    complaints: list[str] = []
    for folder in reversed(_numbered(parent, pattern)):
        fault = damage(folder)
        if fault is not None:
            complaints.append(fault)
        elif accepted(folder):
            return folder, complaints
    return None, complaints


# ---------------------------------------------------------------------------------------------- fingerprints


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Hash of a file, or of a folder's file names and contents; a sealed folder answers from its manifest.

    A file of a folder that may not be opened counts by its name: who reads the folder says what it is about it.

    Raises:
        MissingInput: There is nothing at `path`.
    """
    path = Path(path)
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        raise MissingInput(f"{path}: no such file or folder.")
    if (path / MANIFEST).is_file():
        return file_hash(path / MANIFEST)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        try:
            content = file_hash(file)
        except PermissionError:
            content = "not to be opened"
        digest.update(f"{file.relative_to(path).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def require(path: str | os.PathLike[str], *, what: str, made_by: str) -> Path:
    """Return `path` if it is there.

    Raises:
        MissingInput: It is not, or it is a run that has not made its model yet; the message names the command.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInput(f"{what} not found at {path}; make it with: {made_by}")
    state = read_state(path)
    if state is not None and state["status"] != "finished" and not any((path / name).is_dir() for name in EXPORTS):
        raise MissingInput(f"{what} at {path} is not finished; go on with: {made_by}")
    return path


def versions() -> dict[str, str]:
    """Versions of the packages whose changes can change a result."""
    found = {}
    for name in VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def need_disk(folder: str | os.PathLike[str], gigabytes: float) -> None:
    """Check the free disk space before a stage begins.

    Raises:
        UserError: Less than `gigabytes` is free where `folder` will be.
    """
    there = Path(folder).absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 1e9
    if free < gigabytes:
        raise UserError(
            f"{folder}: {free:.1f} GB of disk are free, this stage writes up to {gigabytes:.1f} GB; "
            "free some space or choose another place with --runs."
        )


# ---------------------------------------------------------------------------------------------- a stage's run


class Run:
    """A stage's folder and its state.

    Attributes:
        folder: Where the stage writes.
        resumes: True if an earlier, unfinished run with the same settings and inputs lies there.
        is_finished: True if the stage already ended; its caller says so and returns.
    """

    def __init__(self, folder: Path, stage: str, state: dict[str, Any], *, resumes: bool, is_finished: bool) -> None:
        self.folder = folder
        self.stage = stage
        self.resumes = resumes
        self.is_finished = is_finished
        self._state = state
        self._began = time.monotonic()

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        stage: str,
        config: Any,
        *,
        inputs: Mapping[str, str | os.PathLike[str]],
        grows: tuple[str, ...] = (),
        free: tuple[str, ...] = (),
        overwrite: bool = False,
    ) -> "Run":
        """Begin a run, or find the one that lies in `folder`.

        Args:
            folder: The run's folder; made if missing.
            stage: Name of the stage, checked against what lies there.
            config: The resolved configuration, a dataclass.
            inputs: Name -> path of every file and folder read, to be hashed.
            grows: Fields of the configuration that may be raised to train a finished run on.
            free: Fields that may be changed between two starts: they decide how long a run goes on, not how it learns.
            overwrite: Delete what lies there and begin afresh.

        Raises:
            MissingInput: An input is not there.
            UserError: The folder holds something else, or a run with other settings or inputs.
        """
        folder = Path(folder)
        own = _plain(config)
        settings = {name: own[name] for name in own if name not in {"runs", "overwrite", "threads"}}
        hashes = {name: fingerprint(path) for name, path in inputs.items()}
        if overwrite and (folder / STATE).is_file():
            delete_folder(folder)
        if not (folder / STATE).is_file():
            if folder.is_dir() and any(path.suffix not in ASIDE for path in folder.iterdir()):
                raise UserError(f"{folder} holds files but no {STATE}: it is no run folder; choose another --output.")
            state = {"stage": stage, "status": "running", "seconds": 0.0, "versions": versions()}
            state |= {"settings": settings, "inputs": {name: str(path) for name, path in inputs.items()}}
            state |= {"input_hashes": hashes, "counts": {}}
            run = cls(folder, stage, state, resumes=False, is_finished=False)
            # the state comes first: a folder without it is not taken for a run
            run._save()
            _write_config(folder, config)
            return run
        state = _read_state_of(folder)
        try:
            changed = _check_same(folder, stage, state, settings, hashes, grows, free)
        except UserError:
            if state["stage"] != stage or has_begun(folder):
                raise
            # an earlier start was refused before it made anything: its settings bind no one
            delete_folder(folder)
            return cls.open(folder, stage, config, inputs=inputs, grows=grows, free=free)
        if changed:
            state |= {"settings": settings}
        if any(name in grows for name in changed):
            state |= {"status": "running"}
        run = cls(folder, stage, state, resumes=True, is_finished=state["status"] == "finished")
        if changed:
            run._save()
        if changed or not (folder / CONFIG).is_file():
            _write_config(folder, config)
        return run

    def finish(self, **counts: Any) -> None:
        """Mark the run as finished, with the counts that belong in its summary; what killed starts left aside goes."""
        for stray in [*self.folder.rglob(".*"), *self.folder.parent.glob(f".{self.folder.name}.*")]:
            if stray.suffix in ASIDE and stray.is_dir():
                shutil.rmtree(stray, ignore_errors=True)
            elif stray.suffix in ASIDE:
                stray.unlink(missing_ok=True)
        self._state["status"] = "finished"
        self._state["counts"] = counts
        self._save()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds spent on this run so far, over all its starts."""
        return float(self._state["seconds"]) + time.monotonic() - self._began

    @property
    def counts(self) -> dict[str, Any]:
        """What `finish` was given; empty before."""
        return dict(self._state["counts"])

    def checkpointed(self) -> None:
        """Add the time spent so far to the state, so that a resumed run reports all of it."""
        self._save()

    def _save(self) -> None:
        self._state["seconds"], self._began = round(self.seconds, 3), time.monotonic()
        write_json(self.folder / STATE, self._state)


def _write_config(folder: Path, config: Any) -> None:
    # a start takes this file's settings up again: it must not delete the run a second time
    settings = {name: value for name, value in _plain(config).items() if name != "overwrite"}
    write_text(folder / CONFIG, yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))


def _plain(config: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def _check_same(
    folder: Path,
    stage: str,
    state: dict[str, Any],
    settings: dict[str, Any],
    hashes: dict[str, str],
    grows: tuple[str, ...],
    free: tuple[str, ...],
) -> list[str]:
    """Refuse to go on with other settings or inputs; return the fields that were raised or changed and may be."""
    if state["stage"] != stage:
        raise UserError(f"{folder} holds a run of {state['stage']!r}, not of {stage!r}; choose another --output.")
    changed = [name for name in settings if settings[name] != state["settings"].get(name)]
    for name in changed:
        old, new = state["settings"].get(name), settings[name]
        if name not in free and (name not in grows or new < old):
            raise UserError(
                f"{folder} was begun with {name} = {old!r}, now it is {new!r}; go on with the old value, "
                "choose another --output, or start afresh with --overwrite true."
            )
    for name in sorted(set(hashes) | set(state["input_hashes"])):
        if hashes.get(name) != state["input_hashes"].get(name):
            raise UserError(
                f"{folder} was begun with another {name} ({state['inputs'].get(name)} has changed since); "
                "choose another --output or start afresh with --overwrite true."
            )
    return changed


def read_state(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return a run folder's `run.json`, or None if there is none."""
    return _read_state_of(Path(folder)) if (Path(folder) / STATE).is_file() else None


def has_begun(folder: str | os.PathLike[str]) -> bool:
    """True if a run folder holds a finished run, or more than what is written before the work begins."""
    state = read_state(folder)
    if state is None or state["status"] == "finished":
        return state is not None
    preparing = {STATE, CONFIG, "rejected.jsonl"}
    return any(path.name not in preparing and path.suffix not in ASIDE for path in Path(folder).iterdir())


def _read_state_of(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{folder / STATE} is damaged ({error}); move {folder} away or choose another --output."
        ) from error
    return state
