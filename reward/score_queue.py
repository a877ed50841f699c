"""Requests that come at the same time share a pass through the model.

One thread scores. It takes the oldest request, waits a few milliseconds for more, or until there are tokens enough for
a pass, and scores them together: a trainer's workers each ask for a handful of answers, and a GPU is idle with those.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, Queue

from torch import Tensor

from finlm.ensemble import EncodedAnswer


class Full(Exception):
    """So many answers wait that no more are taken."""


class Closed(Exception):
    """The queue takes nothing more: the server ends."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request.

    Example:
        Job(answers=(EncodedAnswer(…),))
    """

    answers: tuple[EncodedAnswer, ...]
    scores: "Future[Tensor]" = field(default_factory=Future)
    """(K, N) once they are there."""

    @property
    def tokens(self) -> int:
        """Tokens of all answers with their prompts."""
        return sum(map(len, self.answers))


class ScoreQueue:
    """Takes requests from any thread and scores them in one.

    Args:
        score: Scores answers, (K, N).
        batch_tokens: Tokens with which a pass is full.
        patience_seconds: How long a pass waits for more requests, from its first.
        max_waiting: Answers that may wait, those of the running pass included.

    Attributes:
        waiting: Answers that wait for their scores.
        answers: Answers scored so far.
        passes: Times that the model was asked.
    """

    def __init__(
        self,
        score: Callable[[Sequence[EncodedAnswer]], Tensor],
        *,
        batch_tokens: int,
        patience_seconds: float,
        max_waiting: int,
    ) -> None:
        self.waiting, self.answers, self.passes = 0, 0, 0
        self._score = score
        self._batch_tokens = batch_tokens
        self._patience_seconds = patience_seconds
        self._max_waiting = max_waiting
        self._jobs: Queue[Job | None] = Queue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="scores", daemon=True)
        self._thread.start()

    def submit(self, answers: Sequence[EncodedAnswer]) -> "Future[Tensor]":
        """Return the scores to come, (K, N).

        Raises:
            Full: Too many answers wait.
            Closed: The queue was closed.
        """
        job = Job(tuple(answers))
        with self._lock:
            if self._is_closed:
                raise Closed
            if self.waiting + len(job.answers) > self._max_waiting:
                raise Full
            self.waiting += len(job.answers)
            self._jobs.put(job)
        return job.scores

    def hurry(self) -> None:
        """Let no pass wait for more requests from now on."""
        self._patience_seconds = 0.0
        self._jobs.put(Job(()))  # wakes one that waits

    def close(self) -> None:
        """Score what waits, take nothing more, and end the thread."""
        with self._lock:
            self._is_closed = True
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        is_open = True
        while is_open and (job := self._jobs.get()) is not None:
            jobs, began = [job], time.monotonic()
            while is_open and sum(one.tokens for one in jobs) < self._batch_tokens:
                try:
                    more = self._jobs.get(timeout=max(0.0, began + self._patience_seconds - time.monotonic()))
                except Empty:
                    break
                if more is None:
                    is_open = False
                else:
                    jobs.append(more)
            self._answer([one for one in jobs if one.answers])
            with self._lock:
                self.waiting -= sum(len(one.answers) for one in jobs)

    def _answer(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        try:
            score_KN = self._score([answer for job in jobs for answer in job.answers])
        except Exception as error:
            # one request's fault is not the others'
            if len(jobs) == 1:
                jobs[0].scores.set_exception(error)
            else:
                for job in jobs:
                    self._answer([job])
            return
        with self._lock:
            self.passes += 1
            self.answers += score_KN.shape[1]
        start = 0
        for job in jobs:
            job.scores.set_result(score_KN[:, start : start + len(job.answers)])
            start += len(job.answers)
