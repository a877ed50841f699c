"""Who answers a prompt: a model, how it is sampled, and its answers batch by batch."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignment.alike import repeats
from finlm import chat_format, engines, generation, model
from finlm.engines import Engine
from finlm.records import Candidates, Prompt, Response, content_id


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A model and how it is sampled."""

    model: str
    """A run, a model folder or an adapter folder."""
    temperature: float = 1.0
    """Divides the logits."""
    top_p: float = 1.0
    """Probability mass that is sampled from."""


class Speaker:
    """A voice with its model in memory.

    Args:
        voice: Who.
        engine: What samples, as `finlm.engines` names it.
        dtype: Weights: auto, bfloat16 or float32.
        rows_at_once: Answers sampled at once.
        max_new_tokens: Tokens per answer at most.
        seed: Seed of everything random.
        alike: Share of letters from which on two answers say the same, see `alignment.alike`.
        redraws: How often such an answer is drawn again.
    """

    def __init__(
        self,
        voice: Voice,
        *,
        engine: str,
        dtype: str,
        rows_at_once: int,
        max_new_tokens: int,
        seed: int,
        alike: float,
        redraws: int,
    ) -> None:
        self.voice = voice
        self._seed, self._alike, self._redraws = seed, alike, redraws
        self._sampling = generation.Sampling(
            max_new_tokens=max_new_tokens, temperature=voice.temperature, top_p=voice.top_p
        )
        device = model.device_of_this_process()
        policy, self._tokenizer = model.load_policy(voice.model, dtype=model.choose_dtype(dtype, device), device=device)
        # through the adapter, if it is one: a merged copy would lose what its dtype rounds away
        self._engine: Engine = engines.make(engine, policy, self._tokenizer, rows_at_once=rows_at_once, merge=False)
        self._engine.refresh(engines.active_adapter(policy))

    def close(self) -> None:
        """Give the memory back."""
        self._engine.close()
        del self._engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def answer(self, batch: Sequence[Prompt], before: Sequence[Candidates | None], count: int) -> dict[str, Candidates]:
        """Return the prompts of a batch with what was answered before and `count` answers more, by their ids.

        Seeds depend on the batch alone, so that a resumed run is the same.
        """
        known = [list(item.responses) if item else [] for item in before]
        drawn = self._draw([prompt for prompt in batch for _ in range(count)], known, batch, 0)
        found = [its + drawn[place * count : (place + 1) * count] for place, its in enumerate(known)]
        for attempt in range(1, 1 + self._redraws):
            again = [
                (place, one)
                for place, its in enumerate(found)
                for one in repeats([response.text for response in its], self._alike)
                if one >= len(known[place])
            ]
            if not again:
                break
            drawn = self._draw([batch[place] for place, _ in again], known, batch, attempt)
            for (place, one), response in zip(again, drawn, strict=True):
                found[place][one] = response
        return {
            prompt.id: Candidates(prompt=prompt, responses=tuple(its)) for prompt, its in zip(batch, found, strict=True)
        }

    def _draw(
        self, prompts: Sequence[Prompt], known: Sequence[Sequence[Response]], batch: Sequence[Prompt], attempt: int
    ) -> list[Response]:
        """Sample one answer for each of some prompts of a batch."""
        key: list[object] = [self._seed, [prompt.id for prompt in batch]]
        key += [[len(its) for its in known], attempt] if attempt or any(known) else []
        seed = int(content_id(*key), 16) % 2**31
        ids = [chat_format.encode(self._tokenizer, prompt.messages).ids for prompt in prompts]
        return [
            Response(
                text=answer.text(self._tokenizer),
                model=self.voice.model,
                temperature=self.voice.temperature,
                top_p=self.voice.top_p,
                seed=seed,
                ended=answer.ended,
            )
            for answer in self._engine.sample(ids, self._sampling, seed=seed)
        ]
