"""Where a round of people's preferences lies below a run root, and which round comes next.

runs/rounds/2/
    run.json, config.yaml       the round's settings and how far it is
    candidates.jsonl            answers of round 1's policy
    annotation/log.sqlite       what was pushed and pulled
    preferences.jsonl           what people preferred in this round
    learned.jsonl               the preferences of all rounds so far, which the reward model learns from
    reward/, prompts.jsonl, ppo/, evaluation/, report.html
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finlm.errors import MissingInput, UserError
from finlm.runs import read_state

FOLDER = "rounds"


@dataclass(frozen=True, slots=True)
class Round:
    """One round and its files.

    Example:
        Round(root=Path("runs"), number=2)
    """

    root: Path
    """The run root."""
    number: int
    """From 1."""

    @property
    def folder(self) -> Path:
        """The round's own folder, laid out like a run root."""
        return self.root / FOLDER / str(self.number)

    @property
    def candidates(self) -> Path:
        """The answers that are compared."""
        return self.folder / "candidates.jsonl"

    @property
    def preferences(self) -> Path:
        """What was preferred in this round."""
        return self.folder / "preferences.jsonl"

    @property
    def learned(self) -> Path:
        """The preferences of all rounds so far; there once this round's are complete."""
        return self.folder / "learned.jsonl"

    @property
    def log(self) -> Path:
        """The local log of annotations."""
        return self.folder / "annotation" / "log.sqlite"

    @property
    def reward(self) -> Path:
        """Run of the reward model."""
        return self.folder / "reward"

    @property
    def prompts(self) -> Path:
        """What PPO is asked."""
        return self.folder / "prompts.jsonl"

    @property
    def ppo(self) -> Path:
        """Run of PPO."""
        return self.folder / "ppo"

    @property
    def evaluation(self) -> Path:
        """Run of the evaluation."""
        return self.folder / "evaluation"

    @property
    def page(self) -> Path:
        """The round's page."""
        return self.folder / "report.html"

    @property
    def earlier(self) -> list["Round"]:
        """The rounds before it, the first one first."""
        return [Round(self.root, number) for number in range(1, self.number)]

    @property
    def is_finished(self) -> bool:
        """True if it came to its end."""
        return (read_state(self.folder) or {}).get("status") == "finished"

    @contextmanager
    def only_one(self) -> Iterator[int]:
        """Keep a second start out for the `with` block; yields the lock, which a stage that inherits it holds as well.

        So a stage that outlives a killed round is not run beside itself.

        Raises:
            UserError: The round is at work already.
        """
        path = self.folder.with_name(f".{self.number}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"Round {self.number} of {self.root} is at work already, in this or another terminal; wait for it, "
                    "or end it first."
                ) from error
            yield lock
        finally:
            os.close(lock)


def rounds_of(root: Path) -> list[Round]:
    """Return the rounds below a run root, the first one first."""
    numbers = sorted(int(path.name) for path in (root / FOLDER).glob("*") if path.name.isdigit() and path.is_dir())
    return [Round(root, number) for number in numbers]


def round_to_go_on(root: Path, number: int) -> Round:
    """Return the round of a number, or for 0 the first one that is not finished.

    Raises:
        MissingInput: A round before it is not finished.
    """
    finished = {one.number for one in rounds_of(root) if one.is_finished}
    following = next(n for n in range(1, len(finished) + 2) if n not in finished)
    if number > following:
        raise MissingInput(
            f"Round {number} needs the policy of round {number - 1}, and round {following} is not finished; "
            f"finish it with: finlm round --number {following}"
        )
    return Round(root, number or following)
