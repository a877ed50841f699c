"""An OpenAI-compatible server that follows a script, in a process of its own: latency, a limit, every kind of fault.

    python benchmarks/scripted_server.py --latency 0.2 --most 64 --faults 0.06

It prints its address and answers `/v1/chat/completions` about the filings that `benchmarks/selfqa_server.py` writes:
questions about their sentences, and answers that quote them. What goes wrong follows from the request's text and not
from time: a reply that is no JSON or breaks off, whenever it is asked; and, from the text and how often it came, HTTP
500, 429 with Retry-After, a body that breaks off, and a call that hangs. More calls under way than `--most` are refused
with 429. `/stats` tells what was asked and how often.
"""

import argparse
import asyncio
import hashlib
import json
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

FAULTS = {"500": 0.3, "429": 0.25, "cut-body": 0.15, "hang": 0.06}
"""Of the faults, those of single attempts; nothing is paid for them."""
REPLIES = {"malformed": 0.12, "cut-reply": 0.12}
"""Of the faults, those of what a model writes to a prompt; they are paid for."""
PAID = {"ok", *REPLIES}
SENTENCE = re.compile(r"Branch (\d+) of (.+?) held deposits of (\$[\d.,]+ million) at the end of (\d{4})\.")


@dataclass
class Script:
    """What the server does and has done."""

    latency: float
    most: int
    faults: float
    hang_seconds: float
    attempts: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    peak: int = 0
    first: float = 0.0
    last: float = 0.0
    busy: float = 0.0
    """Seconds that calls were under way, added up: what they would take one after the other."""

    def outcome(self, prompt: str) -> str:
        """Return what becomes of an attempt; the third of one prompt does not fail."""
        self.attempts[prompt] += 1
        written = chosen(REPLIES, self.faults, prompt)
        if self.attempts[prompt] > 2:
            return written
        failed = chosen(FAULTS, self.faults, f"{self.attempts[prompt]}{prompt}")
        return written if failed == "ok" else failed


def chosen(kinds: dict[str, float], faults: float, text: str) -> str:
    """Return a kind of fault by the hash of a text, mostly `ok`."""
    at = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
    for kind, share in kinds.items():
        if at < share * faults:
            return kind
        at -= share * faults
    return "ok"


def reply_to(prompt: str) -> str:
    """Return the reply that the script has for a prompt."""
    asked = re.search(r"^Question: (.+)$", prompt, re.MULTILINE)
    if asked is None:
        number = int((re.search(r"Write (\d+) questions", prompt) or ["", "1"])[1])
        lines = [
            f"Question [figure]: What deposits did branch {branch} of {name} hold at the end of {year}?"
            for branch, name, _, year in SENTENCE.findall(prompt)[:number]
        ]
        return "\n".join(lines)
    for found in SENTENCE.finditer(prompt):
        branch, name, amount, year = found.groups()
        if f"branch {branch} of {name} " in asked[1] and year in asked[1]:
            answer = f"Branch {branch} of {name} held deposits of {amount} at the end of {year}."
            return json.dumps({"answerable": True, "answer": answer, "evidence": [found[0]]})
    return json.dumps({"answerable": False, "answer": "", "evidence": []})


def body_of(content: str) -> bytes:
    """Return a chat completion."""
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 300, "completion_tokens": 40, "total_tokens": 340}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    made = {"id": "x", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}
    return json.dumps(made | {"usage": usage}).encode()


async def worked(script: Script, outcome: str, reader: asyncio.StreamReader) -> None:
    """Take a call's time; a call that hangs ends when who asked has gone, as an engine drops it."""
    if outcome != "hang":
        await asyncio.sleep(script.latency)
        return
    with suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), script.hang_seconds)


async def answer(script: Script, content: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one call; False where the connection is at its end."""
    prompt = json.loads(content)["messages"][-1]["content"]
    began = time.monotonic()
    script.first = script.first or began
    if script.under_way >= script.most:
        script.outcomes["refused"] += 1
        respond(writer, 429, b'{"error": {"message": "too many"}}', "Retry-After: 0.2\r\n")
        return True
    script.under_way += 1
    script.peak = max(script.peak, script.under_way)
    outcome = script.outcome(prompt)
    script.outcomes[outcome] += 1
    try:
        await worked(script, outcome, reader)
    finally:
        script.under_way -= 1
        script.last = time.monotonic()
        script.busy += script.last - began
    if outcome in PAID:
        script.paid[prompt] += 1
    reply = reply_to(prompt)
    if outcome == "ok":
        respond(writer, 200, body_of(reply))
    elif outcome in {"500", "429"}:
        respond(writer, int(outcome), b'{"error": {"message": "scripted"}}', "Retry-After: 0.1\r\n")
    elif outcome == "malformed":
        respond(writer, 200, body_of("I would rather not." if reply[:1] == "{" else reply))
    elif outcome == "cut-reply":
        respond(writer, 200, body_of(reply[: len(reply) // 3] if reply[:1] == "{" else reply))
    elif outcome == "cut-body":
        whole = body_of(reply)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(whole)}\r\n\r\n"
        writer.write(head.encode() + whole[: len(whole) // 2])
    return outcome not in {"cut-body", "hang"}


def respond(writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "") -> None:
    """Write a whole response."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def serve(script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection, one after the other."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            content = await reader.readexactly(int(length[1])) if length else b""
            if head.startswith(b"GET /stats"):
                respond(writer, 200, json.dumps(stats(script)).encode())
            elif not await answer(script, content, reader, writer):
                break
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the other side has gone
    finally:
        writer.close()


def stats(script: Script) -> dict[str, object]:
    """Return what was asked."""
    return {
        "prompts": len(script.attempts),
        "attempts": script.attempts.total(),
        "outcomes": dict(script.outcomes),
        "paid": script.paid.total(),
        "paid_prompts": len(script.paid),
        "paid_again": sum(count - 1 for count in script.paid.values()),
        "peak": script.peak,
        "seconds": script.last - script.first,
        "busy_seconds": script.busy,
    }


async def run(given: argparse.Namespace) -> None:
    """Serve for ever."""
    script = Script(given.latency, given.most, given.faults, given.hang_seconds)
    server = await asyncio.start_server(
        lambda reader, writer: serve(script, reader, writer), "127.0.0.1", given.port, limit=2**22, backlog=1024
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: a free one (default)")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds a call (default: %(default)s)")
    parser.add_argument("--most", type=int, default=64, help="calls under way (default: %(default)s)")
    parser.add_argument("--faults", type=float, default=0.06, help="share of attempts that fail (default: %(default)s)")
    parser.add_argument("--hang-seconds", type=float, default=30.0, help="of a call that hangs (default: %(default)s)")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
