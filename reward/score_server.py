"""POST /score and GET /health over HTTP, a thread for each connection, scores by one queue.

Replies are JSON. What is refused has `error`, one sentence, and `field` where something in the body is wrong:

    400 not JSON, or a field      401 token      404, 405 path, method      411 no Content-Length      413 too large
    415 not application/json      500 model      503 too many answers wait, or the server ends
"""

import hmac
import http.server
import json
import socket
import socketserver
import sys
import threading
from dataclasses import dataclass
from typing import Any

from finlm.ensemble import Ensemble
from finlm.errors import UserError
from reward.row_scores import named
from reward.score_queue import Closed, Full, ScoreQueue
from reward.score_requests import Refused, parse_body

DRAINED_BYTES = 64_000_000
"""Of a body that is refused so much is read and forgotten: a client that still sends would not hear the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server takes.

    Example:
        Limits(max_body_bytes=16_000_000, max_answers=256, max_length=2048, idle_seconds=60.0)
    """

    max_body_bytes: int
    max_answers: int
    """Answers of one request."""
    max_length: int
    """Tokens of prompt and answer."""
    idle_seconds: float
    """After so long a silence a connection is closed."""


class ScoreServer(http.server.ThreadingHTTPServer):
    """A reward model, or several, behind HTTP.

    Args:
        address: Host and port; port 0 takes a free one.
        judge: The reward models.
        queue: Scores by them.
        limits: What is taken.
        reduce: mean or min of several models' scores.
        token: What clients must bring; empty: nothing.
    """

    daemon_threads = False  # so that `drain` can wait for them
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], judge: Ensemble, queue: ScoreQueue, limits: Limits, *, reduce: str, token: str
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.queue, self.limits, self.reduce = queue, limits, reduce
        self.is_stopping = False
        self.lock = threading.Lock()
        self.connections: set[Handler] = set()
        self._judge, self._token = judge, token
        self._described = {
            "models": [str(member.folder) for member in judge.members],
            "reduce": reduce,
            "fingerprints": judge.fingerprints,
            "limits": {"answers": limits.max_answers, "tokens": limits.max_length, "bytes": limits.max_body_bytes},
        }
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind, without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where it answers."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}"

    def drain(self) -> None:
        """Take no new request, answer those that are being answered, and end; `serve_forever` must be running."""
        self.shutdown()
        self.queue.hurry()
        with self.lock:
            self.is_stopping = True
            for handler in self.connections:
                if not handler.is_busy:
                    handler.hang_up()
        self.server_close()
        self.queue.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error of ours."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    # ------------------------------------------------------------------------------------------ what is answered

    def check_token(self, given: str) -> None:
        """Check a request's Authorization.

        Raises:
            Refused: It does not bring the token.
        """
        # the library reads headers as latin-1, whatever their bytes were
        if self._token and not hmac.compare_digest(given.encode("latin-1"), f"Bearer {self._token}".encode()):
            raise Refused(401, "the token is missing or another one; send it as 'Authorization: Bearer …'")

    def health(self) -> dict[str, Any]:
        """Return what GET /health says."""
        queue = {"waiting": self.queue.waiting, "answers": self.queue.answers, "passes": self.queue.passes}
        return {"status": "stopping" if self.is_stopping else "ok", **self._described, "queue": queue}

    def scores(self, content: bytes) -> dict[str, Any]:
        """Return what POST /score answers to a body.

        Raises:
            Refused: It cannot be scored.
        """
        field, asked = parse_body(content, max_answers=self.limits.max_answers)
        encoded = [self._judge.encode(one.prompt, one.answer, ended=one.ended) for one in asked]
        for place, answer in enumerate(encoded):
            if len(answer) > self.limits.max_length:
                said = f"{field}[{place}] has {len(answer)} tokens with its prompt, the limit is"
                raise Refused(400, f"{said} {self.limits.max_length} (--max_length)", f"{field}[{place}]")
        try:
            scores = named(self.queue.submit(encoded).result(), self.reduce)
        except Full as error:
            raise Refused(503, f"{self.queue.waiting} answers wait already; ask again in a moment") from error
        except Closed as error:
            raise Refused(503, "the server ends") from error
        except (UserError, RuntimeError) as error:  # RuntimeError: above all, memory
            raise Refused(500, " ".join(str(error).split())[:500]) from error
        found: dict[str, Any] = {"scores": [one.score for one in scores]}
        if len(self._judge.members) > 1:
            found["members"] = [list(one.scores) for one in scores]
        return found


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection.

    Attributes:
        is_busy: True from a request's first line to the end of its reply.
    """

    server: ScoreServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Let the server know of the connection."""
        self.is_busy = False
        super().setup()
        self.connection.settimeout(self.server.limits.idle_seconds)
        with self.server.lock:
            self.server.connections.add(self)
            if self.server.is_stopping:
                self.hang_up()

    def finish(self) -> None:
        """Let the server forget it."""
        with self.server.lock:
            self.server.connections.discard(self)
        super().finish()

    def hang_up(self) -> None:
        """Have the next read find the end of the stream."""
        try:
            self.connection.shutdown(socket.SHUT_RD)
        except OSError:
            return  # the client was faster

    def parse_request(self) -> bool:
        """Read the headers."""
        with self.server.lock:
            self.is_busy = True
        return super().parse_request()

    def handle_one_request(self) -> None:
        """Answer a request, and the next one unless the server ends."""
        super().handle_one_request()
        with self.server.lock:
            self.is_busy = False
            if self.server.is_stopping:
                self.close_connection = True

    def version_string(self) -> str:
        """Name the program and no versions."""
        return "finlm"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: /health counts."""

    def do_GET(self) -> None:
        """Answer GET /health."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer POST /score."""
        self._answer("POST")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Say what the library finds wrong with a request as JSON too."""
        self.close_connection = True
        self._reply(code, {"error": message or self.responses.get(code, ("unknown",))[0]})

    def _answer(self, method: str) -> None:
        self._unread = 0
        try:
            if method == "POST":
                self._unread = self._length()
            elif self.headers.get("Content-Length", "0") != "0":
                self.close_connection = True  # what follows is no request
            self.server.check_token(self.headers.get("Authorization", ""))
            reply = self._routed(method)
            status = 200
        except Refused as refused:
            status, reply = refused.status, {"error": str(refused)}
            reply |= {"field": refused.field} if refused.field else {}
            self._forget_the_rest()
        self._reply(status, reply)

    def _routed(self, method: str) -> dict[str, Any]:
        path = self.path.partition("?")[0]
        known = {"/health": "GET", "/score": "POST"}
        if path not in known:
            raise Refused(404, f"there is no {path}; ask POST /score or GET /health")
        if known[path] != method:
            raise Refused(405, f"{path} answers {known[path]}, not {method}")
        return self.server.health() if method == "GET" else self.server.scores(self._body())

    def _length(self) -> int:
        said = self.headers.get("Content-Length")
        if said is None or not said.strip().isdecimal():
            self.close_connection = True
            reason = "is missing" if said is None else f"is {said!r}"
            raise Refused(411, f"Content-Length {reason}; send the body in one piece, with its length in bytes")
        return int(said)

    def _body(self) -> bytes:
        most = self.server.limits.max_body_bytes
        if self._unread > most:
            raise Refused(413, f"the body has {self._unread} bytes, the limit is {most} (--max_body_bytes)")
        if self.headers.get_content_type() != "application/json":
            kind = self.headers.get("Content-Type", "missing")
            raise Refused(415, f"Content-Type is {kind}; send application/json")
        content = self.rfile.read(self._unread)
        if len(content) < self._unread:
            self.close_connection = True
            self._unread = 0
            raise Refused(400, f"the body ends after {len(content)} of the bytes that Content-Length promises")
        self._unread = 0
        return content

    def _forget_the_rest(self) -> None:
        """Read what is left of a body that nobody wants, so that the next request begins where it begins."""
        if self._unread > DRAINED_BYTES:
            self.close_connection = True
        left = min(self._unread, DRAINED_BYTES)
        while left > 0 and (piece := self.rfile.read(min(left, 1 << 16))):
            left -= len(piece)

    def _reply(self, status: int, reply: dict[str, Any]) -> None:
        content = json.dumps(reply, ensure_ascii=False).encode()
        if self.server.is_stopping:
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        for wanted, name, value in ((401, "WWW-Authenticate", "Bearer"), (503, "Retry-After", "1")):
            if status == wanted:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
