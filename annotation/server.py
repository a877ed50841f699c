"""Starts and ends a Label Studio of our own: on 127.0.0.1, calling nobody, on sqlite or PostgreSQL."""

import collections
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from annotation.database import PostgreSQL, require_same
from annotation.server_folder import Address, Secrets, copies_of, note_address, open_secrets, read_address
from finlm.errors import UserError

HOST = "127.0.0.1"
STOP_SECONDS = 15.0
"""How long the server may take to end before it is killed."""


def running(folder: Path) -> psutil.Process | None:
    """The process of the server that was started from this folder, if it is alive."""
    if not (folder / "server.json").is_file():
        return None
    address = read_address(folder)
    try:
        process = psutil.Process(address.pid)
        is_same = abs(process.create_time() - address.started) < 1.0
        return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def require_free_port(port: int) -> None:
    """Refuse a taken port: Label Studio itself would silently move on to the next one.

    Raises:
        UserError: Something listens there, or the port cannot be bound.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as its own server does: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"--port {port} of {HOST} cannot be used ({error}); stop what listens there or choose another --port."
            ) from error


def start(
    command: Path, folder: Path, port: int, database: PostgreSQL | None = None, *, takes_hints: bool = False
) -> subprocess.Popen[bytes]:
    """Start the server in a session of its own, so that a Ctrl-C reaches only us and we end it in good order.

    Raises:
        UserError: The folder's annotations are in another database.
    """
    url = database.url if database else ""
    if (folder / "server.json").is_file():
        require_same(read_address(folder).database, url, str(folder))
    known = open_secrets(folder)
    data = folder.absolute() / "data"
    data.mkdir(exist_ok=True, mode=0o700)
    copies_of(folder).mkdir(exist_ok=True, mode=0o700)
    environment = _server_environment(data, copies_of(folder), known) | (
        database.server_environment() if database else {}
    )
    if takes_hints:  # its guard against calls into the own network would refuse our receiver
        environment["SSRF_PROTECTION_ENABLED"] = "false"
    arguments = ["start", "--no-browser", "--internal-host", HOST, "--port", str(port), "--log-level", "WARNING"]
    with os.fdopen(os.open(folder / "label-studio.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
        child = subprocess.Popen(
            [str(command), *arguments],
            env=environment,
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    started = psutil.Process(child.pid).create_time()
    note_address(folder, Address(url=f"http://{HOST}:{port}", pid=child.pid, started=started, database=url))
    return child


def _server_environment(data: Path, copies: Path, known: Secrets) -> dict[str, str]:
    """Only what the server needs: the keys of other services in our own environment are none of its business."""
    passed = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "LD_LIBRARY_PATH")
    inherited = {name: os.environ[name] for name in passed if name in os.environ}
    return {
        **inherited,
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USERNAME": known.email,
        "LABEL_STUDIO_PASSWORD": known.password,
        "LABEL_STUDIO_USER_TOKEN": known.token,
        # both are read when the organisation is created, which is at the first start only
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # no calls to outside: usage statistics, release check, error reports, feature flags
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
        "LABEL_STUDIO_SENTRY_DSN": "",  # set and empty: the default is a real address
        "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_FEATURE_FLAGS_OFFLINE": "true",
        # its storage may read and write here and nowhere else
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(copies),
        "DJANGO_SETTINGS_MODULE": "finlm_label_studio",
        "PYTHONPATH": str(Path(__file__).parent / "label_studio_settings"),
        "PYTHONUNBUFFERED": "1",
    }


def wait_until_healthy(child: subprocess.Popen[bytes], folder: Path, seconds: float, console: Console) -> None:
    """Wait for the server's health page, showing how far its database has come.

    Raises:
        UserError: The server ended, or was not ready in time; the message has the end of its log.
    """
    url, log = read_address(folder).url, folder / "label-studio.log"
    database = folder / "data" / "label_studio.sqlite3"
    began = time.monotonic()
    with console.status("Starting Label Studio (the first start makes its database, about a minute)") as status:
        while time.monotonic() - began < seconds:
            if child.poll() is not None:
                raise UserError(f"Label Studio ended with exit code {child.returncode}: {_end_of(log)}; see {log}.")
            if _is_healthy(url):
                return
            status.update(f"Starting Label Studio, {time.monotonic() - began:.0f} s: {_progress(database)}")
            time.sleep(0.5)
    raise UserError(f"Label Studio was not ready after {seconds:.0f} s; give it more --start_seconds, or see {log}.")


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _progress(database: Path) -> str:
    """How many steps of its database the first start has made; it prints none of them itself."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            steps: int = connection.execute("SELECT count(*) FROM django_migrations").fetchone()[0]
    except sqlite3.Error:  # not there yet, or locked for a moment
        return "loading"
    return f"{steps} steps of its database made"


def _end_of(log: Path) -> str:
    lines = collections.deque((line for line in log.read_text(errors="replace").splitlines() if line.strip()), maxlen=1)
    return lines[0].strip() if lines else "it printed nothing"


def stop(process: psutil.Process) -> None:
    """End a server and its children: politely, then by force."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        _signal(member, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for member in alive:
        _signal(member, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=STOP_SECONDS)


def stop_child(child: subprocess.Popen[bytes]) -> None:
    """End the server that `start` returned, if it has not ended yet."""
    if child.poll() is None:
        stop(psutil.Process(child.pid))
        child.wait()


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
