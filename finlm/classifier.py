"""Categories and sub-fields from a command of the user's: prompts go in as JSON lines, a line comes back for each.

    in    {"messages": […], "category": "general", …, "id": "9f…"}
    out   {"id": "9f…", "category": "finance", "subfield": "accounting"}

Answers may come in any order. Each is kept as it comes, so a command that failed is asked for the rest only.
"""

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import msgspec

from finlm import jsonl
from finlm.errors import UserError
from finlm.progress import bar
from finlm.records import Category, Prompt

KEEP_EVERY = 256
"""Answers between two writes of what has been answered so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """What the classifier said of one prompt.

    Example:
        Sorted(id="9f…", category="finance", subfield="accounting")
    """

    id: str
    category: Category
    subfield: str = ""

    def __post_init__(self) -> None:
        if self.subfield == "*":
            raise ValueError("the sub-field '*' stands for all others in a mixture; give another name or none")


def classify(
    prompts: Sequence[Prompt], command: str, *, kept: Path, timeout_seconds: float, before: Sequence[str] = ()
) -> list[Prompt]:
    """Return the prompts with the category and sub-field that the command gives them.

    Args:
        prompts: The prompts.
        command: A program with its arguments; no shell reads it. Empty asks nobody: prompts without an answer from
            before stay as they are.
        kept: File of the answers so far; a prompt that is in it is not asked again.
        timeout_seconds: Longest wait for the next answer.
        before: More files of answers.

    Raises:
        UserError: The command cannot be started, dies, answers too few or too many lines or none in time, or writes a
            line that is no answer.
    """
    files = [*map(Path, before), *([kept] if kept.is_file() else [])]
    answers = {answer.id: answer for path in files for answer in jsonl.read(path, Sorted)}
    waiting = [prompt for prompt in prompts if prompt.id not in answers]
    if waiting and command:
        try:
            _ask(waiting, command, answers, kept, timeout_seconds)
        finally:
            jsonl.write(kept, answers.values())
    return [_sorted(prompt, answers.get(prompt.id)) for prompt in prompts]


def _sorted(prompt: Prompt, answer: Sorted | None) -> Prompt:
    return prompt if answer is None else replace(prompt, category=answer.category, subfield=answer.subfield)


def _ask(
    waiting: Sequence[Prompt], command: str, answers: dict[str, Sorted], kept: Path, timeout_seconds: float
) -> None:
    process = _started(command)
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.Queue[bytes] = queue.Queue()
    threads = (
        threading.Thread(target=_feed, args=(process.stdin, waiting), daemon=True),
        threading.Thread(target=_drain, args=(process.stdout, lines), daemon=True),
    )
    for thread in threads:
        thread.start()
    try:
        _collect(process, lines, {prompt.id for prompt in waiting}, command, answers, kept, timeout_seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it started itself
            process.wait()
        for thread in threads:
            thread.join(timeout=5)
        if not threads[1].is_alive():
            process.stdout.close()


def _started(command: str) -> "subprocess.Popen[bytes]":
    try:
        words = shlex.split(command)
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"--classifier {command!r} cannot be started ({error}); give a program and its arguments."
        ) from error


def _collect(
    process: "subprocess.Popen[bytes]",
    lines: "queue.Queue[bytes]",
    open_ids: set[str],
    command: str,
    answers: dict[str, Sorted],
    kept: Path,
    timeout_seconds: float,
) -> None:
    """Take the answers as they come until none is missing and the command has ended."""
    decoder = msgspec.json.Decoder(Sorted)
    count, number = len(open_ids), 0
    with bar() as progress:
        task = progress.add_task("classifier", total=count, note="")
        while line := _next(lines, command, count - len(open_ids), count, timeout_seconds):
            number += 1
            if not line.strip():
                continue
            try:
                answer = decoder.decode(line)
            except msgspec.DecodeError as error:
                shown = line.decode("utf-8", "replace").strip()[:120]
                raise UserError(
                    f"--classifier {command!r}, line {number} of its output: {error} ({shown!r}); it must write one "
                    '{"id": …, "category": …, "subfield": …} per prompt and nothing else.'
                ) from error
            if answer.id not in open_ids:
                why = "was answered before" if answer.id in answers else "is no prompt that it was given"
                raise UserError(f"--classifier {command!r}, line {number} of its output: id {answer.id!r} {why}.")
            open_ids.remove(answer.id)
            answers[answer.id] = answer
            progress.advance(task)
            if len(answers) % KEEP_EVERY == 0:
                jsonl.write(kept, answers.values())
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"--classifier {command!r} closed its output but did not end within {timeout_seconds:g} s; let it end."
        ) from error
    if code:
        raise UserError(
            f"--classifier {command!r} ended with exit code {code} after {count - len(open_ids)} of {count} answers; "
            "its own message stands above. The answers are kept: the same command asks for the rest."
        )
    if open_ids:
        raise UserError(
            f"--classifier {command!r} answered {count - len(open_ids)} of {count} prompts ({min(open_ids)} is "
            "missing, for one); it must write a line for each. Answers are kept: the same command asks for the rest."
        )


def _next(lines: "queue.Queue[bytes]", command: str, done: int, count: int, timeout_seconds: float) -> bytes:
    """The next line; empty at the end of the output."""
    try:
        return lines.get(timeout=timeout_seconds)
    except queue.Empty:
        raise UserError(
            f"--classifier {command!r} wrote nothing for {timeout_seconds:g} s after {done} of {count} answers; raise "
            "classifier_timeout if it is only slow. The answers are kept: the same command asks for the rest."
        ) from None


def _feed(stdin: IO[bytes], prompts: Sequence[Prompt]) -> None:
    # a command that ends early is judged by its answers
    with contextlib.suppress(BrokenPipeError), stdin:
        for prompt in prompts:
            stdin.write(jsonl.encode(prompt) + b"\n")


def _drain(stdout: IO[bytes], lines: "queue.Queue[bytes]") -> None:
    for line in stdout:
        lines.put(line)
    lines.put(b"")
