"""finlm reward serve: real requests to a real model; whatever comes, the scores are those of a direct call."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from drawn_rewards import CPU, drawn_reward

from finlm.ensemble import EncodedAnswer, Ensemble
from finlm.errors import UserError
from finlm.records import Message
from reward import serve
from reward.score_queue import Closed, Full, ScoreQueue
from reward.score_server import ScoreServer

ROOT = Path(__file__).parent.parent.parent
QUESTION = "What was it?"
BODY = {"prompts": [QUESTION], "responses": ["It was 7."]}
TURNS = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "It was 7."}]


@pytest.fixture(scope="module")
def folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("rewards")
    drawn_reward(tiny.base, home / "a", seed=1)
    drawn_reward(tiny.base, home / "b", seed=2)
    return home


@pytest.fixture(scope="module")
def judge(folder: Path) -> Ensemble:
    return Ensemble.load([folder / "a", folder / "b"], dtype=torch.float32, device=CPU)


def direct(judge: Ensemble, answers: Sequence[tuple[str, bool]]) -> list[float]:
    """What the members say on average, asked without a server, one answer at a time."""
    prompt = (Message(role="user", content=QUESTION),)
    return [
        float(judge.score([judge.encode(prompt, text, ended=ended)], batch_tokens=1).mean(dim=0))
        for text, ended in answers
    ]


@pytest.fixture(scope="module")
def started(judge: Ensemble) -> Iterator[Callable[..., ScoreServer]]:
    """Starts servers in this process; all are drained at the end."""
    running: list[tuple[ScoreServer, threading.Thread]] = []

    def start(token: str = "", **settings: Any) -> ScoreServer:
        server = serve.listening(serve.ServeSettings(port=0, **settings), judge, token)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.drain()
        thread.join()


@pytest.fixture(scope="module")
def plain(started: Callable[..., ScoreServer]) -> ScoreServer:
    return started(max_body_bytes=20_000, max_answers=8)


def post(server: ScoreServer, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}/score", json=body, headers=headers, timeout=60)


# ------------------------------------------------------------------------------------------------ scores


def test_both_forms_of_a_request_are_scored(plain: ScoreServer, judge: Ensemble) -> None:
    answers = [("It was 7.", True), ("", True), ("It was", False)]
    body = {"prompts": [QUESTION] * 3, "responses": [text for text, _ in answers], "ended": [True, True, False]}
    reply = post(plain, body)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.json()["scores"] == pytest.approx(direct(judge, answers), abs=1e-5)
    for mean, members in zip(reply.json()["scores"], reply.json()["members"], strict=True):
        assert mean == pytest.approx(sum(members) / 2, abs=1e-6)
    turns = post(plain, {"messages": [TURNS]})
    assert turns.json()["scores"] == pytest.approx(direct(judge, answers[:1]), abs=1e-5)
    as_turns = post(plain, {"prompts": [TURNS[:1]], "responses": [TURNS[1:]]})
    assert as_turns.json() == turns.json()


def test_twenty_threads_get_what_direct_calls_give(started: Callable[..., ScoreServer], judge: Ensemble) -> None:
    server = started(patience_seconds=0.05)
    answers = [[(f"It was {number}, {number * word}." * (1 + word), True) for word in range(3)] for number in range(20)]
    barrier = threading.Barrier(20)

    def ask(own: list[tuple[str, bool]]) -> list[float]:
        barrier.wait()
        found = []
        for _ in range(2):
            reply = post(server, {"prompts": [QUESTION] * 3, "responses": [text for text, _ in own]})
            assert reply.status_code == 200, reply.text
            found = reply.json()["scores"]
        return found

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(ask, answers))
    for got, own in zip(found, answers, strict=True):
        assert got == pytest.approx(direct(judge, own), abs=1e-5)
    assert server.queue.answers == 120
    assert server.queue.waiting == 0


def test_health_says_what_is_served(plain: ScoreServer, judge: Ensemble, folder: Path) -> None:
    reply = httpx.get(f"{plain.url}/health", timeout=60)
    assert reply.status_code == 200
    said = reply.json()
    assert said["status"] == "ok"
    assert said["models"] == [str(folder / name / "model") for name in "ab"]
    assert said["fingerprints"] == judge.fingerprints
    assert said["limits"] == {"answers": 8, "tokens": 512, "bytes": 20_000}
    assert said["queue"]["waiting"] == 0


def test_what_the_page_says_works(plain: ScoreServer, judge: Ensemble) -> None:
    page = (ROOT / "docs" / "reward_server.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"-d '(.*)'", page)
    assert len(post(plain, json.loads(body)).json()["scores"]) == 1
    (snippet,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(snippet.replace("http://127.0.0.1:8090", plain.url).replace("256", "8"), "page", "exec"), names)
    texts = [f"It was {number}." for number in range(11)]
    wanted = pytest.approx(direct(judge, [(text, True) for text in texts]), abs=1e-5)
    assert names["reward"](prompts=[QUESTION] * 11, completions=texts, other=None) == wanted
    turns = [[{"role": "assistant", "content": text}] for text in texts]
    assert names["reward"](prompts=[TURNS[:1]] * 11, completions=turns) == wanted
    names["CLIENT"].close()


# ------------------------------------------------------------------------------------------------ what is refused

LONG = "word " * 600
BAD: list[tuple[Any, int, str, str]] = [
    ([], 400, "", "not an object"),
    ({"prompts": [QUESTION]}, 400, "responses", "'responses' is missing"),
    ({"responses": ["A"]}, 400, "prompts", "'prompts' is missing"),
    ({}, 400, "prompts", "'prompts' is missing"),
    ({"promts": [QUESTION], "responses": ["A"]}, 400, "promts", "perhaps you meant 'prompts'"),
    ({"xyz": 1}, 400, "xyz", "known are prompts, responses, messages, ended"),
    ({"prompts": QUESTION, "responses": ["A"]}, 400, "prompts", "not a list"),
    ({"prompts": [], "responses": []}, 400, "prompts", "not a list with something in it"),
    ({"prompts": [QUESTION], "responses": ["A", "B"]}, 400, "responses", "1 prompts and 2 responses"),
    ({"prompts": [QUESTION, 7], "responses": ["A", "B"]}, 400, "prompts[1]", "prompts[1] is neither a text nor"),
    ({"prompts": [QUESTION, " "], "responses": ["A", "B"]}, 400, "prompts[1]", "prompts[1] is blank"),
    ({"prompts": [QUESTION], "responses": [None]}, 400, "responses[0]", "responses[0] is not a text"),
    ({"prompts": [QUESTION], "responses": [LONG]}, 400, "responses[0]", "the limit is 512"),
    ({"messages": [TURNS[:1]]}, 400, "messages[0]", "the last turn is by 'user'"),
    ({"messages": [TURNS, [TURNS[0], {"role": "assistant"}]]}, 400, "messages[1]", "messages[1][1] is no object"),
    ({"messages": [TURNS], "prompts": [QUESTION]}, 400, "prompts", "stands beside 'messages'"),
    ({"messages": [[*TURNS[:1], {"role": "assistant", "content": LONG}]]}, 400, "messages[0]", "the limit is 512"),
    ({"prompts": [QUESTION], "responses": ["A"], "ended": [1]}, 400, "ended", "not a list of true and false"),
    ({"prompts": [QUESTION], "responses": ["A"], "ended": []}, 400, "ended", "0 entries for 1 answers"),
    ({"prompts": [QUESTION] * 9, "responses": ["A"] * 9}, 413, "prompts", "9 entries, the limit is 8"),
    ({"prompts": ["x" * 20_000], "responses": ["A"]}, 413, "", "the limit is 20000 (--max_body_bytes)"),
]


@pytest.mark.parametrize(("body", "status", "field", "reason"), BAD, ids=lambda part: str(part)[:40])
def test_a_bad_request_is_told_which_field(plain: ScoreServer, body: Any, status: int, field: str, reason: str) -> None:
    reply = post(plain, body)
    assert reply.status_code == status, reply.text
    assert reply.json().get("field", "") == field
    assert reason in reply.json()["error"]


def test_what_is_no_such_request_is_refused(plain: ScoreServer) -> None:
    url, kind = plain.url, {"Content-Type": "application/json"}
    replies = {
        "json": httpx.post(f"{url}/score", content=b"{", headers=kind),
        "utf": httpx.post(f"{url}/score", content=b'{"prompts": ["\xff"]}', headers=kind),
        "kind": httpx.post(f"{url}/score", content=b"{}", headers={"Content-Type": "text/plain"}),
        "path": httpx.post(f"{url}/", json=BODY),
        "get": httpx.get(f"{url}/score"),
        "post": httpx.post(f"{url}/health", json={}),
        "put": httpx.put(f"{url}/score", json={}),
        "pieces": httpx.post(f"{url}/score", content=iter([b"{}"]), headers=kind),
    }
    statuses = {name: reply.status_code for name, reply in replies.items()}
    wanted = {"json": 400, "utf": 400, "kind": 415, "path": 404, "get": 405, "post": 405, "put": 501, "pieces": 411}
    assert statuses == wanted
    assert all(set(reply.json()) == {"error"} for reply in replies.values())
    assert "/health answers GET, not POST" in replies["post"].json()["error"]


def test_a_connection_goes_on_after_a_request_was_refused(plain: ScoreServer, judge: Ensemble) -> None:
    connection = http.client.HTTPConnection(plain.server_name, plain.server_port, timeout=60)
    content, kind = json.dumps(BODY), {"Content-Type": "application/json"}
    for path, headers, status in (("/none", kind, 404), ("/score", {}, 415), ("/score", kind, 200)):
        connection.request("POST", path, content, headers)
        reply = connection.getresponse()
        said = json.loads(reply.read())
        assert reply.status == status
    assert said["scores"] == pytest.approx(direct(judge, [("It was 7.", True)]), abs=1e-5)
    connection.close()


def test_a_body_that_ends_too_early_or_a_client_that_leaves_harms_nobody(plain: ScoreServer) -> None:
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{}"
    with socket.create_connection((plain.server_name, plain.server_port), timeout=60) as early:
        early.sendall(head)
        early.shutdown(socket.SHUT_WR)
        said = b""
        while piece := early.recv(4096):
            said += piece
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"ends after 2 of the bytes" in said
    with socket.create_connection((plain.server_name, plain.server_port), timeout=60) as gone:
        gone.sendall(head)
    assert post(plain, BODY).status_code == 200


def test_a_token_is_asked_for_where_there_is_one(started: Callable[..., ScoreServer]) -> None:
    server = started(token="s3cret-ä")
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "s3cret"}):
        for reply in (post(server, BODY, **headers), httpx.get(f"{server.url}/health", headers=headers)):
            assert reply.status_code == 401
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer" in reply.json()["error"]
    right = {"Authorization": "Bearer s3cret-ä".encode()}
    reply = httpx.post(f"{server.url}/score", json=BODY, headers=right, timeout=60)  # type: ignore[arg-type]
    assert reply.status_code == 200
    assert "s3cret" not in json.dumps(server.health())


def test_who_asks_for_too_much_at_once_is_told_to_come_again(started: Callable[..., ScoreServer]) -> None:
    reply = post(started(max_waiting=1), {"prompts": [QUESTION] * 2, "responses": ["A", "B"]})
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"


# ------------------------------------------------------------------------------------------------ the queue


class Gate:
    """The real scores, held back until the gate is opened."""

    def __init__(self, judge: Ensemble) -> None:
        self.sizes: list[int] = []
        self.is_in, self.opened = threading.Event(), threading.Event()
        self._judge = judge

    def __call__(self, answers: Sequence[EncodedAnswer]) -> torch.Tensor:
        self.sizes.append(len(answers))
        self.is_in.set()
        assert self.opened.wait(60)
        if any(len(answer) > 500 for answer in answers):
            raise RuntimeError("no memory for this one")
        return self._judge.score(answers, batch_tokens=4096)


def answers_of(judge: Ensemble, *texts: str) -> list[EncodedAnswer]:
    return [judge.encode((Message(role="user", content=QUESTION),), text) for text in texts]


def test_requests_that_wait_share_a_pass(judge: Ensemble) -> None:
    gate = Gate(judge)
    queue = ScoreQueue(gate, batch_tokens=4096, patience_seconds=0.0, max_waiting=11)
    first = queue.submit(answers_of(judge, "0"))
    assert gate.is_in.wait(60)
    rest = [queue.submit(answers_of(judge, f"{number}", f"{number} again")) for number in range(1, 6)]
    assert queue.waiting == 11
    with pytest.raises(Full):
        queue.submit(answers_of(judge, "too many"))
    gate.opened.set()
    assert first.result().shape == (2, 1)
    for number, scores in enumerate(rest, 1):
        wanted = judge.score(answers_of(judge, f"{number}", f"{number} again"), batch_tokens=1)
        torch.testing.assert_close(scores.result(), wanted, atol=1e-5, rtol=0)
    assert gate.sizes == [1, 10]
    queue.close()
    assert (queue.waiting, queue.answers, queue.passes) == (0, 11, 2)
    with pytest.raises(Closed):
        queue.submit(answers_of(judge, "late"))


def test_a_full_pass_leaves_the_rest_to_the_next(judge: Ensemble) -> None:
    gate = Gate(judge)
    size = len(answers_of(judge, "0")[0])
    queue = ScoreQueue(gate, batch_tokens=2 * size, patience_seconds=0.0, max_waiting=99)
    found = [queue.submit(answers_of(judge, "0"))]
    assert gate.is_in.wait(60)
    found += [queue.submit(answers_of(judge, "0")) for _ in range(5)]
    gate.opened.set()
    queue.close()  # what waits is scored first
    assert [scores.result().shape[1] for scores in found] == [1] * 6
    assert gate.sizes == [1, 2, 2, 1]


def test_the_fault_of_one_request_is_not_the_others(judge: Ensemble) -> None:
    gate = Gate(judge)
    queue = ScoreQueue(gate, batch_tokens=4096, patience_seconds=0.0, max_waiting=99)
    queue.submit(answers_of(judge, "0"))
    assert gate.is_in.wait(60)
    good, bad = queue.submit(answers_of(judge, "1")), queue.submit(answers_of(judge, "x " * 600))
    gate.opened.set()
    assert good.result().shape == (2, 1)
    with pytest.raises(RuntimeError, match="no memory for this one"):
        bad.result()
    queue.close()


# ------------------------------------------------------------------------------------------------ the process


def begun(folder: Path, *flags: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """Start the entry as a user would; return it and its address."""
    command = [sys.executable, str(ROOT / "reward" / "serve.py"), "--model", str(folder / "a"), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--dtype", "float32", "--threads", "1", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("reward model on "):
        pytest.fail(process.communicate()[1])
    return process, line.split(": ", 1)[1].split()[0]


def test_sigterm_ends_it_once_what_was_asked_is_answered(folder: Path) -> None:
    """It listens to others who have its token."""
    process, url = begun(folder, "--patience_seconds", "600", "--host", "0.0.0.0", FINLM_REWARD_TOKEN="s3cret")
    url, headers = url.replace("0.0.0.0", "127.0.0.1"), {"Authorization": "Bearer s3cret"}
    assert httpx.get(f"{url}/health", timeout=60).status_code == 401
    with httpx.Client(base_url=url, timeout=60, headers=headers) as idle, ThreadPoolExecutor(1) as pool:
        assert idle.get("/health").json()["status"] == "ok"  # and the connection stays open
        asked = pool.submit(httpx.post, f"{url}/score", json=BODY, headers=headers, timeout=300)
        while not httpx.get(f"{url}/health", headers=headers, timeout=60).json()["queue"]["waiting"]:
            time.sleep(0.02)  # it waits for others to share its pass with, for ten minutes
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
        reply = asked.result()
    alone = Ensemble.load(folder / "a", dtype=torch.float32, device=CPU)
    assert reply.status_code == 200
    assert reply.json() == {"scores": pytest.approx(direct(alone, [("It was 7.", True)]), abs=1e-5)}
    assert process.returncode == 143
    assert "stopped by SIGTERM: 1 answers scored in 1 passes." in err
    assert "who has its token" in " ".join(err.split())
    assert "s3cret" not in err
    assert "Traceback" not in err
    assert out == ""


def test_who_listens_to_others_is_warned(folder: Path) -> None:
    process, url = begun(folder, "--host", "0.0.0.0", FINLM_REWARD_TOKEN="")
    status = httpx.get(url.replace("0.0.0.0", "127.0.0.1") + "/health", timeout=60).status_code
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert status == 200
    assert process.returncode == 130
    assert "anybody who reaches it; set FINLM_REWARD_TOKEN" in " ".join(err.split())


def test_an_address_that_is_taken_is_refused(judge: Ensemble, plain: ScoreServer) -> None:
    before = threading.active_count()
    with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+ cannot be listened on .*give another --port"):
        serve.listening(serve.ServeSettings(port=plain.server_port), judge, "")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_tokens", 0),
        ("max_answers", 0),
        ("max_body_bytes", 0),
        ("max_waiting", 0),
        ("patience_seconds", -1.0),
        ("max_length", -1),
        ("idle_seconds", 0.0),
        ("port", 70_000),
        ("reduce", "max"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is "):
        serve.ServeSettings(**{name: value})


def test_only_this_machine_is_loopback() -> None:
    assert all(serve.is_loopback(host) for host in ("127.0.0.1", "127.0.0.9", "localhost", "::1"))
    assert not any(serve.is_loopback(host) for host in ("0.0.0.0", "192.168.1.2", "::", "example.org"))
