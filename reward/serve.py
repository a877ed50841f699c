"""Serves a reward model over HTTP, for trainers in other processes and languages.

finlm reward serve                                        runs/reward on http://127.0.0.1:8090
finlm reward serve --model '[runs/reward-a, runs/reward-b]' --reduce min

POST /score takes {"prompts": […], "responses": […]} or {"messages": [[…], …]} and answers {"scores": […]}; GET /health
says what is served. Requests that come at the same time share a pass. SIGTERM and Ctrl-C end it once what was asked is
answered. Only this machine reaches it unless --host says otherwise; with FINLM_REWARD_TOKEN in the environment clients
must send that as a bearer token. docs/reward_server.md has the requests.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import ipaddress
import signal
import threading
from dataclasses import dataclass, field
from functools import partial

import torch

from finlm import config, model
from finlm.ensemble import REDUCTIONS, Ensemble
from finlm.errors import UserError
from finlm.progress import console
from reward.score_queue import ScoreQueue
from reward.score_server import Limits, ScoreServer

TOKEN = "FINLM_REWARD_TOKEN"


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of `finlm reward serve`."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    model: list[str] | str = "{runs}/reward"
    """Reward model: a folder, a folder of several, or a list of folders; several must stand on one base."""
    reduce: str = "mean"
    """What `scores` are where there are several: the mean or the min of their scores."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own lets others ask."""
    port: int = 8090
    """Port to listen on; 0 takes a free one and prints it."""
    batch_tokens: int = 8192
    """Tokens per forward pass at most, padding included; a longer answer goes alone."""
    patience_seconds: float = 0.005
    """How long a pass waits for more requests to share it, in seconds."""
    max_length: int = 0
    """Tokens of prompt and answer at most; 0: as many as the base has positions for."""
    max_answers: int = 256
    """Answers of one request at most."""
    max_body_bytes: int = 16_000_000
    """Bytes of one request's body at most."""
    max_waiting: int = 4096
    """Answers of all requests that may wait; beyond that a request is refused with status 503."""
    idle_seconds: float = 60.0
    """A connection on which nothing comes for so long is closed, in seconds."""
    dtype: str = "auto"
    """Weights: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "max_answers", "max_body_bytes", "max_waiting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        for name in ("patience_seconds", "max_length"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if self.idle_seconds <= 0:
            raise ValueError(f"idle_seconds is {self.idle_seconds}; it must be above 0.")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; it must be 0 (any) to 65535.")
        if self.reduce not in REDUCTIONS:
            raise ValueError(f"reduce is {self.reduce!r}; it must be mean or min.")


def main(settings: ServeSettings) -> None:
    """Load, listen, answer until told to stop."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = model.device_of_this_process()
    judge = Ensemble.load(settings.model, dtype=model.choose_dtype(settings.dtype, device), device=device)
    token = os.environ.get(TOKEN, "")
    server = listening(settings, judge, token)
    stopped_by: list[int] = []
    asked_to_stop = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopped_by.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait
        asked_to_stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if not is_loopback(settings.host):
        who = "who has its token" if token else f"anybody who reaches it; set {TOKEN} to change that"
        console.print(f"[yellow]listening on {settings.host}: not only this machine can ask, but {who}.")
    thread = threading.Thread(target=server.serve_forever, name="connections", daemon=True)
    thread.start()
    print(f"reward model on {device}: {server.url} (POST /score, GET /health)", flush=True)
    asked_to_stop.wait()
    server.drain()
    thread.join()
    name = signal.Signals(stopped_by[0]).name
    print(f"stopped by {name}: {server.queue.answers} answers scored in {server.queue.passes} passes.", file=sys.stderr)
    sys.exit(128 + stopped_by[0])


def listening(settings: ServeSettings, judge: Ensemble, token: str) -> ScoreServer:
    """Return a server that has its port.

    Raises:
        UserError: The address cannot be had.
    """
    limits = Limits(
        max_body_bytes=settings.max_body_bytes,
        max_answers=settings.max_answers,
        max_length=settings.max_length or judge.longest,
        idle_seconds=settings.idle_seconds,
    )
    queue = ScoreQueue(
        partial(judge.score, batch_tokens=settings.batch_tokens),
        batch_tokens=settings.batch_tokens,
        patience_seconds=settings.patience_seconds,
        max_waiting=settings.max_waiting,
    )
    address = (settings.host, settings.port)
    try:
        return ScoreServer(address, judge, queue, limits, reduce=settings.reduce, token=token)
    except OSError as error:
        queue.close()
        raise UserError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror or error}); give another --port "
            "or --host."
        ) from error


def is_loopback(host: str) -> bool:
    """True if only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    config.run(main, ServeSettings, __doc__ or "")
