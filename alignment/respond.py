"""Candidate answers: several per prompt, from one model or from several, sampled at raised temperature so that they
differ; an answer that says the same as an earlier one is drawn again.

    python alignment/respond.py                    reads runs/sft and runs/selfqa, writes runs/candidates.jsonl
    python alignment/respond.py --also '[{"model": "runs/ppo"}, {"model": "runs/sft", "temperature": 0.5}]'

Prompts are the questions of the instructions, held-out companies included (their pairs test the reward model), and any
files of Prompt records. Answers are kept batch by batch: a run that was killed goes on where it was.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from alignment.alike import repeats
from alignment.voices import Speaker, Voice
from finlm import chat_format, config, data, engines, jsonl, model, runs
from finlm.errors import UserError
from finlm.progress import bar
from finlm.records import Candidates, Prompt, Removal
from finlm.tokenizer import load_tokenizer, tokenizer_fingerprint


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
    asked_before: list[str] = field(default_factory=list)
    """Files of Candidates records, of earlier rounds, whose prompts are not asked again."""
    forms: list[str] = field(default_factory=lambda: ["open-book"])
    """Forms of instructions to ask."""
    languages: list[str] = field(default_factory=lambda: ["en", "zh"])
    """Languages of instructions to ask."""
    kinds: list[str] = field(default_factory=list)
    """Kinds of instructions to ask (figure, fact, change, comparison, list, ...); empty takes all."""
    limit: int = 0
    """Prompts at most, spread over the groups; 0 asks all."""
    responses: int = 4
    """Answers per prompt, of all models together."""
    temperature: float = 1.0
    """Divides the logits."""
    top_p: float = 1.0
    """Probability mass that is sampled from."""
    also: list[Voice] = field(default_factory=list)
    """Further models and ways of sampling; a prompt's answers are dealt out among `model` and these, in turn."""
    alike: float = 0.95
    """Share of letters, 0 to 1, from which on two answers with the same figures say the same; above 1: never."""
    redraws: int = 2
    """How often such an answer is drawn again; one that is still alike stays."""
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
        if self.responses < len(self.voices):
            raise ValueError(
                f"responses is {self.responses}, and {len(self.voices)} models are to answer; give each one at least."
            )
        if self.redraws < 0:
            raise ValueError(f"redraws is {self.redraws}; it must be 0 or more.")
        engines.check(self.engine)

    @property
    def voices(self) -> list[Voice]:
        """Everyone who answers."""
        return [Voice(model=self.model, temperature=self.temperature, top_p=self.top_p), *self.also]

    @property
    def shares(self) -> list[int]:
        """Answers per prompt of each of them."""
        count = len(self.voices)
        return [self.responses // count + (place < self.responses % count) for place in range(count)]


def main(settings: RespondSettings) -> None:
    """Sample, keep, write."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    out = Path(settings.output)
    inputs = inputs_of(settings)
    run = runs.Run.open(out.with_suffix(""), "respond", settings, inputs=inputs, overwrite=settings.overwrite)
    if run.is_finished and out.is_file():
        print(f"{out} is finished; --overwrite true samples afresh, --output names another file.")
        return

    prompts, removals = choose_prompts(settings, load_tokenizer(model.base_of(settings.model)[0]))
    kept = run.folder / "answered.jsonl"
    answered = {item.prompt.id: item for item in finished_batches(kept)}
    for voice, before, share in zip(settings.voices, accumulate([0, *settings.shares]), settings.shares, strict=False):
        waiting = [one for one in prompts if len(answered[one.id].responses if one.id in answered else ()) <= before]
        if not waiting:
            continue
        with bar() as progress:
            task = progress.add_task(voice.model, total=len(prompts), completed=len(prompts) - len(waiting), note="")
            speaker = Speaker(
                voice,
                engine=settings.engine,
                dtype=settings.dtype,
                rows_at_once=settings.batch_size,
                max_new_tokens=settings.max_new_tokens,
                seed=settings.seed,
                alike=settings.alike,
                redraws=settings.redraws,
            )
            per_batch = max(1, settings.batch_size // share)
            for start in range(0, len(waiting), per_batch):
                batch = waiting[start : start + per_batch]
                answered |= speaker.answer(batch, [answered.get(one.id) for one in batch], share)
                jsonl.write(kept, answered.values())
                progress.advance(task, len(batch))
            speaker.close()

    order = {prompt.id: position for position, prompt in enumerate(prompts)}
    found = sorted(answered.values(), key=lambda item: order[item.prompt.id])
    ended = sum(response.ended for item in found for response in item.responses)
    total = sum(len(item.responses) for item in found)
    alike = sum(len(repeats([one.text for one in item.responses], settings.alike)) for item in found)
    jsonl.write(run.folder / "rejected.jsonl", removals)
    jsonl.write(out, found)
    run.finish(prompts=len(found), responses=total, ended=ended, alike=alike, set_aside=len(removals))
    print(
        f"{len(found)} prompts, {total} answers ({ended} ended by themselves, {alike} like another one of their "
        f"prompt), {len(removals)} set aside: {out}"
    )


def inputs_of(settings: RespondSettings) -> dict[str, str]:
    """Return every file and folder that is read, by name.

    Raises:
        MissingInput: A model or the instructions are not there.
        UserError: The models read texts as other tokens.
    """
    found = {path: path for path in [*settings.instructions, *settings.prompts, *settings.asked_before]}
    bases = {}
    for place, voice in enumerate(settings.voices):
        runs.require(voice.model, what="The model", made_by="python alignment/sft.py")
        bases[voice.model], adapter = model.base_of(voice.model)
        found["model" if not place else f"model {place + 1}"] = str(adapter or bases[voice.model])
    for path in settings.instructions:
        runs.require(path, what="Instructions", made_by="python selfqa/generate.py --corpus filings/")
    own = bases[settings.model]
    fingerprints = {base: tokenizer_fingerprint(load_tokenizer(base)) for base in set(bases.values()) if base != own}
    if fingerprints:  # one base, as a rule: then no tokenizer is loaded before it is known that there is work
        fingerprints[own] = tokenizer_fingerprint(load_tokenizer(own))
    others = [name for name, base in bases.items() if base != own and fingerprints[base] != fingerprints[own]]
    if others:
        raise UserError(f"{', '.join(others)} and {settings.model} have other tokenizers; prompts are cut by one.")
    return found


def choose_prompts(settings: RespondSettings, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Prompt], list[Removal]]:
    """Return the prompts to ask, spread over the groups, and those set aside: asked before, too long, or more than the
    limit.

    Raises:
        UserError: No prompt has what the settings want, or all were asked before.
    """
    found: dict[str, Prompt] = {}
    for prompt in data.questions(
        settings.instructions, forms=settings.forms, languages=settings.languages, kinds=settings.kinds
    ):
        found.setdefault(prompt.id, prompt)
    for path in settings.prompts:
        for prompt in jsonl.read(path, Prompt):
            found.setdefault(prompt.id, prompt)
    fitting, removals = [], []
    earlier = {item.prompt.id: path for path in settings.asked_before for item in jsonl.read(path, Candidates)}
    for prompt in found.values():
        if prompt.id in earlier:
            removals.append(Removal(record_id=prompt.id, rule="asked-before", reason=f"it is in {earlier[prompt.id]}"))
            continue
        length = len(chat_format.encode(tokenizer, prompt.messages).ids)
        if length <= settings.max_prompt_length:
            fitting.append(prompt)
        else:
            reason = f"{length} tokens, the limit is {settings.max_prompt_length}"
            removals.append(Removal(record_id=prompt.id, rule="too-long", reason=reason))
    if not fitting and earlier:
        raise UserError(
            f"All {len(found):,} prompts that could be asked are too long or were asked before, in "
            f"{', '.join(settings.asked_before)}; give other prompts or instructions, or let a round ask fewer (limit)."
        )
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


if __name__ == "__main__":
    config.run(main, RespondSettings, __doc__ or "")
