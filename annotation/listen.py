"""Pulls whenever Label Studio says that something changed, and now and then anyway.

finlm annotate listen                      until Ctrl-C; the server must have been started with --hints true

Label Studio calls this process within an annotator's request, waits a second at most and never repeats a call. What it
says is therefore taken for nothing but a hint: its content is not read, and a lost, doubled or forged one only shifts
the moment of the next pull, which fetches what there is.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import contextlib
import datetime as dt
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rich.console import Console

from annotation.connection import connect, require_project
from annotation.pulling import PullSettings, pull_and_export
from annotation.server import HOST
from finlm.config import run
from finlm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ListenSettings(PullSettings):
    """Settings of `finlm annotate listen`: those of every pull, and where hints are taken."""

    host: str = HOST
    """Address that hints are taken on; this machine alone by default."""
    port: int = 8081
    """Port that hints are taken on."""
    settle_seconds: float = 2.0
    """How long to wait after a hint, so that one pull serves many."""
    every_seconds: float = 300.0
    """A pull is made this often without any hint."""

    def __post_init__(self) -> None:
        if self.settle_seconds < 0 or self.every_seconds <= 0:
            raise UserError(
                f"--settle_seconds {self.settle_seconds} must be 0 or more, --every_seconds {self.every_seconds} more."
            )


def main(settings: ListenSettings) -> None:
    """Take hints, ask the server for them, pull until Ctrl-C."""
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's SIGTERM ends us like Ctrl-C
    hinted = threading.Event()
    with receiver(settings.host, settings.port, hinted) as address, asked_for(settings, address):
        console.print(f"Waiting for hints on {address}; Ctrl-C ends it.", soft_wrap=True, highlight=False)
        try:
            while True:
                pull_once(settings, console)
                if hinted.wait(settings.every_seconds):
                    time.sleep(settings.settle_seconds)
                hinted.clear()  # before the pull: a hint that comes during it leads to another one
        except KeyboardInterrupt:
            console.print("\nNo more hints are taken; finlm annotate pull fetches what comes later.")


@contextlib.contextmanager
def receiver(host: str, port: int, hinted: threading.Event) -> Iterator[str]:
    """Answer every POST at once and note that there was one; yield the address.

    Raises:
        UserError: The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hinted.set()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing: hints are many."""

    try:
        taking = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port} of {host} cannot be used ({error}); choose another --port.") from error
    thread = threading.Thread(target=taking.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{taking.server_port}"
    finally:
        taking.shutdown()
        thread.join()
        taking.server_close()


@contextlib.contextmanager
def asked_for(settings: ListenSettings, address: str) -> Iterator[None]:
    """Have Label Studio call the address as long as this lasts."""
    with connect(settings.url, settings.server) as client:
        hook = client.hint_at(require_project(client, settings.project).id, address)
    try:
        yield
    finally:
        with contextlib.suppress(UserError), connect(settings.url, settings.server) as client:
            client.forget_hint(hook)


def pull_once(settings: ListenSettings, console: Console) -> None:
    """Pull as `finlm annotate pull` does; what is in the way now may not be at the next hint."""
    try:
        pull_and_export(settings, console)
    except UserError as error:
        console.print(f"{dt.datetime.now():%H:%M:%S} not pulled: {error}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run(main, ListenSettings, "Pulls whenever Label Studio says that something changed.")
