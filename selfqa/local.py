"""A model of this machine as a backend: SmolLM2, a run of this project that teaches itself, any LLaMA folder.

Calls that come while a batch is being written wait and make up the next one. At temperature 0 a reply does not depend
on its batch beyond rounding; above it the engine `compiled` draws by prompt, and `generate` by batch.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finlm import chat_format, engines, model, runs
from finlm.errors import UserError
from finlm.generation import Sampling
from finlm.records import Message
from selfqa.calls import Call, Reply


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What is loaded and how it writes.

    Example:
        LocalSettings(model="runs/sft", runs="runs", temperature=0.0, max_tokens=256, batch=16, seed=0)
    """

    model: str
    """A run, a model folder, an adapter folder or `embedded`."""
    runs: str
    temperature: float
    max_tokens: int
    batch: int
    """Replies written at once."""
    seed: int


@dataclass(slots=True)
class _Waiting:
    ids: list[int]
    future: "asyncio.Future[Reply]"
    since: float


class Local:
    """Answers calls in batches."""

    def __init__(self, settings: LocalSettings) -> None:
        folder = model.resolve_model(settings.model, settings.runs)
        device = model.device_of_this_process()
        dtype = model.choose_dtype("auto", device)
        self._policy, self._tokenizer = model.load_policy(folder, dtype=dtype, device=device)
        self._engine = engines.make("auto", self._policy, self._tokenizer, rows_at_once=settings.batch)
        self._engine.refresh(engines.active_adapter(self._policy))
        self._settings = settings
        self.name = Path(settings.model).name
        # a run that was trained on is another model under the same path
        self.parameters: Mapping[str, Any] = {
            "model": model_id(folder),
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": settings.seed,
            "engine": self._engine.name,
        }
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def ask(self, call: Call) -> Reply:
        """Return the model's reply.

        Raises:
            UserError: The prompt does not fit into the model's context.
        """
        ids = chat_format.encode(self._tokenizer, [Message(role="user", content=call.prompt)]).ids
        room = int(self._policy.config.max_position_embeddings) - self._settings.max_tokens
        if len(ids) > room:
            raise UserError(
                f"a prompt has {len(ids)} tokens and {self.name} has room for {room} beside a reply of "
                f"{self._settings.max_tokens}; lower --background_characters or --max_tokens."
            )
        waiting = _Waiting(list(ids), asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting.append(waiting)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await waiting.future

    async def _write(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # whoever asks in this turn of the loop joins the batch
            batch, self._waiting = self._waiting[: self._settings.batch], self._waiting[self._settings.batch :]
            try:
                replies = await asyncio.to_thread(self._sampled, [one.ids for one in batch])
            except Exception as fault:
                for one in batch:
                    if not one.future.done():
                        one.future.set_exception(fault)
                continue
            for one, (text, tokens) in zip(batch, replies, strict=True):
                if not one.future.done():
                    seconds = round(time.monotonic() - one.since, 3)
                    one.future.set_result(Reply(text, len(one.ids), tokens, seconds))

    def _sampled(self, prompts: list[list[int]]) -> list[tuple[str, int]]:
        sampling = Sampling(max_new_tokens=self._settings.max_tokens, temperature=self._settings.temperature)
        answers = self._engine.sample(prompts, sampling, seed=self._settings.seed)
        return [(answer.text(self._tokenizer), len(answer.ids)) for answer in answers]

    async def close(self) -> None:
        """Give the engine's memory back."""
        if self._writer is not None:
            self._writer.cancel()
        self._engine.close()


def model_id(folder: Path) -> str:
    """Return what tells a model's weights from others: the fingerprint of its folder."""
    return runs.fingerprint(folder)[:16]
