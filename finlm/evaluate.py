"""Evaluation: base, SFT and PPO on the same held-out prompts and on multiple-choice questions.

    finlm evaluate                    reads runs/sft, runs/ppo, runs/reward, runs/selfqa; writes runs/evaluation

Held-out prompts are of companies that no stage trained on. Answers are sampled, as users get them, and judged twice: by
the figure checker (right or wrong, against the known answer) and by the reward model.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import gc
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from finlm import (
    category_figures,
    chat_format,
    config,
    data,
    engines,
    evaluation,
    generation,
    jsonl,
    likelihood,
    model,
    prompt_pool,
    runs,
    scorer,
)
from finlm.category_figures import JudgedPair
from finlm.embedded import EMBEDDED
from finlm.errors import UserError
from finlm.evaluation import AnswerRecord
from finlm.intervals import bootstrap
from finlm.progress import bar
from finlm.records import ChoiceItem, PreferencePair, Prompt, Removal
from finlm.tokenizer import load_tokenizer

MADE_BY = {"sft": "python alignment/sft.py", "ppo": "accelerate launch alignment/ppo.py"}
"""The command behind a model's usual name."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Settings of the evaluation."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/evaluation"
    """Folder of answers.jsonl, summary.json and categories.jsonl."""
    models: dict[str, str] = field(
        default_factory=lambda: {"base": "embedded", "sft": "{runs}/sft", "ppo": "{runs}/ppo"}
    )
    """Name and folder of each model."""
    baseline: str = "sft"
    """The model that win rates, reward differences and KL are taken against."""
    reward_model: str = "{runs}/reward"
    """Reward model that scores the answers."""
    instructions: list[str] = field(default_factory=lambda: ["{runs}/selfqa/instructions.jsonl"])
    """Files of Conversation records; the questions of held-out companies are asked."""
    prompts: list[str] = field(default_factory=list)
    """Files of Prompt records; those of held-out groups are asked as well (finlm prompts --split test)."""
    preferences: list[str] = field(default_factory=list)
    """Files of PreferencePair records; on those of held-out groups the reward model's agreement is measured."""
    forms: list[str] = field(default_factory=lambda: ["open-book"])
    """Forms of instructions to ask."""
    languages: list[str] = field(default_factory=lambda: ["en", "zh"])
    """Languages of instructions to ask."""
    kinds: list[str] = field(default_factory=list)
    """Kinds of instructions to ask (figure, fact, change, comparison, list, ...); empty takes all."""
    choices: list[str] = field(default_factory=list)
    """Files of ChoiceItem records."""
    limit: int = 200
    """Held-out prompts at most, spread over the companies."""
    test_share: float = 0.2
    """Share of groups (companies) held out, as in the other stages."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_p: float = 1.0
    """Probability mass that is sampled from."""
    max_new_tokens: int = 512
    """Tokens per answer at most."""
    max_prompt_length: int = 1536
    """Tokens per prompt at most; longer prompts are set aside and counted."""
    batch_size: int = 64
    """Answers at once."""
    engine: str = "auto"
    """What samples: generate, compiled, vllm, or auto: compiled on CUDA, generate elsewhere."""
    seed: int = 0
    """Seed of everything random."""
    dtype: str = "auto"
    """Weights: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    overwrite: bool = False
    """Evaluate afresh."""

    def __post_init__(self) -> None:
        if self.baseline not in self.models:
            raise ValueError(f"baseline {self.baseline!r} is not among the models {sorted(self.models)}.")
        engines.check(self.engine)


def main(settings: EvaluateSettings) -> None:
    """Let every model answer and choose, score the answers, compare."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    out = Path(settings.output)
    for path in settings.instructions:
        runs.require(path, what="Instructions", made_by="python selfqa/generate.py --corpus filings/")
    for name, path in settings.models.items():
        if path != EMBEDDED:
            runs.require(path, what=f"Model {name!r}", made_by=MADE_BY.get(name, "the stage that writes this folder"))
    runs.require(settings.reward_model, what="The reward model", made_by="python reward/train.py")
    files = [*settings.instructions, *settings.choices, *settings.prompts, *settings.preferences]
    inputs: dict[str, Any] = {path: path for path in files}
    inputs["reward_model"] = scorer.reward_folder(settings.reward_model)
    folders = {name: model.resolve_model(path, settings.runs) for name, path in settings.models.items()}
    for name, folder in folders.items():
        base, adapter = model.base_of(folder)
        inputs[name] = adapter or base
    run = runs.Run.open(out, "evaluation", settings, inputs=inputs, overwrite=settings.overwrite)
    if run.is_finished:
        print(f"{out} is finished; --overwrite true evaluates afresh, --output names another folder.")
        return

    prompts, removals = held_out_prompts(settings, folders)
    items = [item for path in settings.choices for item in jsonl.read(path, ChoiceItem)]
    with bar() as progress:
        answers, records, right_choices = answer_and_choose(settings, folders, prompts, items, progress)
        records = measure_kl(settings, folders, prompts, answers, records, progress)
        judge = load_judge(settings)
        records = score(settings, judge, prompts, records, progress)
        pairs = score_preferences(settings, judge, progress) + category_figures.own_pairs(records)
    jsonl.write(out / "rejected.jsonl", removals)
    jsonl.write(out / "answers.jsonl", [record for name in folders for record in records[name]])
    categories = category_figures.by_category(records, settings.baseline, pairs, seed=settings.seed)
    jsonl.write(out / "categories.jsonl", categories)
    summary = summarise(settings, records, right_choices, items)
    runs.write_json(out / "summary.json", summary)
    run.finish(prompts=len(prompts), set_aside=len(removals), choices=len(items))
    for name, figures in summary.items():
        print(
            f"{name:>6}: right {figures['right']:.3f}  ended {figures['ended']:.3f}  reward {figures['reward']:+.3f}"
            + (f"  choices {figures['choice_accuracy']:.3f}" if items else "")
            + (f"  wins {figures['win_rate']:.3f}" if name != settings.baseline else "")
        )


def held_out_prompts(settings: EvaluateSettings, folders: dict[str, Path]) -> tuple[list[Prompt], list[Removal]]:
    """Return the prompts to ask, and the held-out ones set aside: too long, or more than the limit."""
    tokenizer = load_tokenizer(model.base_of(folders[settings.baseline])[0])
    asked = [
        prompt
        for prompt in data.questions(
            settings.instructions, forms=settings.forms, languages=settings.languages, kinds=settings.kinds
        )
        if data.is_held_out(prompt, test_share=settings.test_share)
    ]
    removals: list[Removal] = []
    for path in settings.prompts:
        given, empty = prompt_pool.read_prompts(path)
        held_out = [prompt for prompt in given if data.is_held_out(prompt, test_share=settings.test_share)]
        removals += empty + data.beyond(given, held_out, rule="for-training", reason="its group is trained on")
        # a record of such a file wins over an instruction's: it may have been sorted into a sub-field
        asked = list({prompt.id: prompt for prompt in [*asked, *held_out]}.values())
    fitting = [p for p in asked if len(chat_format.encode(tokenizer, p.messages).ids) <= settings.max_prompt_length]
    if not fitting:
        raise UserError(
            f"No held-out prompt in {settings.instructions + settings.prompts} (test_share {settings.test_share}, "
            f"forms {settings.forms}, languages {settings.languages}); raise test_share in every stage."
        )
    chosen = data.spread(fitting, settings.limit, seed=settings.seed)
    too_long = data.beyond(asked, fitting, rule="too-long", reason=f"limit is {settings.max_prompt_length} tokens")
    removals += too_long
    return chosen, removals + data.beyond(fitting, chosen, rule="over-limit", reason=f"limit is {settings.limit}")


def answer_and_choose(
    settings: EvaluateSettings,
    folders: dict[str, Path],
    prompts: list[Prompt],
    items: list[ChoiceItem],
    progress: Progress,
) -> tuple[dict[str, list[generation.Answer]], dict[str, list[AnswerRecord]], dict[str, int]]:
    """Let each model in turn answer the prompts and choose among the choices; scores and KL follow later."""
    sampling = generation.Sampling(
        max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, top_p=settings.top_p
    )
    answered: dict[str, list[generation.Answer]] = {}
    records: dict[str, list[AnswerRecord]] = {}
    right_choices: dict[str, int] = {}
    for name, folder in folders.items():
        task = progress.add_task(f"{name} answers", total=len(prompts), note="")
        policy, tokenizer = _load(settings, folder)
        ids = [chat_format.encode(tokenizer, prompt.messages).ids for prompt in prompts]
        # an adapter is sampled through: a merged copy would lose what its dtype rounds away
        engine = engines.make(settings.engine, policy, tokenizer, rows_at_once=settings.batch_size, merge=False)
        engine.refresh(engines.active_adapter(policy))
        answers = engine.sample(
            ids,
            sampling,
            seed=settings.seed,
            on_done=lambda count, task=task: progress.advance(task, count),  # type: ignore[misc]
        )
        engine.close()
        logp = likelihood.answer_log_probs(
            policy, ids, [answer.ids for answer in answers], pad=tokenizer.pad_token_id, batch_size=16
        )
        answered[name], records[name] = answers, []
        for prompt, answer, nats in zip(prompts, answers, logp, strict=True):
            text = answer.text(tokenizer)
            right, fault = evaluation.is_right(prompt, text, ended=answer.ended)
            records[name].append(
                AnswerRecord(
                    model=name,
                    prompt_id=prompt.id,
                    prompt=prompt.messages[-1].content,
                    reference=prompt.reference,
                    text=text,
                    ended=answer.ended,
                    tokens=len(answer.ids),
                    score=0.0,
                    is_right=right,
                    fault=fault,
                    kl_nats=nats,
                    category=prompt.category,
                    subfield=prompt.subfield,
                )
            )
        if items:
            chosen = evaluation.choose(policy, tokenizer, items, batch_size=16)
            right_choices[name] = sum(one == item.answer for one, item in zip(chosen, items, strict=True))
        del policy, engine
        gc.collect()
    return answered, records, right_choices


def measure_kl(
    settings: EvaluateSettings,
    folders: dict[str, Path],
    prompts: list[Prompt],
    answered: dict[str, list[generation.Answer]],
    records: dict[str, list[AnswerRecord]],
    progress: Progress,
) -> dict[str, list[AnswerRecord]]:
    """Subtract the baseline's log-probability of each answer from its own model's."""
    policy, tokenizer = _load(settings, folders[settings.baseline])
    ids = [chat_format.encode(tokenizer, prompt.messages).ids for prompt in prompts]
    measured = {settings.baseline: [replace(record, kl_nats=None) for record in records[settings.baseline]]}
    for name in folders:
        if name == settings.baseline:
            continue
        task = progress.add_task(f"{name} KL", total=len(prompts), note="")
        logp = likelihood.answer_log_probs(
            policy,
            ids,
            [answer.ids for answer in answered[name]],
            pad=tokenizer.pad_token_id,
            batch_size=16,
            on_batch=lambda count, task=task: progress.advance(task, count),  # type: ignore[misc]
        )
        measured[name] = [
            replace(record, kl_nats=(record.kl_nats or 0.0) - nats)
            for record, nats in zip(records[name], logp, strict=True)
        ]
    return measured


def load_judge(settings: EvaluateSettings) -> scorer.Scorer:
    """Load the reward model."""
    device = model.device_of_this_process()
    return scorer.Scorer.load(settings.reward_model, dtype=model.choose_dtype(settings.dtype, device), device=device)


def score_preferences(settings: EvaluateSettings, judge: scorer.Scorer, progress: Progress) -> list[JudgedPair]:
    """Score both answers of the held-out preferences; pairs of strength 0 say nothing and are left out.

    A prompt that stands in the files of prompts is sorted as it is there.
    """
    given = [prompt for path in settings.prompts for prompt in prompt_pool.read_prompts(path)[0]]
    sorted_as = {prompt.id: prompt for prompt in given}
    pairs = [
        pair
        for path in settings.preferences
        for pair in jsonl.read(path, PreferencePair)
        if pair.strength > 0 and data.is_held_out(pair.prompt, test_share=settings.test_share)
    ]
    if not pairs:
        return []
    task = progress.add_task("preferences", total=2 * len(pairs), note="")
    better = [(pair.prompt.messages, pair.chosen, pair.chosen_ended) for pair in pairs]
    worse = [(pair.prompt.messages, pair.rejected, pair.rejected_ended) for pair in pairs]
    scores = judge.score(better + worse, on_batch=lambda count: progress.advance(task, count))
    prompts = [sorted_as.get(pair.prompt.id, pair.prompt) for pair in pairs]
    return [
        JudgedPair(
            category=prompt.category, subfield=prompt.subfield, better=chosen, worse=rejected, judge="preferences"
        )
        for prompt, chosen, rejected in zip(prompts, scores[: len(pairs)], scores[len(pairs) :], strict=True)
    ]


def score(
    settings: EvaluateSettings,
    judge: scorer.Scorer,
    prompts: list[Prompt],
    records: dict[str, list[AnswerRecord]],
    progress: Progress,
) -> dict[str, list[AnswerRecord]]:
    """Score all answers with the reward model."""
    task = progress.add_task("reward model", total=len(prompts) * len(records), note="")
    scored = {}
    for name in settings.models:
        answers = records[name]
        rows = [(prompt.messages, r.text, r.ended) for prompt, r in zip(prompts, answers, strict=True)]
        scores = judge.score(rows, on_batch=lambda count: progress.advance(task, count))
        scored[name] = [replace(record, score=one) for record, one in zip(answers, scores, strict=True)]
    return scored


def summarise(
    settings: EvaluateSettings,
    records: dict[str, list[AnswerRecord]],
    right_choices: dict[str, int],
    items: list[ChoiceItem],
) -> dict[str, dict[str, Any]]:
    """Return each model's figures: shares of right and ended answers, reward, and its difference to the baseline."""
    baseline = [record.score for record in records[settings.baseline]]
    summary: dict[str, dict[str, Any]] = {}
    for name, answers in records.items():
        count, scores = len(answers), [record.score for record in answers]
        referenced = sum(bool(record.reference) for record in answers)
        figures: dict[str, Any] = {
            "answers": count,
            "referenced": referenced,
            "right": sum(record.is_right for record in answers) / max(1, referenced),
            "ended": sum(record.ended for record in answers) / count,
            "tokens": sum(record.tokens for record in answers) / count,
            "reward": sum(scores) / count,
            "faults": dict(Counter(record.fault for record in answers if record.fault).most_common()),
        }
        if items:
            figures["choice_accuracy"] = right_choices[name] / len(items)
        if name != settings.baseline:
            differences = [one - other for one, other in zip(scores, baseline, strict=True)]
            figures["win_rate"] = evaluation.win_rate(scores, baseline)
            figures["reward_gain"] = asdict(bootstrap(differences, seed=settings.seed))
            figures["kl_nats"] = sum(record.kl_nats or 0.0 for record in answers) / count
        summary[name] = figures
    return summary


def _load(settings: EvaluateSettings, folder: Path) -> tuple[Any, Any]:
    device = model.device_of_this_process()
    return model.load_policy(folder, dtype=model.choose_dtype(settings.dtype, device), device=device)


if __name__ == "__main__":
    config.run(main, EvaluateSettings, __doc__ or "", folder="output")
