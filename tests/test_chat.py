"""The terminal chat: several turns in the recipe's format, streamed; the answers are those that sampling gives."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chain import Chain
from tiny import figure

from finlm import chat, chat_format, generation, model
from finlm.records import Message

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
ASKED = "What was Cedarfield Inc.'s revenue in fiscal 2024?"
PASSAGE = (
    f"Cedarfield Inc. Revenue was {figure('Cedarfield', 'Revenue', 2024)} in fiscal 2024 and "
    f"{figure('Cedarfield', 'Revenue', 2023)} in fiscal 2023."
)


class Pieces(io.StringIO):
    """A terminal that remembers what came in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return super().write(text)


@pytest.fixture
def talk(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pieces]:
    """Says the lines one after the other and returns what stood on the screen."""

    def say(*lines: str, **settings: Any) -> Pieces:
        waiting: Iterator[str] = iter(lines)

        def read(prompt: str = "") -> str:
            try:
                return next(waiting)
            except StopIteration:
                raise EOFError from None

        screen = Pieces()
        monkeypatch.setattr("builtins.input", read)
        monkeypatch.setattr(sys, "stdout", screen)
        settings = {"model": str(tiny.base), "temperature": 0.0, "max_new_tokens": 24, "dtype": "float32", **settings}
        chat.main(chat.ChatSettings(**settings))
        monkeypatch.undo()
        return screen

    return say


def greedy(tiny: Any, *turns: tuple[str, str]) -> str:
    """The same by the function that every other stage samples with."""
    policy, tokenizer = model.load_policy(tiny.base, dtype=torch.float32, device=CPU)
    ids = chat_format.encode(tokenizer, [Message(role=role, content=text) for role, text in turns]).ids
    sampling = generation.Sampling(max_new_tokens=24, temperature=0.0)
    return generation.sample(policy, tokenizer, [ids], sampling, seed=0, batch_size=1)[0].text(tokenizer)


def said(screen: Pieces) -> list[str]:
    return [line.removeprefix("Assistant:").strip() for line in screen.getvalue().splitlines()]


def test_answers_see_the_turns_before_them(tiny: Any, talk: Callable[..., Pieces]) -> None:
    first = greedy(tiny, ("user", ASKED))
    second = greedy(tiny, ("user", ASKED), ("assistant", first), ("user", "And in fiscal 2023?"))
    assert first
    assert second != greedy(tiny, ("user", "And in fiscal 2023?")), "the second question alone must be another prompt"
    assert said(talk(ASKED, "And in fiscal 2023?")) == [first, second]


def test_new_forgets_and_a_system_sentence_stays(tiny: Any, talk: Callable[..., Pieces]) -> None:
    system = ("system", "Answer in one sentence.")
    alone = greedy(tiny, system, ("user", ASKED))
    assert said(talk(PASSAGE, "/new", ASKED, system=system[1]))[-1] == alone


def test_an_answer_is_streamed(talk: Callable[..., Pieces]) -> None:
    pieces = [piece for piece in talk(ASKED).pieces if piece.strip()]
    assert pieces[0] == "Assistant:"
    assert len(pieces) > 3


def test_the_oldest_turn_makes_room(tiny: Any, talk: Callable[..., Pieces], capsys: pytest.CaptureFixture[str]) -> None:
    _, tokenizer = model.load_policy(tiny.base, dtype=torch.float32, device=CPU)
    room = len(chat_format.encode(tokenizer, [Message(role="user", content=ASKED)]).ids) + 24
    found = said(talk("What was Jay Inc.'s revenue in fiscal 2023?", ASKED, max_length=room))
    assert found[-1] == greedy(tiny, ("user", ASKED))
    assert "the oldest turn is forgotten" in capsys.readouterr().err


def test_a_line_that_never_fits_is_refused(talk: Callable[..., Pieces], capsys: pytest.CaptureFixture[str]) -> None:
    assert said(talk("revenue " * 100, max_length=60)) == []
    assert "say it shorter" in capsys.readouterr().err


def test_a_fault_while_answering_is_raised_and_does_not_hang(
    talk: Callable[..., Pieces], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **named: Any) -> None:
        raise RuntimeError("out of memory")

    load = model.load_policy

    def load_broken(*given: Any, **named: Any) -> Any:
        policy, tokenizer = load(*given, **named)
        policy.generate = broken
        return policy, tokenizer

    monkeypatch.setattr(model, "load_policy", load_broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        talk(ASKED)


def test_without_a_model_the_furthest_stage_talks(chain: Chain) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "finlm" / "chat.py", "--runs", chain.runs, "--temperature", "0", "--dtype", "float32",
         "--max_new_tokens", "24", "--threads", "1"],
        input=f"{PASSAGE}  {ASKED}\n\n", capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(chain.runs / "ppo") in done.stderr
    assert done.stdout.startswith("Assistant:")
    assert done.stdout.strip() != "Assistant:"
