"""The part of Label Studio's REST API that this project needs, over httpx.

Not label-studio-sdk: it brings 71 packages and half a gigabyte, caps numpy, and retries POST requests by itself,
although the import of tasks does not deduplicate. What is needed here is some fifteen requests.

A request that reads is repeated after a cut connection or a server error. One that writes is repeated only if it never
reached the server; otherwise `CutOff` is raised and the caller finds out what happened.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from finlm.errors import UserError

PAGE_SIZE = 200
"""Tasks a request with their annotations. Larger pages are slower a task, not faster."""
LIST_PAGE_SIZE = 1000
"""Tasks a request where only ids and times are asked for: a request costs as much as a hundred such tasks."""
PART = 100
"""Tasks asked for by their ids at once; the ids stand in the address."""
SHOWN_OF_PROJECT = {"include": "id,title,created_at,label_config,task_number"}
"""What a `Project` has; most of the rest are counts over tasks and annotations, anew for every request."""
AS_STORED = {"resolve_uri": "false"}
"""Tasks have no files behind them; looking for each one's storage is a fifth of the server's work."""
ANNOTATION = (
    "id", "result", "was_cancelled", "completed_by", "created_username", "updated_by", "last_created_by", "created_at",
    "updated_at", "draft_created_at", "lead_time", "ground_truth", "last_action", "bulk_created", "import_id", "task",
    "project", "parent_prediction", "parent_annotation",
)  # fmt: skip
"""All that the server says of an annotation, but `created_ago`, which changes with every reading.

Named one by one, since the server otherwise also reckons twenty columns of its own task table, which takes three times
as long.
"""
ACCESS_TOKEN_SECONDS = 240.0
"""An access token lives 300 s on the server; a new one is fetched well before."""
PAUSES_SECONDS = (0.5, 1.0, 2.0)
"""Waits before a request is repeated."""


class CutOff(UserError):
    """A request that writes was sent and no answer came: the server may have carried it out or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A labelling project on a server.

    Example:
        Project(id=3, title="Preferences", created_at="2026-11-22T04:31:04.328049Z", label_config="<View>…", tasks=40)
    """

    id: int
    title: str
    created_at: str
    label_config: str
    tasks: int

    @property
    def key(self) -> str:
        """Names the project in the log. Ids start at 1 again on a new server, so the time of creation is part of it."""
        return f"{self.id}@{self.created_at}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task with its annotations as the server tells them.

    Example:
        Task(id=7, updated_at="2026-…Z", data={"pair_id": "9f…"}, annotations=({"id": 12, "result": []},))
    """

    id: int
    updated_at: str
    data: Mapping[str, Any]
    annotations: tuple[Mapping[str, Any], ...]


class LabelStudio:
    """A server, reached by URL and token (a legacy token, or a personal access token that is refreshed)."""

    def __init__(self, url: str, token: str, *, timeout_seconds: float = 120.0) -> None:
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise UserError(f"--url {url!r} is no address of a server; write it like http://127.0.0.1:8080.")
        self.url = url.rstrip("/")
        self._token = token.strip()
        self._access = ""
        self._access_until = 0.0
        # a proxy from the environment must not be asked for this machine's own server
        is_local = urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
        # without TLS there is no certificate, and the list of authorities takes long to read
        has_tls = urlsplit(url).scheme == "https"
        self._http = httpx.Client(base_url=self.url, timeout=timeout_seconds, trust_env=not is_local, verify=has_tls)

    def __enter__(self) -> "LabelStudio":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # ------------------------------------------------------------------------------------------ server and people

    def version(self) -> str:
        """The server's release, such as `1.23.2`."""
        return str(self._get("/api/version")["release"])

    def whoami(self) -> str:
        """The e-mail address that the token belongs to."""
        told = self._get("/api/current-user/whoami")
        if not isinstance(told, Mapping) or "email" not in told:
            raise UserError(f"{self.url} does not say whose token this is; is this address a Label Studio?")
        return str(told["email"])

    def invite_link(self) -> str:
        """A link by which annotators make their own accounts."""
        return self.url + str(self._get("/api/invite")["invite_url"])

    def renew_invite_link(self) -> str:
        """Make the invitation link invalid and return a new one."""
        return self.url + str(self._write("POST", "/api/invite/reset-token", {})["invite_url"])

    def people(self) -> dict[int, str]:
        """E-mail addresses of all accounts by their number."""
        return {int(user["id"]): str(user["email"]) for user in self._get("/api/users/")}

    # ------------------------------------------------------------------------------------------ projects

    def find_project(self, title: str) -> Project | None:
        """Return the project of exactly this title; the oldest, if there are several."""
        found = []
        page: dict[str, Any] = {"next": True}
        number = 0
        while page["next"]:
            number += 1
            page = self._get("/api/projects/", {"title": title, "page": number, "page_size": 100, **SHOWN_OF_PROJECT})
            found += [project for project in page["results"] if project["title"] == title]
        return min(map(_project, found), key=lambda project: project.id, default=None)

    def project(self, project_id: int) -> Project:
        """Read a project again."""
        return _project(self._get(f"/api/projects/{project_id}/", SHOWN_OF_PROJECT))

    def create_project(self, title: str, label_config: str, *, annotators: int) -> Project:
        """Create a project whose label stream asks `annotators` people about each task."""
        settings = {
            "title": title,
            "label_config": label_config,
            "maximum_annotations": annotators,
            "enable_empty_annotation": False,
            "show_collab_predictions": False,
            "show_annotation_history": False,
            "skip_queue": "REQUEUE_FOR_OTHERS",
        }
        return _project(self._write("POST", "/api/projects/", settings))

    def set_label_config(self, project_id: int, label_config: str) -> None:
        """Replace the labelling page."""
        self._write("PATCH", f"/api/projects/{project_id}/", {"label_config": label_config})

    def set_annotators(self, project_id: int, annotators: int) -> None:
        """Let the label stream ask so many people about each task, those that are there already included."""
        self._write("PATCH", f"/api/projects/{project_id}/", {"maximum_annotations": annotators})

    def keep_copies(self, project_id: int, folder: str) -> None:
        """Have the server write each annotation as a file into a folder of its machine, older ones too; asked once."""
        path = "/api/storages/export/localfiles"
        if any(one["path"] == folder for one in self._get(path, {"project": project_id})):
            return
        asked = {"project": project_id, "title": "second copy", "path": folder, "can_delete_objects": False}
        made = self._write("POST", path, asked)
        self._write("POST", f"{path}/{made['id']}/sync", {})

    def hint_at(self, project_id: int, url: str) -> int:
        """Have the server call a URL whenever something changes in a project; return the hook's number."""
        for hook in self._get("/api/webhooks/", {"project": project_id}):
            if hook["url"] == url and hook["project"] == project_id:
                return int(hook["id"])
        asked = {"project": project_id, "url": url, "send_payload": False, "send_for_all_actions": True}
        return int(self._write("POST", "/api/webhooks/", asked)["id"])

    def forget_hint(self, hook_id: int) -> None:
        """Take a hook away."""
        self._write("DELETE", f"/api/webhooks/{hook_id}/", None)

    # ------------------------------------------------------------------------------------------ tasks

    def import_tasks(self, project_id: int, data: Sequence[Mapping[str, Any]]) -> None:
        """Create one task for each element of `data`. The server does not deduplicate.

        Raises:
            CutOff: No answer came; some, all or none of the tasks may be there.
        """
        path = f"/api/projects/{project_id}/import"
        done = self._write("POST", path, [{"data": task} for task in data], {"commit_to_project": "true"})
        if done["task_count"] != len(data):
            raise CutOff(f"{self.url}: {len(data)} tasks were sent, the server says it made {done['task_count']}.")

    def tasks(self, project_id: int, ids: Sequence[int] | None = None) -> Iterator[Task]:
        """Yield tasks with their annotations in order of id: all of the project, or those of the given ids.

        Of ids whose task was deleted meanwhile nothing comes.
        """
        asked = {"fields": "all", "include": ",".join(dict.fromkeys(("data", "annotations", *ANNOTATION)))}
        choices: list[list[dict[str, Any]]] = [[]]
        if ids is not None:  # by parts of less than a page, so that one request has all of each
            some, wanted = {"filter": "filter:tasks:id", "operator": "in_list", "type": "List"}, sorted(ids)
            choices = [[{**some, "value": wanted[at : at + PART]}] for at in range(0, len(wanted), PART)]
        for chosen in choices:
            for task in self._walk(project_id, chosen, asked):
                annotations = tuple(task["annotations"])
                yield Task(id=task["id"], updated_at=task["updated_at"], data=task["data"], annotations=annotations)

    def changes(self, project_id: int, updated_after: str) -> dict[int, str]:
        """Return when each task was changed that was changed after a moment; a third of the work of its annotations."""
        moment = {
            "filter": "filter:tasks:updated_at",
            "operator": "greater",
            "type": "Datetime",
            "value": updated_after,
        }
        asked = {"fields": "task_only", "include": "id,updated_at"}
        return {task["id"]: task["updated_at"] for task in self._walk(project_id, [moment], asked, LIST_PAGE_SIZE)}

    def task_ids(self, project_id: int) -> set[int]:
        """Ids of all tasks: a deleted task leaves no other trace than its absence here."""
        asked = {"fields": "task_only", "include": "id"}
        return {task["id"] for task in self._walk(project_id, [], asked, LIST_PAGE_SIZE)}

    def pair_ids(self, project_id: int) -> list[str]:
        """The `pair_id` of every task, doubles included."""
        asked = {"fields": "task_only", "include": "id,data"}
        return [str(task["data"].get("pair_id", "")) for task in self._walk(project_id, [], asked)]

    def _walk(
        self, project_id: int, chosen: Sequence[Mapping[str, Any]], asked: dict[str, str], page_size: int = PAGE_SIZE
    ) -> Iterator[dict[str, Any]]:
        # walks by "id greater than the last seen", not by page number: a task deleted meanwhile would shift the pages
        # and hide another one
        last = 0
        while True:
            after = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": last}
            items = [after, *chosen]
            query = {"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]}
            parameters = {"project": project_id, "page_size": page_size, "query": json.dumps(query), **AS_STORED}
            parameters |= asked
            told = self._get("/api/tasks/", parameters)
            tasks: list[dict[str, Any]] = told["tasks"]
            yield from tasks
            if not tasks or len(tasks) >= told["total"]:  # a server may give fewer a page than it was asked for
                return
            last = tasks[-1]["id"]

    # ------------------------------------------------------------------------------------------ requests

    def _get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        return self._send("GET", path, None, parameters)

    def _write(self, method: str, path: str, body: Any, parameters: Mapping[str, Any] | None = None) -> Any:
        return self._send(method, path, body, parameters)

    def _send(self, method: str, path: str, body: Any, parameters: Mapping[str, Any] | None) -> Any:
        for pause in (*PAUSES_SECONDS, None):
            try:
                answer = self._http.request(method, path, json=body, params=parameters, headers=self._authorization())
            except httpx.ConnectError as error:  # never sent, so any request may be repeated
                complaint = f"{self.url} cannot be reached ({error}); is the server running? finlm annotate serve"
                if pause is None:
                    raise UserError(f"{complaint} starts it.") from error
            except httpx.TransportError as error:
                complaint = f"{self.url}{path}: the connection was cut ({type(error).__name__})"
                if method != "GET":
                    raise CutOff(f"{complaint}; run the same command again.") from error
                if pause is None:
                    raise UserError(f"{complaint}; run the same command again.") from error
            else:
                if answer.is_success:
                    return self._read(answer, path)
                if answer.status_code == 401 and self._access and time.monotonic() < self._access_until:
                    self._access_until = 0.0  # taken back early, for instance by a restarted server: fetch another once
                    continue
                if answer.status_code < 500:
                    raise self._refusal(answer, path)
                complaint = f"{self.url}{path}: the server failed with {answer.status_code}"
                if method != "GET":
                    raise CutOff(f"{complaint}; run the same command again.")
                if pause is None:
                    raise UserError(f"{complaint}; its log says why.")
            time.sleep(pause or 0.0)
        raise UserError(f"{self.url}{path}: the token is refused again and again; make a new one.")

    def _authorization(self) -> dict[str, str]:
        if self._token.count(".") != 2:  # a JSON web token has two dots, a legacy token none
            return {"Authorization": f"Token {self._token}"}
        if time.monotonic() >= self._access_until:
            answer = self._http.post("/api/token/refresh", json={"refresh": self._token})
            if answer.status_code >= 500:
                raise UserError(f"{self.url}/api/token/refresh: the server failed with {answer.status_code}.")
            if not answer.is_success:
                raise UserError(
                    f"{self.url} refuses the personal access token; make a new one under Account & Settings."
                )
            self._access = str(answer.json()["access"])
            self._access_until = time.monotonic() + ACCESS_TOKEN_SECONDS
        return {"Authorization": f"Bearer {self._access}"}

    def _read(self, answer: httpx.Response, path: str) -> Any:
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise UserError(f"{self.url}{path} does not answer in JSON; is this address a Label Studio?") from None

    def _refusal(self, answer: httpx.Response, path: str) -> UserError:
        if answer.status_code == 401:
            return UserError(
                f"{self.url} refuses the token; use a personal access token, or let the server's organisation accept "
                "legacy tokens (Organization > Access Token Settings)."
            )
        try:
            told = answer.json()
            detail = json.dumps(told.get("validation_errors") or told.get("detail") or told, ensure_ascii=False)
        except (ValueError, AttributeError):
            detail = "no details; is this address a Label Studio?"
        return UserError(f"{self.url}{path} answers {answer.status_code}: {detail[:400]}.")


def _project(told: Mapping[str, Any]) -> Project:
    return Project(
        id=told["id"],
        title=told["title"],
        created_at=told["created_at"],
        label_config=told["label_config"],
        tasks=told["task_number"] or 0,
    )
