"""Talk to a checkpoint in the terminal: several turns, answers as they are written.

    finlm chat                         the newest of runs/ppo, runs/sft, the embedded model
    finlm chat --model runs/sft        any run, model folder or adapter folder

An empty line or Ctrl-D ends, /new begins a new conversation.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TextIteratorStreamer

from finlm import chat_format, config, generation, model
from finlm.embedded import EMBEDDED
from finlm.errors import MissingInput
from finlm.records import Message


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """Settings of the terminal chat."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    model: str = ""
    """A run, a model folder, an adapter folder or `embedded`; empty takes the furthest stage that is there."""
    system: str = ""
    """A sentence before the conversation, for models trained with one."""
    temperature: float = 0.7
    """Divides the logits; 0 is greedy."""
    top_p: float = 0.95
    """Probability mass that is sampled from."""
    max_new_tokens: int = 256
    """Tokens per answer at most."""
    max_length: int = 2048
    """Tokens of conversation and answer at most; the oldest turns are forgotten first, and said so."""
    seed: int = 0
    """Seed of the sampling."""
    dtype: str = "auto"
    """Weights: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""

    def __post_init__(self) -> None:
        if self.max_new_tokens >= self.max_length:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}; it must be below max_length ({self.max_length}), which "
                "holds the conversation too."
            )


def main(settings: ChatSettings) -> None:
    """Read a line, stream the answer, remember both."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    folder = choose_model(settings)
    device = model.device_of_this_process()
    policy, tokenizer = model.load_policy(folder, dtype=model.choose_dtype(settings.dtype, device), device=device)
    torch.manual_seed(settings.seed)
    print(f"{folder} on {device}. An empty line ends, /new begins a new conversation.", file=sys.stderr)
    opening = [Message(role="system", content=settings.system)] if settings.system else []
    turns = list(opening)
    while line := read_line():
        if line == "/new":
            turns = list(opening)
            continue
        turns = forget([*turns, Message(role="user", content=line)], tokenizer, settings)
        if is_too_long(turns, tokenizer, settings):
            print(
                f"(that is longer than {settings.max_length} tokens with its answer; say it shorter)", file=sys.stderr
            )
            turns = turns[:-1]
            continue
        answer = stream(policy, tokenizer, turns, settings)
        # an empty answer is no turn: the model then sees the next line as a first one
        turns = [*turns, Message(role="assistant", content=answer)] if answer else turns[:-1]


def choose_model(settings: ChatSettings) -> Path:
    """Return the model asked for, or the furthest that the run root has."""
    if settings.model:
        return model.resolve_model(settings.model, settings.runs)
    for stage in ("ppo", "sft"):
        try:
            model.base_of(Path(settings.runs) / stage)
        except MissingInput:
            continue
        return Path(settings.runs) / stage
    return model.resolve_model(EMBEDDED, settings.runs)


def read_line() -> str:
    """Return the next line of the user, empty at the end of input."""
    try:
        return input("Human: " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def is_too_long(turns: list[Message], tokenizer: PreTrainedTokenizerBase, settings: ChatSettings) -> bool:
    """True if the conversation leaves no room for a whole answer."""
    return len(chat_format.encode(tokenizer, turns).ids) > settings.max_length - settings.max_new_tokens


def forget(turns: list[Message], tokenizer: PreTrainedTokenizerBase, settings: ChatSettings) -> list[Message]:
    """Drop the oldest question and answer until the conversation leaves room for an answer."""
    first = 1 if turns[0].role == "system" else 0
    while is_too_long(turns, tokenizer, settings) and len(turns) > first + 2:
        turns = turns[:first] + turns[first + 2 :]
        print(f"(the oldest turn is forgotten: {settings.max_length} tokens are full)", file=sys.stderr)
    return turns


def stream(policy: Any, tokenizer: PreTrainedTokenizerBase, turns: list[Message], settings: ChatSettings) -> str:
    """Print the answer as it is written and return it."""
    sampling = generation.Sampling(
        max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, top_p=settings.top_p
    )
    ids_BP = torch.tensor([chat_format.encode(tokenizer, turns).ids], device=next(policy.parameters()).device)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    faults: list[Exception] = []

    def write() -> None:
        try:
            policy.generate(
                input_ids=ids_BP,
                attention_mask=torch.ones_like(ids_BP),
                generation_config=sampling.generation_config(tokenizer),
                streamer=streamer,
            )
        except Exception as fault:
            faults.append(fault)
            streamer.end()  # the reader below would wait for ever

    writing = Thread(target=write, daemon=True)
    writing.start()
    print("Assistant:", end="", flush=True)
    pieces = []
    for piece in streamer:
        print(piece, end="", flush=True)
        pieces.append(piece)
    writing.join()
    print()
    if faults:
        raise faults[0]
    return "".join(pieces).strip()


if __name__ == "__main__":
    config.run(main, ChatSettings, __doc__ or "")
