"""The rollouts that a PPO run keeps, one file an update, and their texts in a form that is safe to show."""

import re
import unicodedata
from pathlib import Path

from finlm import jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import RolloutRecord

MADE_BY = "accelerate launch alignment/ppo.py"


def update_files(run: str | Path) -> dict[int, Path]:
    """Return update -> file of a PPO run, lowest update first.

    Raises:
        MissingInput: There is no such run, or it has kept no rollout yet.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise MissingInput(f"PPO run not found at {folder}; make it with: {MADE_BY}")
    found = {
        int(match.group(1)): path
        for path in folder.glob("rollouts/update-*.jsonl")
        if (match := re.fullmatch(r"update-(\d+)\.jsonl", path.name))
    }
    if not found:
        raise MissingInput(f"{folder} has kept no rollouts (rollouts/update-*.jsonl); make some with: {MADE_BY}")
    return dict(sorted(found.items()))


def read_update(run: str | Path, update: int = 0) -> tuple[int, list[RolloutRecord]]:
    """Return an update's number and its answers; 0 is the newest update.

    Raises:
        MissingInput: As `update_files`.
        UserError: There is no such update, or its file is damaged.
    """
    files = update_files(run)
    number = update or max(files)
    if number not in files:
        raise UserError(f"{run} has no rollouts of update {update}; it has those of {min(files)} to {max(files)}.")
    records = list(jsonl.read(files[number], RolloutRecord))
    if not records:
        raise UserError(f"{files[number]}: holds no answer; --update names another update.")
    return number, records


def parts(prompt: str) -> tuple[str, str]:
    """Split a prompt as the model read it into what stands before the question, and the question.

    The frame of a single turn (" Human: … Assistant:") is taken off; several turns stay as they are.
    """
    single = re.fullmatch(r" ?Human: (.*) Assistant:", prompt, flags=re.DOTALL)
    text = single.group(1) if single and " Assistant:" not in single.group(1) else prompt
    before, _, question = text.strip().rpartition("\n\n")
    return before, question


def visible(text: str) -> str:
    """Return a text whose control characters are signs to be seen: a model's answer must not steer the terminal."""
    return "".join(_sign(char) for char in text)


def _sign(char: str) -> str:
    if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf"):
        return char
    return chr(0x2400 + ord(char)) if ord(char) < 0x20 else "�"
