"""The compiled engine: sampling from a preallocated cache with a captured step. The default on CUDA.

    engine = CompiledEngine(model, slots=96, end=end, pad=pad)
    engine.refresh("policy")                  merge the adapter as it is now
    engine.sample(prompts, sampling, seed=0)  answers, in the order of the prompts
    engine.release()                          give the cache's memory back, before an update

Each slot of the cache holds one answer. A step computes one token for every slot; on CUDA it is compiled layer by layer
and captured as one graph, so the slow host launches it with a single call. Slots whose answer is finished are filled
from the queue, and when the queue is empty the batch shrinks to what is left. The step runs without asking the host
anything; it is looked at every few steps.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from finlm import aligned_head, decode_attention, hashing
from finlm.decode_attention import LayerSlots
from finlm.errors import UserError
from finlm.fused_lora import HALF, product
from finlm.generation import Answer, Sampling, pad_right
from finlm.merged import SamplingCopy
from finlm.slots import PREFILL_TOKENS, Slots, bucket, capacity_for, free_bytes, head_width, slots_that_fit
from finlm.token_choice import answer_key, choose

LOOK_EVERY = 8
"""Steps between looks at which answers are finished."""
FILL_FROM = 0.125
"""Share of the slots that must be free before prompts are read into them: reading a few costs as much as many."""
SHRINK_BELOW = 0.6
"""Share of the slots in use under which the batch shrinks, once the queue is empty."""


@dataclass(frozen=True, slots=True)
class _Task:
    """One answer to write."""

    index: int
    """Place in the order asked for."""
    prompt: tuple[int, ...]
    key: int


class CompiledEngine:
    """Samples answers from a LLaMA, with or without adapters.

    Args:
        model: The model. With adapters, `refresh` merges the one that is to answer.
        slots: Answers written at once; fewer where memory holds fewer (`finlm.slots.slots_that_fit`).
        end: End-of-sequence token.
        pad: Padding token.
        capacity: Tokens of prompt and answer at most; 0 takes what the prompts at hand need and grows with them.
        merge: False samples through the adapter that is on instead of a merged copy.
        is_captured: True compiles the layers and captures the step as a CUDA graph; None does so on CUDA.

    Attributes:
        name: `compiled`.
        rows_at_once: Answers written at once at most; may be lowered.
        retained: Share of the adapter's update that survives the merged weights' rounding, at the last `refresh`; None
            where nothing is merged.
    """

    name = "compiled"

    def __init__(
        self,
        model: PeftModel | LlamaForCausalLM,
        *,
        slots: int,
        end: int,
        pad: int,
        capacity: int = 0,
        merge: bool = True,
        is_captured: bool | None = None,
    ) -> None:
        self._copy = SamplingCopy(model, merge=merge)
        self._model: Any = self._copy.model
        self._model.config._attn_implementation = decode_attention.NAME
        self.rows_at_once = slots
        self._limit, self._end, self._pad = capacity, end, pad
        self._room, self._asked, self._capacity = 0, 0, 0
        self._device = model.get_input_embeddings().weight.device
        self._is_captured = self._device.type == "cuda" if is_captured is None else is_captured
        self._cache: list[LayerSlots] = []
        self._state: Slots | None = None
        self._graphs: dict[tuple[int, Sampling], torch.cuda.CUDAGraph] = {}
        self._compiled_layer = torch.compile(_call_layer) if self._is_captured else _call_layer
        self._compiled_choose = torch.compile(choose) if self._is_captured else choose
        self._stride_V = hashing.strides(self._model.config.vocab_size, self._device)
        self.retained: float | None = None

    def refresh(self, adapter: str | None) -> None:
        """Take the adapter's weights as they are now; None: the base's own. Unmerged, the role that is on answers."""
        share = self._copy.refresh(adapter)
        self.retained = share if adapter and self._copy.is_merged else None

    def release(self) -> None:
        """Give back the cache and the captured steps; the next `sample` makes them again."""
        self._cache, self._state = [], None
        self._graphs.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Give back all but the merged weights, which go with the engine itself."""
        self.release()

    @torch.inference_mode()
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seed: int,
        on_done: Callable[[int], None] = lambda count: None,
        poll: Callable[[], None] = lambda: None,
    ) -> list[Answer]:
        """Sample one answer for each prompt, in the order given; a prompt that comes again gets another answer.

        Args:
            prompts: Token ids of each prompt.
            sampling: How to sample.
            seed: Decides the answers, together with each prompt; not the other prompts, nor the number of slots.
            on_done: Called with the number of answers finished since the last call.
            poll: Called every few steps; it may raise, and the engine is as before.

        Raises:
            UserError: A prompt and its answer do not fit the capacity, where one was set.
        """
        assert self._copy.is_filled, "refresh comes before the first sample"
        if not prompts:
            return []
        waiting = self._tasks(prompts, sampling, seed)
        state = self._allocate(len(waiting[0].prompt), len(waiting), sampling)
        running: dict[int, _Task] = {}
        answers: dict[int, Answer] = {}
        width = min(self._room, self.rows_at_once, len(waiting))
        while waiting or running:
            free = [slot for slot in range(width) if slot not in running]
            if waiting and (len(free) >= FILL_FROM * width or not running):
                self._fill(free, waiting, running, state, sampling)
            for _ in range(LOOK_EVERY):
                self._step(width, state, sampling)
            self._harvest(state, running, answers, on_done)
            poll()
            if not waiting and 0 < len(running) < SHRINK_BELOW * width:
                width = self._compact(state, running)
        return [answers[index] for index in range(len(prompts))]

    # ------------------------------------------------------------------------------------------ the queue

    def _tasks(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> deque[_Task]:
        """Return what to write, long prompts first, answers to one prompt side by side."""
        seen: Counter[tuple[int, ...]] = Counter()
        tasks = []
        for index, ids in enumerate(prompts):
            prompt = tuple(ids)
            if 0 < self._limit < len(prompt) + sampling.max_new_tokens:
                raise UserError(
                    f"A prompt of {len(prompt)} tokens and {sampling.max_new_tokens} tokens of answer exceed the "
                    f"engine's capacity of {self._limit}; raise the capacity or shorten one of them."
                )
            tasks.append(_Task(index, prompt, answer_key(seed, prompt, seen[prompt])))
            seen[prompt] += 1
        return deque(sorted(tasks, key=lambda task: (-len(task.prompt), task.prompt, task.index)))

    def _fill(
        self, free: list[int], waiting: deque[_Task], running: dict[int, _Task], state: Slots, sampling: Sampling
    ) -> None:
        """Read prompts from the queue into free slots, as many at once as the token budget allows."""
        while free and waiting:
            longest, group = len(waiting[0].prompt), []
            distinct: set[tuple[int, ...]] = set()
            while free and waiting:
                distinct.add(waiting[0].prompt)
                if len(distinct) > 1 and len(distinct) * longest > PREFILL_TOKENS:
                    break
                task, slot = waiting.popleft(), free.pop(0)
                running[slot] = task
                group.append((slot, task))
            self._read(group, state, sampling)

    def _harvest(
        self, state: Slots, running: dict[int, _Task], answers: dict[int, Answer], on_done: Callable[[int], None]
    ) -> None:
        """Take finished answers out of their slots."""
        is_active = state.is_active_B.tolist()  # the one place where the host waits for the GPU
        done = [slot for slot in running if not is_active[slot]]
        if not done:
            return
        ids_BA, logp_BA = state.answer_BA[done].tolist(), state.logp_BA[done].tolist()
        for slot, length, ids, logp in zip(done, state.step_B[done].tolist(), ids_BA, logp_BA, strict=True):
            kept = tuple(ids[:length])
            answers[running.pop(slot).index] = Answer(kept, kept[-1] == self._end, tuple(logp[:length]))
        on_done(len(done))

    def _compact(self, state: Slots, running: dict[int, _Task]) -> int:
        """Move what still runs to the first slots; return the new width, a power of two or multiple of 32."""
        width = bucket(len(running))
        free = [slot for slot in range(width) if slot not in running]
        moves = [(slot, free.pop(0)) for slot in sorted(running) if slot >= width]
        if moves:
            sources, targets = [list(places) for places in zip(*moves, strict=True)]
            for name in state.__slots__:
                tensor = getattr(state, name)
                tensor[targets] = tensor[sources]
            state.is_active_B[sources] = False
            for layer in self._cache:
                for tensor in (layer.keys, layer.values):
                    tensor[targets] = tensor[sources]
            for source, target in moves:
                running[target] = running.pop(source)
        return width

    # ------------------------------------------------------------------------------------------ the model

    def _allocate(self, prompt_tokens: int, answers: int, sampling: Sampling) -> Slots:
        """Return the slots, made anew for a longer prompt or more answers than before; they never shrink."""
        config, longest = self._model.config, sampling.max_new_tokens
        capacity = max(self._capacity, self._limit or capacity_for(prompt_tokens + longest))
        asked = min(self.rows_at_once, max(self._asked, bucket(answers)))
        if not self._cache or capacity > self._capacity or asked > self._asked:
            self.release()
            dtype = self._model.get_input_embeddings().weight.dtype
            free = free_bytes(self._device)
            fitting = slots_that_fit(free, config, capacity=capacity, itemsize=dtype.itemsize)
            self._room, self._asked, self._capacity = min(asked, fitting), asked, capacity
            shape = (self._room, config.num_key_value_heads, capacity, head_width(config))
            self._cache = [
                LayerSlots(*(torch.zeros(shape, dtype=dtype, device=self._device) for _ in range(2)))
                for _ in range(config.num_hidden_layers)
            ]
        if self._state is None or self._state.answer_BA.shape[1] < longest:
            self._graphs.clear()  # they hold the old tensors
            self._state = Slots.empty(self._room, longest, self._device)
        self._state.is_active_B.fill_(False)
        return self._state

    def _read(self, group: list[tuple[int, _Task]], state: Slots, sampling: Sampling) -> None:
        """Read prompts into their slots and choose each answer's first token."""
        prompts = list(dict.fromkeys(task.prompt for _, task in group))
        place = {prompt: row for row, prompt in enumerate(prompts)}
        slots = [slot for slot, _ in group]
        from_B, key_B, length_B = (
            torch.tensor(numbers, device=self._device)
            for numbers in zip(*((place[task.prompt], task.key, len(task.prompt)) for _, task in group), strict=True)
        )
        # slots side by side take prompts of one answer each as they lie: copying by index is four times as slow
        is_straight = len(prompts) == len(group) and slots == list(range(slots[0], slots[0] + len(slots)))
        into_B = slice(slots[0], slots[-1] + 1) if is_straight else torch.tensor(slots, device=self._device)
        ids_GP, _ = pad_right(prompts, self._pad, self._device)
        positions_1P = torch.arange(ids_GP.shape[1], device=self._device).unsqueeze(0)
        places = {"into_B": into_B, "from_B": None if is_straight else from_B}
        hidden_GPD = self._backbone(ids_GP, positions_1P, _call_layer, **places)
        logits_BV = self._logits(hidden_GPD[from_B, length_B - 1])
        state.length_B[into_B] = length_B
        state.key_B[into_B] = key_B
        state.step_B[into_B] = 0
        state.is_active_B[into_B] = True
        self._write(state, into_B, logits_BV, sampling, choose)

    def _step(self, width: int, state: Slots, sampling: Sampling) -> None:
        """Write one token in each of the first `width` slots."""
        if not self._is_captured:
            self._decode(state.first(width), sampling)
            return
        if (width, sampling) not in self._graphs:
            self._graphs[width, sampling] = self._capture(state.first(width), sampling)
        self._graphs[width, sampling].replay()

    def _capture(self, state: Slots, sampling: Sampling) -> torch.cuda.CUDAGraph:
        """Compile and capture one step; what it does to the slots meanwhile is undone."""
        kept = [getattr(state, name).clone() for name in state.__slots__]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._decode(state, sampling)
                self._restore(state, kept)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._decode(state, sampling)
        self._restore(state, kept)
        return graph

    @staticmethod
    def _restore(state: Slots, kept: list[Tensor]) -> None:
        for name, tensor in zip(state.__slots__, kept, strict=True):
            getattr(state, name).copy_(tensor)

    def _decode(self, state: Slots, sampling: Sampling) -> None:
        hidden_B1D = self._backbone(
            state.token_B.unsqueeze(1), state.length_B.unsqueeze(1), self._compiled_layer, length_B=state.length_B
        )
        logits_BV = self._logits(hidden_B1D[:, 0])
        state.length_B.add_(state.is_active_B)
        self._write(state, slice(None), logits_BV, sampling, self._compiled_choose)

    def _backbone(self, ids_BT: Tensor, positions_BT: Tensor, call: Callable[..., Tensor], **places: Any) -> Tensor:
        """Hidden states (B, T, D) after the final norm; `places` say where keys and values go."""
        llama = self._model.model
        hidden_BTD = llama.embed_tokens(ids_BT)
        rope = llama.rotary_emb(hidden_BTD, positions_BT)
        for layer, slots in zip(llama.layers, self._cache, strict=True):
            hidden_BTD = call(layer, hidden_BTD, rope, slots.keys, slots.values, **places)
        final: Tensor = llama.norm(hidden_BTD)
        return final

    def _logits(self, hidden_BD: Tensor) -> Tensor:
        """Logits (B, V); in float32 of states in half precision where CUDA hands them out so, as in training."""
        weight_VD = self._model.lm_head.weight
        if hidden_BD.device.type == "cuda" and weight_VD.dtype in HALF:
            return product(hidden_BD, aligned_head.whole(weight_VD).T)[:, : len(weight_VD)]
        logits_BV: Tensor = self._model.lm_head(hidden_BD)
        return logits_BV

    def _write(
        self, state: Slots, at: Tensor | slice, logits_BV: Tensor, sampling: Sampling, chooser: Callable[..., Any]
    ) -> None:
        """Choose tokens for the slots `at`, note them, and end the answers that are over; finished slots stay."""
        is_active_B, step_B = state.is_active_B[at], state.step_B[at]
        choice = chooser(
            logits_BV,
            state.key_B[at],
            step_B,
            self._stride_V,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
        )
        token_B = torch.where(is_active_B, choice.token_B, state.token_B[at])
        rows_B = torch.arange(len(state.token_B), device=self._device)[at]
        place_B = step_B.clamp(max=state.answer_BA.shape[1] - 1)
        state.answer_BA[rows_B, place_B] = torch.where(is_active_B, token_B, state.answer_BA[rows_B, place_B])
        state.logp_BA[rows_B, place_B] = torch.where(is_active_B, choice.logp_B, state.logp_BA[rows_B, place_B])
        state.token_B[at] = token_B
        step_B = step_B + is_active_B
        state.step_B[at] = step_B
        state.is_active_B[at] = is_active_B & (token_B != self._end) & (step_B < sampling.max_new_tokens)


def _call_layer(
    layer: nn.Module, hidden_BTD: Tensor, rope: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, **places: Any
) -> Tensor:
    out: Tensor = layer(
        hidden_BTD, position_embeddings=rope, attention_mask=None, slots=LayerSlots(keys, values), **places
    )
    return out
