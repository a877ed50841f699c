"""What goes wrong between the server and the log: nothing is lost, nothing doubled."""

import base64
import hmac
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotation_helpers import ROOT, Person, Relay, Served, command, listening, prompt, response, result
from rich.console import Console

from annotation.api import LabelStudio, Project, Task
from annotation.delivery import deliver
from annotation.eventlog import EventLog
from annotation.pairing import Comparison
from annotation.pulling import pull
from annotation.server import running
from annotation.server_folder import open_secrets, read_address
from finlm.errors import UserError

KEY = "1@2026-01-01T00:00:00Z"
QUIET = Console(quiet=True)


def comparisons(count: int) -> list[Comparison]:
    return [Comparison(prompt=prompt(f"Q{n}"), first=response("one"), second=response("two")) for n in range(count)]


def history(path: Path) -> list[tuple[Any, ...]]:
    """All that the log remembers of annotations, but for the moments at which it saw them."""
    with closing(sqlite3.connect(path)) as log:
        return log.execute("SELECT task_id, annotation_id, kind, annotator, raw FROM event ORDER BY seq").fetchall()


# ---------------------------------------------------------------------------------------------- the puller dies


def first_and_second_pull() -> tuple[list[Task], list[Task]]:
    """What two pulls see: annotations; then edits, a skip, a deletion and new ones."""

    def made(number: int, level: str, second: int, skipped: bool = False) -> dict[str, Any]:
        at = f"2026-01-01T00:00:{second:02d}.000000Z"
        regions = [] if skipped else result(level)
        return {"id": number, "result": regions, "was_cancelled": skipped, "completed_by": 2, "updated_at": at}

    def task(number: int, *annotations: dict[str, Any]) -> Task:
        at = max((one["updated_at"] for one in annotations), default="2026-01-01T00:00:59Z")
        return Task(id=number, updated_at=at, data={"pair_id": f"{number:016x}"}, annotations=annotations)

    first = [task(n, made(n, "A3", n)) for n in range(1, 7)]
    second = [
        task(1, made(1, "B2", 31)),
        task(2),
        task(3, made(3, "A3", 3), made(13, "B1", 33)),
        task(4, made(4, "", 34, skipped=True)),
        task(7, made(17, "A0", 37)),
    ]
    return first, second


def absorb_until(path: Path, statement: int) -> bool:
    """Run the second pull in a process that kills itself before a statement; True if it lived to the end."""
    _, second = first_and_second_pull()
    child = os.fork()
    if child == 0:
        log = EventLog(path)
        left = [statement]

        def before(_: str) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        log._db.set_trace_callback(before)
        log.absorb(KEY, "<View/>", second, {6})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFEXITED(status)


def test_a_puller_killed_anywhere_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    first, second = first_and_second_pull()
    with EventLog(tmp_path / "undisturbed.sqlite") as log:
        log.absorb(KEY, "<View/>", first, ())
        log.absorb(KEY, "<View/>", second, {6})
        cursor = log.updated_after(KEY)
    expected = history(tmp_path / "undisturbed.sqlite")
    # six made, one edited, one skipped, two made, and deleted: that of task 2 and that of task 6, which vanished
    assert [kind for _, _, kind, _, _ in expected[6:]] == [
        "annotation", "deleted", "annotation", "skip", "annotation", "deleted"
    ]  # fmt: skip
    killed = 0
    for point in range(1, 200):
        path = tmp_path / f"{point}.sqlite"
        with EventLog(path) as log:
            log.absorb(KEY, "<View/>", first, ())
        lived = absorb_until(path, point)
        killed += not lived
        with EventLog(path) as log:  # the same command again
            log.absorb(KEY, "<View/>", second, {6} & log.known_tasks(KEY).keys())
            assert log.updated_after(KEY) == cursor
        assert history(path) == expected, f"killed before statement {point}"
        if lived:
            break
    assert killed >= 20


def test_the_same_delivery_again_and_out_of_order_adds_nothing(tmp_path: Path) -> None:
    first, second = first_and_second_pull()
    path = tmp_path / "log.sqlite"
    with EventLog(path) as log:
        log.absorb(KEY, "<View/>", first, ())
        log.absorb(KEY, "<View/>", second, ())
        before = history(path)
        for _ in range(3):
            assert log.absorb(KEY, "<View/>", [*second, *reversed(second)], ()).events == 0
    assert history(path) == before


FULL = """
import resource, sys
sys.path[:0] = [{root!r}, {tests!r}]
from annotation.eventlog import EventLog
from finlm.errors import UserError
from annotation_helpers import result
from annotation.api import Task
log = EventLog({path!r})
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
long = result("A3", reason="x" * 5000)
tasks = [Task(id=n, updated_at="2026-01-01T00:00:01Z", data={{"pair_id": ""}}, annotations=({{"id": n, "result": long,
         "was_cancelled": False, "completed_by": 2, "updated_at": "2026-01-01T00:00:01Z"}},)) for n in range(300)]
try:
    print(log.absorb({key!r}, "<View/>", tasks, ()).new)
except UserError as error:
    print(error)
"""


def absorb_300(path: Path, limit: int) -> str:
    tests = str(Path(__file__).parent)
    script = FULL.format(root=str(ROOT), tests=tests, path=str(path), limit=limit, key=KEY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    first, _ = first_and_second_pull()
    with EventLog(path) as log:
        log.absorb(KEY, "<View/>", first, ())
        since = log.updated_after(KEY)
    before = history(path)
    told = absorb_300(path, 400_000)  # files may grow to a quarter of what 300 annotations need
    assert "could not be written" in told
    assert "as it was before; free some disk, then run the same command again" in told
    assert len(told.strip().splitlines()) == 1
    with EventLog(path) as log:
        assert log.updated_after(KEY) == since
    assert history(path) == before
    assert absorb_300(path, resource.RLIM_INFINITY).strip() == "294"  # 300, of which six were there in another state
    assert len(history(path)) == 6 + 300


# ---------------------------------------------------------------------------------------------- the server fails


@contextmanager
def failing_proxy(server: str, faults: list[str]) -> Iterator[str]:
    """A proxy that answers the next requests of tasks with faults in turn, and passes on what follows."""

    class Handler(Relay):
        target = server

        def do_GET(self) -> None:
            fault = faults.pop(0) if faults and self.path.startswith("/api/tasks/") else ""
            if fault == "silent":
                time.sleep(6.0)  # longer than the client waits
                return
            if fault == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b'{"tasks": [')
                return
            if fault:
                self.reply(int(fault), b"{}")
                return
            self._forward()

        def _forward(self) -> None:
            answer = self.passed_on(self.body())
            self.reply(answer.status_code, answer.content)

        do_POST = _forward

    with listening(Handler) as url:
        yield url


@pytest.fixture
def judged(label_studio: Served, anna: Person, tmp_path: Path) -> tuple[Project, Path, list[int]]:
    """A project with three pairs, two of them annotated, and its log before any pull."""
    project = label_studio.project(f"Faults {tmp_path.name}")
    path = tmp_path / "log.sqlite"
    made = comparisons(3)
    with EventLog(path) as log, label_studio.client() as client:
        log.add_pairs(made)
        deliver(client, project, log, [one.id for one in made], QUIET)
    tasks = label_studio.tasks(project)
    return project, path, [anna.annotate(task.id, "A2") for task in tasks[:2]]


@pytest.fixture(scope="module")
def personal_token(label_studio: Served, bo: Person) -> str:
    """A token of Bo's, of which the server gives out short-lived access tokens; a person has one at most."""
    headers = {"Authorization": f"Token {bo.token}"}
    answer = httpx.post(f"{label_studio.url}/api/token/", headers=headers, trust_env=False, timeout=60)
    return str(answer.raise_for_status().json()["token"])


@pytest.mark.parametrize("faults", [["500", "502"], ["silent"], ["cut"], ["401"], ["500", "silent", "401"]])
def test_a_pull_gets_over_what_passes(
    label_studio: Served, judged: tuple[Project, Path, list[int]], personal_token: str, faults: list[str]
) -> None:
    """Server errors, time-outs, an answer cut in half, an access token that expired while it was in use."""
    project, path, made = judged
    left = list(faults)
    with (
        failing_proxy(label_studio.url, left) as url,
        LabelStudio(url, personal_token, timeout_seconds=5.0 if "silent" in faults else 60) as client,
        EventLog(path) as log,
    ):
        assert pull(client, project, log).new == 2
        assert left == []
        assert pull(client, project, log).events == 0
        assert [one.id for one in log.annotations(project.key)] == made


def test_only_what_changed_is_read_again(
    label_studio: Served, anna: Person, judged: tuple[Project, Path, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tasks lie in the overlap that every pull looks back."""
    project, path, made = judged
    read: list[list[int] | None] = []
    whole = LabelStudio.tasks

    def noted(client: LabelStudio, project_id: int, ids: list[int] | None = None) -> Iterator[Task]:
        read.append(ids)
        return whole(client, project_id, ids)

    with EventLog(path) as log, label_studio.client() as client:
        tasks = {one["id"]: task.id for task in client.tasks(project.id) for one in task.annotations}
        monkeypatch.setattr(LabelStudio, "tasks", noted)
        assert pull(client, project, log).new == 2
        assert pull(client, project, log).events == 0
        anna.edit(made[1], "B3")
        assert pull(client, project, log).edited == 1
    assert read == [None, [], [tasks[made[1]]]]


def test_a_server_with_smaller_pages_hides_nothing(
    label_studio: Served, judged: tuple[Project, Path, list[int]]
) -> None:
    """A Label Studio elsewhere may be set to give fewer tasks a page than it is asked for."""
    project, path, made = judged

    class Capped(Relay):
        target = label_studio.url

        def do_GET(self) -> None:
            self.path = re.sub(r"page_size=\d+", "page_size=1", self.path)
            answer = self.passed_on(b"")
            self.reply(answer.status_code, answer.content)

    with listening(Capped) as url, LabelStudio(url, label_studio.token) as client, EventLog(path) as log:
        assert len(client.task_ids(project.id)) == len(client.pair_ids(project.id)) == 3
        assert pull(client, project, log).new == 2
        assert len(client.changes(project.id, log.updated_after(project.key))) == 3
        assert [one.id for one in log.annotations(project.key)] == made


def resigned(token: str, secret: str, **changed: int) -> str:
    """A JSON web token with other claims, signed as the server signs (HS256, RFC 7515)."""

    def packed(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    head, claims, _ = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    signed = f"{head}.{packed(json.dumps(told | changed).encode())}"
    return f"{signed}.{packed(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


def test_a_token_that_really_expired_is_refreshed(
    label_studio: Served, judged: tuple[Project, Path, list[int]], personal_token: str
) -> None:
    """The server itself refuses it; that it takes the same one while it is young shows that nothing else is wrong."""
    project, path, made = judged
    (secret,) = re.findall(r"^SECRET_KEY=(.+)$", (label_studio.server / "data" / ".env").read_text(), re.MULTILINE)
    with LabelStudio(label_studio.url, personal_token) as client, EventLog(path) as log:
        client.project(project.id)
        now = int(time.time())
        young, expired = (resigned(client._access, secret, exp=now + seconds) for seconds in (60, -60))
        answers = [
            httpx.get(
                f"{label_studio.url}/api/projects/{project.id}/",
                headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=60,
            ).status_code
            for token in (young, expired)
        ]  # fmt: skip
        assert answers == [200, 401]
        client._access = expired
        assert pull(client, project, log).new == 2
        assert client._access != expired
        assert [one.id for one in log.annotations(project.key)] == made


def test_a_server_that_stays_broken_changes_nothing(
    label_studio: Served, anna: Person, judged: tuple[Project, Path, list[int]]
) -> None:
    project, path, made = judged
    with EventLog(path) as log, label_studio.client() as client:
        pull(client, project, log)
        before, since = history(path), log.updated_after(project.key)
        anna.edit(made[0], "B3")
        with (
            failing_proxy(label_studio.url, ["500"] * 9) as url,
            LabelStudio(url, label_studio.token) as broken,
            pytest.raises(UserError, match="the server failed with 500; its log says why"),
        ):
            pull(broken, project, log)
        assert (history(path), log.updated_after(project.key)) == (before, since)
        assert pull(client, project, log).edited == 1


def test_a_clock_that_is_set_back_hides_nothing(
    label_studio: Served, anna: Person, bo: Person, judged: tuple[Project, Path, list[int]]
) -> None:
    """What is annotated after the server's clock went back five minutes has an earlier time than the cursor."""
    project, path, _ = judged
    with EventLog(path) as log, label_studio.client() as client:
        pull(client, project, log)
        task = label_studio.tasks(project)[2]
        late = bo.annotate(task.id, "B1")
        database = label_studio.server / "data" / "label_studio.sqlite3"
        back = "strftime('%Y-%m-%d %H:%M:%f', updated_at, '-5 minutes')"
        with closing(sqlite3.connect(database, timeout=30)) as db, db:
            db.execute(f"UPDATE task SET updated_at = {back} WHERE id = ?", (task.id,))
            db.execute(f"UPDATE task_completion SET updated_at = {back} WHERE id = ?", (late,))
        (told,) = [one for one in label_studio.tasks(project) if one.id == task.id]
        newest = max(one.updated_at for one in label_studio.tasks(project) if one.id != task.id)
        assert told.updated_at < newest
        assert pull(client, project, log).new == 1
        assert late in [one.id for one in log.annotations(project.key)]


@pytest.mark.slow
def test_a_server_killed_between_write_and_reply(tmp_path: Path) -> None:
    """It wrote the pairs, or an annotation, and died before it said so."""
    environment = os.environ.get("FINLM_LABEL_STUDIO_ENV") or str(ROOT / ".venv-label-studio")
    folder = tmp_path / "runs" / "annotation" / "server"

    def serve() -> Served:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        flags = ("--environment", environment, "--port", str(port), "--detach", "true")
        done = command("serve", *flags, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return Served(
            folder=tmp_path, url=read_address(folder).url, token=open_secrets(folder).token, output=done.stdout
        )

    @contextmanager
    def killing_proxy(server: str) -> Iterator[str]:
        """Pass the first POST on, kill the server when it has answered, and answer nobody from then on."""

        class Handler(Relay):
            target = server

            def _forward(self) -> None:
                try:
                    answer = self.passed_on(self.body())
                except httpx.TransportError:
                    self.close_connection = True
                    return
                if self.command == "POST":
                    process = running(folder)
                    assert process is not None
                    for member in [*process.children(recursive=True), process]:
                        member.kill()
                    process.wait(30)
                    self.close_connection = True
                    return
                self.reply(answer.status_code, answer.content)

            do_GET = do_POST = _forward

        with listening(Handler) as url:
            yield url

    served = serve()
    try:
        project = served.project("Preferences")
        person = served.sign_up("cy@example.com")
        made = comparisons(5)
        path = tmp_path / "log.sqlite"
        with EventLog(path) as log:
            log.add_pairs(made)
            with (
                killing_proxy(served.url) as url,
                LabelStudio(url, served.token) as client,
                pytest.raises(UserError),
            ):
                deliver(client, project, log, [one.id for one in made], QUIET)
            assert set(log.deliveries(project.key).values()) == {"sending"}
        served = serve()
        with EventLog(path) as log, served.client() as client:
            deliver(client, project, log, [one.id for one in made], QUIET)
            assert sorted(client.pair_ids(project.id)) == sorted(one.id for one in made)
            (task, *_) = served.tasks(project)
        with killing_proxy(served.url) as url:
            headers = {"Authorization": f"Token {person.token}"}
            with pytest.raises(httpx.TransportError):
                httpx.post(
                    f"{url}/api/tasks/{task.id}/annotations/", json={"result": result("A1")}, headers=headers,
                    timeout=60, trust_env=False,
                )  # fmt: skip
        served = serve()
        with EventLog(path) as log, served.client() as client:
            pull(client, project, log)
            with closing(sqlite3.connect(folder / "data" / "label_studio.sqlite3")) as db:
                rows = db.execute("SELECT id, task_id, completed_by_id, result FROM task_completion").fetchall()
            assert [(number, owner, who, json.loads(text)) for number, owner, who, text in rows] == [
                (one.id, one.task_id, one.annotator, list(one.result)) for one in log.annotations(project.key)
            ]
            assert len(rows) == 1
    finally:
        command("serve", "--stop", "true", cwd=tmp_path)
