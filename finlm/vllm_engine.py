"""vLLM as an engine: offline, in this process and on its GPU, for vLLM 0.26 or newer (extra `vllm`).

vLLM keeps a copy of the base of its own, read from the base's folder. The adapter goes to it as an adapter, written
anew at each `refresh`: neither copy of the base is ever changed. Ids go in and come out, vLLM's tokenizer is not used.
"""

import gc
import os
import random
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from finlm.errors import UserError
from finlm.generation import Answer, Sampling
from finlm.model import order_targets
from finlm.token_choice import answer_key

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for (`max_lora_rank`); a smaller adapter fits in."""
FREE_SHARE = 0.9
"""Share of the free memory that vLLM takes unless told otherwise."""
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it takes no seed of a request's own
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_HOST_IP": "127.0.0.1",  # one process: its groups of one need no network
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""What vLLM reads when it starts; what the user has set wins."""


class VllmEngine:
    """Samples with vLLM, which starts at the first `refresh` or `sample` and takes about a minute for it.

    Args:
        model: The model on a GPU; its base must have been loaded from a folder.
        end: End-of-sequence token.
        rows_at_once: Answers written at once.
        memory_share: Share of the GPU's memory for vLLM's weights and cache; 0 takes `FREE_SHARE` of what is free.

    Attributes:
        name: `vllm`.
        rows_at_once: Answers written at once at most; may be lowered.
        retained: None: nothing is merged.

    Raises:
        UserError: There is no GPU, several processes, no folder of the base, or an adapter that vLLM cannot take.
    """

    name = "vllm"
    retained: float | None = None

    def __init__(self, model: Any, *, end: int, rows_at_once: int, memory_share: float = 0.0) -> None:
        device = model.get_input_embeddings().weight.device
        if device.type != "cuda":
            raise UserError(f"engine is 'vllm', but the model is on {device.type}; vllm needs CUDA: take engine auto.")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                f"engine is 'vllm' in {os.environ['WORLD_SIZE']} processes; it runs in one: take engine compiled."
            )
        self.rows_at_once = rows_at_once
        self._model, self._end, self._device, self._share = model, end, device, memory_share
        self._folder = base_folder(model)
        self._rank = room_for_rank(model)
        self._most_rows = rows_at_once
        self._scratch = tempfile.TemporaryDirectory(prefix="finlm-adapter-")
        self._llm: Any = None
        self._sleeps = False
        self._adapter: Any = None
        self._refreshed = 0

    def refresh(self, adapter: str | None) -> None:
        """Send the adapter as it is now, under an id of its own; None: the base alone."""
        llm = self._awake()
        if self._adapter is not None:
            llm.llm_engine.remove_lora(self._adapter.lora_int_id)
            shutil.rmtree(self._adapter.lora_path)
            self._adapter = None
        if adapter is None:
            return
        from vllm.lora.request import LoRARequest

        self._refreshed += 1
        folder = Path(self._scratch.name) / str(self._refreshed)
        write_adapter(self._model, adapter, folder)
        self._adapter = LoRARequest(f"{adapter}-{self._refreshed}", self._refreshed, str(folder))
        llm.llm_engine.add_lora(self._adapter)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seed: int,
        on_done: Callable[[int], None] = lambda count: None,
        poll: Callable[[], None] = lambda: None,
    ) -> list[Answer]:
        """Sample as `finlm.engines.Engine.sample` says; `poll` is called at every step.

        Raises:
            UserError: A prompt and its answer exceed the model's `max_position_embeddings`.
        """
        llm = self._awake()
        refuse_long(prompts, sampling, llm.model_config.max_model_len)
        waiting = deque(requests(prompts, sampling, seed=seed, end=self._end))
        names: list[str] = []
        finished: list[Any] = []
        try:
            while len(finished) < len(prompts):
                free = self.rows_at_once - (len(names) - len(finished))
                batch = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                names += self._enqueue(llm, batch)
                before = len(finished)
                finished += [output for output in llm.llm_engine.step() if output.finished]
                if len(finished) > before:
                    on_done(len(finished) - before)
                poll()
        except BaseException:
            llm.llm_engine.abort_request(names, internal=True)
            raise
        # vLLM counts its requests: their numbers are in the order of the prompts
        finished.sort(key=lambda output: int(output.request_id))
        return [answer_of(output.outputs[0].token_ids, output.outputs[0].logprobs, self._end) for output in finished]

    def release(self) -> None:
        """Give the cache back and keep vLLM's copy of the base in main memory until the next call."""
        if self._llm is not None and not self._sleeps:
            self._llm.sleep(level=1)
            self._sleeps = True
            torch.cuda.empty_cache()

    def close(self) -> None:
        """End vLLM and remove the adapter's folder."""
        if self._llm is not None:
            self._awake().llm_engine.engine_core.shutdown()
        self._llm, self._adapter = None, None
        self._scratch.cleanup()
        gc.collect()
        torch.cuda.empty_cache()

    def _awake(self) -> Any:
        """Return vLLM, started or woken up if need be."""
        if self._llm is None or self._sleeps:
            torch.cuda.empty_cache()  # vLLM takes its memory from the driver, not from torch's reserve
        if self._llm is None:
            # in this process, or vLLM could neither share the GPU's memory by calls nor be polled
            os.environ.update(ENVIRONMENT | os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
            with random_state_kept(self._device):
                from vllm import LLM

                free, total = torch.cuda.mem_get_info(self._device)
                self._llm = LLM(
                    **llm_settings(
                        self._folder,
                        dtype=self._model.get_input_embeddings().weight.dtype,
                        rank=self._rank,
                        rows_at_once=self._most_rows,
                        memory_share=self._share or FREE_SHARE * free / total,
                    )
                )
        elif self._sleeps:
            self._llm.wake_up()
        self._sleeps = False
        return self._llm

    def _enqueue(self, llm: Any, batch: Sequence[tuple[list[int], Mapping[str, Any]]]) -> list[str]:
        if not batch:
            return []
        from vllm import SamplingParams

        names: list[str] = llm.enqueue(
            [{"prompt_token_ids": ids} for ids, _ in batch],
            [SamplingParams(**settings) for _, settings in batch],
            lora_request=self._adapter,
            use_tqdm=False,
        )
        return names


# ---------------------------------------------------------------------------------------------- what vLLM is told


def llm_settings(
    folder: Path, *, dtype: torch.dtype, rank: int, rows_at_once: int, memory_share: float
) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM`.

    Args:
        folder: Folder of the base.
        dtype: Of the weights.
        rank: Largest rank of an adapter; 0 where there is none.
        rows_at_once: Answers written at once.
        memory_share: Share of the GPU's whole memory.
    """
    settings: dict[str, Any] = {
        "model": str(folder),
        "load_format": "safetensors",
        "dtype": str(dtype).removeprefix("torch."),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # not the folder's: all that counts is said with each request
        "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled, temperature and filters included
        "max_num_seqs": rows_at_once,
        "gpu_memory_utilization": memory_share,
        "enable_sleep_mode": True,
        "enforce_eager": False,
        "seed": 0,
    }
    if rank:
        settings |= {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}
    return settings


def requests(
    prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, end: int
) -> list[tuple[list[int], dict[str, Any]]]:
    """Return each prompt with the arguments of its `vllm.SamplingParams`.

    The seed of a request comes from the seed, the prompt and how often the prompt came before.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    made = []
    for ids in prompts:
        prompt = tuple(ids)
        settings = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": answer_key(seed, prompt, seen[prompt]),
            "logprobs": 0,  # of the sampled token alone
            "stop_token_ids": [end],
            "ignore_eos": True,  # the line above says where an answer ends, not the folder's files
            "detokenize": False,
        }
        seen[prompt] += 1
        made.append((list(prompt), settings))
    return made


def answer_of(ids: Sequence[int], logprobs: Sequence[Mapping[int, Any]], end: int) -> Answer:
    """Return vLLM's token ids and log-probabilities, a dictionary by token at each place, as an answer."""
    tokens = tuple(ids)
    told = tuple(float(at[token].logprob) for token, at in zip(tokens, logprobs, strict=True))
    return Answer(tokens, ended=tokens[-1] == end, log_probs=told)


def refuse_long(prompts: Sequence[Sequence[int]], sampling: Sampling, limit: int) -> None:
    """Refuse prompts that leave no room for a whole answer within `limit` tokens.

    Raises:
        UserError: There is one.
    """
    longest = max(map(len, prompts), default=0)
    if longest + sampling.max_new_tokens > limit:
        raise UserError(
            f"A prompt of {longest} tokens and {sampling.max_new_tokens} tokens of answer exceed the model's "
            f"max_position_embeddings of {limit}, which vllm keeps to; shorten one of them or take engine compiled."
        )


def base_folder(model: Any) -> Path:
    """Return the folder that a model's base was loaded from.

    Raises:
        UserError: There is none.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    folder = Path(base.name_or_path)
    if not base.name_or_path or not (folder / "config.json").is_file():
        raise UserError(
            f"engine vllm reads the base from its folder, and {base.name_or_path or 'this model'!r} is none; "
            "load the model from a folder, or take engine compiled."
        )
    return folder


def room_for_rank(model: Any) -> int:
    """Return the `max_lora_rank` that holds every adapter of a model; 0 where it has none.

    Raises:
        UserError: An adapter has ranks or scales of its own for some layers, or too large a rank.
    """
    ranks = [0]
    for name, lora in model.peft_config.items() if isinstance(model, PeftModel) else ():
        if lora.rank_pattern or lora.alpha_pattern or lora.use_dora:
            raise UserError(
                f"engine vllm takes no rank_pattern, alpha_pattern or DoRA, which adapter {name!r} has; "
                "take engine compiled."
            )
        ranks.append(lora.r)
    if max(ranks) > RANKS[-1]:
        raise UserError(f"An adapter has rank {max(ranks)}, vllm takes {RANKS[-1]} at most; take engine compiled.")
    return min((room for room in RANKS if room >= max(ranks)), default=0) if max(ranks) else 0


def write_adapter(model: PeftModel, adapter: str, folder: Path) -> None:
    """Write one adapter in PEFT's format (adapter_config.json, adapter_model.safetensors) to a new folder."""
    folder.mkdir(parents=True)
    state = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    save_file(
        {name: weight.detach().cpu().contiguous() for name, weight in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    order_targets(model.peft_config[adapter])
    model.peft_config[adapter].save_pretrained(folder)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Undo what the `with` block does to the global random states: vLLM seeds them all when it starts."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
