"""People, a served Label Studio and small records, for the tests of annotation."""

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from annotation import environment as environment_of_server
from annotation import server
from annotation.api import LabelStudio, Project, Task
from finlm.records import Message, Prompt, Response

ROOT = Path(__file__).parent.parent.parent
PASSWORD = "Long-enough-42"


def prompt(text: str, **fields: Any) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), **fields)


def response(text: str, **fields: Any) -> Response:
    return Response(text=text, model="runs/sft", **fields)


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python annotation/<name>.py …` as a user does, from another folder than the checkout."""
    name, *flags = arguments
    inherited = {key: value for key, value in os.environ.items() if key != "FINLM_RUNS"}
    return subprocess.run(
        [sys.executable, str(ROOT / "annotation" / f"{name}.py"), *flags],
        cwd=cwd,
        env={**inherited, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
    )


@dataclass(frozen=True, kw_only=True)
class Person:
    """An annotator with an account of their own."""

    id: int
    email: str
    token: str
    url: str

    def annotate(self, task: int, level: str, *, flags: Sequence[str] = (), reason: str = "") -> int:
        return self.send(task, result(level, flags, reason))

    def send(self, task: int, regions: Sequence[Mapping[str, Any]]) -> int:
        """Write an annotation whatever it says, as any program with a token can."""
        return int(self._request("POST", f"/api/tasks/{task}/annotations/", {"result": list(regions)})["id"])

    def edit(self, annotation: int, level: str) -> None:
        self._request("PATCH", f"/api/annotations/{annotation}/", {"result": result(level)})

    def skip(self, task: int) -> None:
        self._request("POST", f"/api/tasks/{task}/annotations/", {"result": [], "was_cancelled": True})

    def delete(self, annotation: int) -> None:
        self._request("DELETE", f"/api/annotations/{annotation}/")

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Token {self.token}"}
        answer = httpx.request(method, self.url + path, json=body, headers=headers, timeout=60, trust_env=False)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


def result(level: str, flags: Sequence[str] = (), reason: str = "") -> list[dict[str, Any]]:
    """An annotation as the page stores it."""
    regions = [{"from_name": "preference", "to_name": "prompt", "type": "choices", "value": {"choices": [level]}}]
    if flags:
        regions.append({"from_name": "flags", "to_name": "prompt", "type": "choices", "value": {"choices": [*flags]}})
    if reason:
        regions.append({"from_name": "reason", "to_name": "prompt", "type": "textarea", "value": {"text": [reason]}})
    return regions


@dataclass(frozen=True, kw_only=True)
class Served:
    """The server that `finlm annotate serve` started."""

    folder: Path
    url: str
    token: str
    output: str

    @property
    def server(self) -> Path:
        return self.folder / "runs" / "annotation" / "server"

    def project(self, title: str, *flags: str) -> Project:
        """Make a project as a user does, by serving again while the server runs."""
        done = command("serve", "--project", title, *flags, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        with self.client() as client:
            found = client.find_project(title)
        assert found is not None
        return found

    def client(self) -> LabelStudio:
        return LabelStudio(self.url, self.token)

    def tasks(self, project: Project) -> list[Task]:
        with self.client() as client:
            return list(client.tasks(project.id))

    def sign_up(self, email: str, link: str = "") -> Person:
        """Make an account with the invitation, the newest one by default, as an annotator does in a browser."""
        with self.client() as client:
            link = link or client.invite_link()
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60, follow_redirects=True) as session:
            session.get(link)
            form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
            session.post(link, data=form).raise_for_status()
            me = session.get("/api/current-user/whoami").raise_for_status().json()
            token = session.get("/api/current-user/token").raise_for_status().json()["token"]
        assert me["email"] == email
        return Person(id=me["id"], email=email, token=token, url=self.url)


def started_before(environment: Path, folder: Path) -> None:
    """Give a server's folder what its first start makes: database, key, secrets; then it is up in seconds.

    The first start is made once, by the same code, and kept in Label Studio's environment: five hundred steps of its
    database take a minute of a core, for each process that runs tests.
    """
    begun = environment_of_server.ensure(environment, Console(quiet=True))
    made_by = hashlib.sha256(b"".join((ROOT / "annotation" / name).read_bytes() for name in FIRST_START)).hexdigest()
    kept = environment / f"first-start-{made_by[:8]}"
    with (environment / ".first-start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            aside = environment / ".first-start"
            shutil.rmtree(aside, ignore_errors=True)
            child = server.start(begun, aside, free_port())
            try:
                server.wait_until_healthy(child, aside, 600.0, Console(quiet=True))
            finally:
                server.stop_child(child)
            (aside / "server.json").unlink()
            aside.rename(kept)
    shutil.copytree(kept, folder)


FIRST_START = (
    "label_studio_constraints.txt", "label_studio_settings/finlm_label_studio.py", "server.py", "server_folder.py"
)  # fmt: skip
"""What a first start is made by."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# nothing but this machine can be reached
BROWSER_FLAGS += ["--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


@contextmanager
def visiting(chromium: str, served: Served, person: Person) -> Iterator[Any]:
    """A browser's context in which a person has logged in, as they do on a phone: Enter after the password."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS)
        context = browser.new_context(viewport={"width": 1366, "height": 768})
        page = context.new_page()
        page.goto(f"{served.url}/user/login/")
        page.fill("input[name=email]", person.email)
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: "/login" not in url, wait_until="load")
        # the page stays open until the browser ends: closing one whose navigation is under way may wait for ever
        yield context
        browser.close()


def open_stream(page: Any, served: Served, project: Project) -> None:
    """Open the labelling link and wait until the question, the answers and the choices are there."""
    page.goto(f"{served.url}/projects/{project.id}/data?labeling=1")
    page.wait_for_selector(".fa-levels label, .fa-ranks label", timeout=60_000)
    page.wait_for_selector(".fa-prompt .fa-text", timeout=60_000)
    page.wait_for_selector(".fa-answers .fa-text", timeout=60_000)


class Relay(BaseHTTPRequestHandler):
    """Answers in a server's stead, or passes requests on to it; says nothing on the console."""

    target = ""
    """Address of the server that requests are passed on to."""

    def body(self) -> bytes:
        """Read the request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def passed_on(self, body: bytes) -> httpx.Response:
        """Return what the server answers to this request."""
        sent = {name: self.headers[name] for name in ("Authorization", "Content-Type") if self.headers[name]}
        return httpx.request(
            self.command, self.target + self.path, content=body, headers=sent, timeout=60, trust_env=False
        )

    def reply(self, status: int, content: bytes) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of this machine as long as this lasts; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
