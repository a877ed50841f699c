"""Annotators for a measurement: accounts made by the invitation, each writing through the API at its own pace.

Every request that the server answered is in the writer's ledger; what is lost later is held against it.
"""

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from annotation.vocabulary import FLAG_KEYS, LEVELS

PASSWORD = "Long-enough-42"
SKIPPED, EDITED, DELETED = 0.06, 0.10, 0.04
"""Share of tasks that are skipped; of steps after which an earlier annotation of the writer is edited, or deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One write that the server confirmed.

    Example:
        Step(annotation_id=12, task_id=7, does="edit", updated_at="2026-…Z")
    """

    annotation_id: int
    task_id: int
    does: str
    """`create`, `skip`, `edit` or `delete`."""
    updated_at: str = ""
    """As the server said; empty for a deletion."""


@dataclass(slots=True)
class Writer:
    """An account and what it has written."""

    client: httpx.Client
    id: int
    chance: random.Random
    ledger: list[Step] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Requests that the server did not confirm: it may have carried them out or not."""
    own: dict[int, int] = field(default_factory=dict)
    """Living, unskipped annotations of this writer and their tasks."""

    def work(self, tasks: Sequence[int], stop: threading.Event) -> None:
        """Annotate tasks in this order, now and then going back to an earlier one."""
        for task in tasks:
            if stop.is_set():
                return
            self.annotate(task)
            if self.own and self.chance.random() < EDITED:
                self.edit(self.chance.choice(list(self.own)))
            if self.own and self.chance.random() < DELETED:
                self.delete(self.chance.choice(list(self.own)))

    def annotate(self, task: int) -> None:
        """Choose a level, or skip."""
        skips = self.chance.random() < SKIPPED
        body = {"result": [], "was_cancelled": True} if skips else {"result": self._result(), "lead_time": 12.5}
        made = self._ask("POST", f"/api/tasks/{task}/annotations/", body)
        if made is None:
            return
        if not skips:
            self.own[made["id"]] = task
        self._note(made["id"], task, "skip" if skips else "create", made["updated_at"])

    def edit(self, annotation: int) -> None:
        """Change one's mind."""
        made = self._ask("PATCH", f"/api/annotations/{annotation}/", {"result": self._result()})
        if made is not None:
            self._note(annotation, self.own[annotation], "edit", made["updated_at"])

    def delete(self, annotation: int) -> None:
        """Take an annotation back."""
        if self._ask("DELETE", f"/api/annotations/{annotation}/") is not None:
            self._note(annotation, self.own.pop(annotation), "delete", "")

    def _note(self, annotation: int, task: int, does: str, updated_at: str) -> None:
        self.ledger.append(Step(annotation_id=annotation, task_id=task, does=does, updated_at=updated_at))

    def _result(self) -> list[dict[str, Any]]:
        regions = [_region("preference", "choices", [self.chance.choice(LEVELS)])]
        if self.chance.random() < 0.1:
            regions.append(_region("flags", "choices", [self.chance.choice(list(FLAG_KEYS))]))
        if self.chance.random() < 0.2:
            regions.append(_region("reason", "textarea", [f"理由 {self.chance.random():.6f}"]))
        return regions

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = self.client.request(method, path, json=body)
        except httpx.TransportError as error:
            self.failures.append(f"{method} {path}: {type(error).__name__}")
            return None
        if not answer.is_success:
            self.failures.append(f"{method} {path}: {answer.status_code}")
            return None
        return answer.json() if answer.content else {}


def _region(name: str, kind: str, values: Sequence[str]) -> dict[str, Any]:
    key = "text" if kind == "textarea" else kind
    return {"from_name": name, "to_name": "prompt", "type": kind, "value": {key: list(values)}}


def sign_up(url: str, invitation: str, email: str, seed: int) -> Writer:
    """Make an account with the invitation link, as a person does in a browser, and go on with its token."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60, follow_redirects=True) as session:
        session.get(invitation).raise_for_status()
        form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
        session.post(invitation, data=form).raise_for_status()
        me = session.get("/api/current-user/whoami").raise_for_status().json()
        token = session.get("/api/current-user/token").raise_for_status().json()["token"]
    client = httpx.Client(base_url=url, trust_env=False, timeout=120, headers={"Authorization": f"Token {token}"})
    return Writer(client=client, id=me["id"], chance=random.Random(seed))


def shares(tasks: Sequence[int], annotations: int, writers: int, seed: int) -> list[list[int]]:
    """Deal tasks to writers so that each task is judged as often as any other, never twice by one person."""
    dealt: list[list[int]] = [[] for _ in range(writers)]
    for number in range(annotations):
        round_, place = divmod(number, len(tasks))
        assert round_ < writers, "more annotations than tasks times writers"
        dealt[(place + round_) % writers].append(tasks[place])
    for position, its in enumerate(dealt):
        random.Random(f"{seed}:{position}").shuffle(its)
    return dealt


def all_work(
    writers: Sequence[Writer], dealt: Sequence[Sequence[int]]
) -> tuple[list[threading.Thread], threading.Event]:
    """Let all writers begin; return their threads and what stops them."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=writer.work, args=(tasks, stop)) for writer, tasks in zip(writers, dealt, strict=True)
    ]
    for thread in threads:
        thread.start()
    return threads, stop
