"""Three engines that sample answers, behind one interface.

    engine = engines.make("auto", model, tokenizer, rows_at_once=64)
    engine.refresh("policy")                  take the adapter's weights as they are now
    engine.sample(prompts, sampling, seed=0)  answers, in the order of the prompts
    engine.release()                          give memory back until the next sample

| name | where | what |
|---|---|---|
| generate | any device; the default without CUDA | transformers' `generate`, through the model itself |
| compiled | any device; the default on CUDA | a preallocated cache and a captured step (finlm/compiled.py) |
| vllm | CUDA, optional extra | vLLM with its own copy of the base, the adapter sent beside it (finlm/vllm_engine.py) |

Given a seed, an answer of `compiled` and `vllm` depends on its prompt and on how often the prompt came before in the
same call; one of `generate` also on the prompts and batches around it.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from finlm import generation
from finlm.errors import UserError
from finlm.generation import Answer, Sampling

ENGINES = ("auto", "generate", "compiled", "vllm")


class Engine(Protocol):
    """What samples answers.

    `generate`, and `compiled` without merging, sample through the model itself: in the role that is on meanwhile.
    """

    name: str
    rows_at_once: int
    """Answers written at once at most; lowered where memory is short."""
    retained: float | None
    """Share of the adapter's update, 0 to 1, that the weights it samples with keep; None where none is rounded away."""

    def refresh(self, adapter: str | None) -> None:
        """Take an adapter's weights as they are now, or those of the base alone; before the first `sample` too."""
        ...

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seed: int,
        on_done: Callable[[int], None] = ...,
        poll: Callable[[], None] = ...,
    ) -> list[Answer]:
        """Sample one answer for each prompt, in the order given; a prompt that comes again gets another answer.

        Args:
            prompts: Token ids of each prompt.
            sampling: How to sample.
            seed: Decides the answers.
            on_done: Called with the number of answers finished since the last call.
            poll: Called now and then; it may raise, and the engine can be used again.
        """
        ...

    def release(self) -> None:
        """Give back what memory the next `sample` can make anew."""
        ...

    def close(self) -> None:
        """Give back all memory of its own; the engine is not used again."""
        ...


class GenerateEngine:
    """Samples with transformers' `generate`, prompts of similar length together; tells no log-probabilities.

    Args:
        model: The model; the role that is on answers.
        tokenizer: Its tokenizer.
        rows_at_once: Prompts a batch.
    """

    name = "generate"
    retained: float | None = None

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, rows_at_once: int) -> None:
        self.rows_at_once = rows_at_once
        self._model, self._tokenizer = model, tokenizer

    def refresh(self, adapter: str | None) -> None:
        """Do nothing: the model's own weights are sampled with."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seed: int,
        on_done: Callable[[int], None] = lambda count: None,
        poll: Callable[[], None] = lambda: None,
    ) -> list[Answer]:
        """Sample as `Engine.sample` says; `on_done` and `poll` are called after each batch."""

        def after_batch(count: int) -> None:
            on_done(count)
            poll()

        return generation.sample(
            self._model,
            self._tokenizer,
            prompts,
            sampling,
            seed=seed,
            batch_size=self.rows_at_once,
            on_batch=after_batch,
        )

    def release(self) -> None:
        """Do nothing: `generate` keeps no memory between batches."""

    def close(self) -> None:
        """Do nothing."""


def make(
    name: str,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rows_at_once: int,
    merge: bool = True,
    vllm_memory_share: float = 0.0,
) -> Engine:
    """Return the engine of that name.

    Args:
        name: auto, generate, compiled or vllm; auto is compiled on CUDA and generate elsewhere.
        model: A LLaMA, with or without adapters, on the device to sample on.
        tokenizer: Its tokenizer.
        rows_at_once: Answers written at once at most.
        merge: compiled: sample with an adapter merged into a copy of the adapted weights, or through the adapter.
        vllm_memory_share: vllm: share of the GPU's memory for weights and cache; 0 takes nine tenths of what is free.

    Raises:
        UserError: There is no engine of that name, or it is not installed or cannot run here.
    """
    try:
        check(name)
    except ValueError as error:
        raise UserError(str(error)) from None
    device = model.get_input_embeddings().weight.device
    if name == "auto":
        name = "compiled" if device.type == "cuda" else "generate"
    if name == "generate":
        return GenerateEngine(model, tokenizer, rows_at_once=rows_at_once)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if name == "compiled":
        from finlm.compiled import CompiledEngine  # brings torch's compiler, which a run on CPU does without

        return CompiledEngine(model, slots=rows_at_once, end=end, pad=pad, merge=merge)
    if importlib.util.find_spec("vllm") is None:
        raise UserError("engine is 'vllm', which is not installed; pip install 'finlm[vllm]', or take engine auto.")
    from finlm.vllm_engine import VllmEngine

    return VllmEngine(model, end=end, rows_at_once=rows_at_once, memory_share=vllm_memory_share)


def check(name: str) -> None:
    """Refuse a name that no engine has.

    Raises:
        ValueError: So it is.
    """
    if name not in ENGINES:
        raise ValueError(f"engine is {name!r}; it must be {', '.join(ENGINES[:-1])} or {ENGINES[-1]}.")


def active_adapter(model: Any) -> str | None:
    """Return the name of the adapter that is on in a model as it was loaded; None where it has none."""
    return str(model.active_adapter) if isinstance(model, PeftModel) else None
