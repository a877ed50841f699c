"""Candidate answers: several per prompt from the fine-tuned model, sampled at raised temperature so that they differ.

    python alignment/respond.py                    reads runs/sft and runs/selfqa, writes runs/candidates.jsonl

Prompts are the questions of the instructions, held-out companies included (their pairs test the reward model), and any
files of Prompt records. Answers are kept batch by batch: a run that was killed goes on where it was.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from finlm import chat_format, config, data, engines, generation, jsonl, model, runs
from finlm.engines import Engine
from finlm.errors import UserError
from finlm.progress import bar
from finlm.records import Candidates, Prompt, Removal, Response, content_id


@dataclass(frozen=True, kw_only=True)
class RespondSettings:
    """Settings of candidate sampling."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/candidates.jsonl"
    """File of Candidates records; work in progress lies in the folder of the same name without the suffix."""
    model: str = "{runs}/sft"
    """Model that answers: a run, a model folder or an adapter folder."""
    instructions: list[str] = field(default_factory=lambda: ["{runs}/selfqa/instructions.jsonl"])
    """Files of Conversation records whose questions are asked."""
    prompts: list[str] = field(default_factory=list)
    """Files of Prompt records that are asked as well."""
    forms: list[str] = field(default_factory=lambda: ["open-book"])
    """Forms of instructions to ask."""
    languages: list[str] = field(default_factory=lambda: ["en", "zh"])
    """Languages of instructions to ask."""
    kinds: list[str] = field(default_factory=list)
    """Kinds of instructions to ask (figure, fact, change, comparison, list, ...); empty takes all."""
    limit: int = 0
    """Prompts at most, spread over the groups; 0 asks all."""
    responses: int = 4
    """Answers per prompt."""
    temperature: float = 1.0
    """Divides the logits."""
    top_p: float = 1.0
    """Probability mass that is sampled from."""
    max_new_tokens: int = 512
    """Tokens per answer at most."""
    max_prompt_length: int = 1536
    """Tokens per prompt at most; longer prompts are set aside and counted."""
    batch_size: int = 64
    """Answers sampled at once."""
    engine: str = "auto"
    """What samples: generate, compiled, vllm, or auto: compiled on CUDA, generate elsewhere."""
    seed: int = 0
    """Seed of everything random."""
    dtype: str = "auto"
    """Weights: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    overwrite: bool = False
    """Sample afresh."""

    def __post_init__(self) -> None:
        if self.responses < 1:
            raise ValueError(f"responses is {self.responses}; it must be 1 or more.")
        engines.check(self.engine)


def main(settings: RespondSettings) -> None:
    """Sample, keep, write."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    out = Path(settings.output)
    runs.require(settings.model, what="The model", made_by="python alignment/sft.py")
    for path in settings.instructions:
        runs.require(path, what="Instructions", made_by="python selfqa/generate.py --corpus filings/")
    base, adapter = model.base_of(settings.model)
    inputs = {path: path for path in [*settings.instructions, *settings.prompts]} | {"model": str(adapter or base)}
    run = runs.Run.open(out.with_suffix(""), "respond", settings, inputs=inputs, overwrite=settings.overwrite)
    if run.is_finished and out.is_file():
        print(f"{out} is finished; --overwrite true samples afresh, --output names another file.")
        return

    sampling = generation.Sampling(
        max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, top_p=settings.top_p
    )
    device = model.device_of_this_process()
    policy, tokenizer = model.load_policy(
        settings.model, dtype=model.choose_dtype(settings.dtype, device), device=device
    )
    # through the adapter, if it is one: a merged copy would lose what its dtype rounds away
    engine = engines.make(settings.engine, policy, tokenizer, rows_at_once=settings.batch_size, merge=False)
    engine.refresh(engines.active_adapter(policy))
    prompts, removals = choose_prompts(settings, tokenizer)
    kept = run.folder / "answered.jsonl"
    answered = list(finished_batches(kept))
    done = {item.prompt.id for item in answered}
    waiting = [prompt for prompt in prompts if prompt.id not in done]
    per_batch = max(1, settings.batch_size // settings.responses)
    with bar() as progress:
        task = progress.add_task("answers", total=len(prompts), completed=len(answered), note="")
        for start in range(0, len(waiting), per_batch):
            batch = waiting[start : start + per_batch]
            answered += ask(engine, tokenizer, batch, sampling, settings)
            jsonl.write(kept, answered)
            progress.advance(task, len(batch))
    engine.close()
    order = {prompt.id: position for position, prompt in enumerate(prompts)}
    answered.sort(key=lambda item: order[item.prompt.id])
    ended = sum(response.ended for item in answered for response in item.responses)
    total = sum(len(item.responses) for item in answered)
    jsonl.write(run.folder / "rejected.jsonl", removals)
    jsonl.write(out, answered)
    run.finish(prompts=len(answered), responses=total, ended=ended, set_aside=len(removals))
    print(f"{len(answered)} prompts, {total} answers ({ended} ended by themselves), {len(removals)} set aside: {out}")


def choose_prompts(settings: RespondSettings, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Prompt], list[Removal]]:
    """Return the prompts to ask, spread over the groups, and those set aside: too long, or more than the limit."""
    found: dict[str, Prompt] = {}
    for prompt in data.questions(
        settings.instructions, forms=settings.forms, languages=settings.languages, kinds=settings.kinds
    ):
        found.setdefault(prompt.id, prompt)
    for path in settings.prompts:
        for prompt in jsonl.read(path, Prompt):
            found.setdefault(prompt.id, prompt)
    fitting, removals = [], []
    for prompt in found.values():
        length = len(chat_format.encode(tokenizer, prompt.messages).ids)
        if length <= settings.max_prompt_length:
            fitting.append(prompt)
        else:
            reason = f"{length} tokens, the limit is {settings.max_prompt_length}"
            removals.append(Removal(record_id=prompt.id, rule="too-long", reason=reason))
    if not fitting:
        raise UserError(
            f"No prompt of {[*settings.instructions, *settings.prompts]} has a form in {settings.forms}, a language in "
            f"{settings.languages}, a kind in {settings.kinds or 'any'} and at most {settings.max_prompt_length} "
            "tokens; change these settings."
        )
    chosen = data.spread(fitting, settings.limit, seed=settings.seed)
    return chosen, removals + data.beyond(fitting, chosen, rule="over-limit", reason=f"limit is {settings.limit}")


def finished_batches(path: Path) -> Iterator[Candidates]:
    """Yield what an interrupted run already sampled."""
    if path.is_file():
        yield from jsonl.read(path, Candidates)


def ask(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    batch: list[Prompt],
    sampling: generation.Sampling,
    settings: RespondSettings,
) -> list[Candidates]:
    """Sample the answers to one batch of prompts; its seed depends on the batch alone, so a resumed run is the same."""
    ids = [chat_format.encode(tokenizer, prompt.messages).ids for prompt in batch for _ in range(settings.responses)]
    seed = int(content_id(settings.seed, [prompt.id for prompt in batch]), 16) % 2**31
    answers = engine.sample(ids, sampling, seed=seed)
    responses = [
        Response(
            text=answer.text(tokenizer),
            model=settings.model,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed,
            ended=answer.ended,
        )
        for answer in answers
    ]
    count = settings.responses
    return [
        Candidates(prompt=prompt, responses=tuple(responses[index * count : (index + 1) * count]))
        for index, prompt in enumerate(batch)
    ]


if __name__ == "__main__":
    config.run(main, RespondSettings, __doc__ or "")
