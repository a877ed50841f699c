"""The reward model: learns from comparisons of people, reports what it is worth, exports a scorer.

    python reward/train.py                         reads runs/preferences.jsonl and runs/sft, writes runs/reward

A linear head learns on the fine-tuned model, with a LoRA or with all weights (`--tune full`). All comparisons of one
prompt are learned from together, and count as one. The head is exported with its normalisation folded in: the
fine-tuned model's own ended answers score 0 on average, with standard deviation 1.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import LlamaForCausalLM, TrainerCallback, set_seed

from finlm import activations, config, jsonl, model, runs, scorer, trainers, tuning
from finlm.progress import console
from finlm.tokenizer import check_vocabulary, load_tokenizer
from reward import batches, evaluate, export, learning, losses, splits
from reward.epochs import Epochs, folder_of, read_epochs
from reward.findings import write_findings, write_mistakes
from reward.groups import Group
from reward.judged import write_judged
from reward.judging import findings_of, records_of
from reward.measures import spread
from reward.page import write_reward_page
from reward.selection import ChoiceRule, select, write_selection
from reward.trainer import ComparisonTrainer, Objective

MARGINS = {"none": (), "small": losses.SMALL_MARGINS, "large": losses.LARGE_MARGINS}


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """Settings of the reward model."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/reward"
    """Folder of this run and of the exported reward model."""
    model: str = "{runs}/sft"
    """Fine-tuned model: the frozen base, the same that PPO will stand on; with `tune: full` where all weights begin."""
    start: str = ""
    """Reward model to go on from, of the same base and with the same lora, or a whole one: a second phase on other
    preferences. Empty: a new head."""
    preferences: str = "{runs}/preferences.jsonl"
    """File of PreferencePair records, or of Ranking records, each of which is the comparisons of its answers."""
    candidates: str = "{runs}/candidates.jsonl"
    """File of Candidates records; the scores of its ended training answers become mean 0 and standard deviation 1.
    Where it is missing, the pairs' chosen answers take their place."""
    min_strength: int = 1
    """Pairs of lower strength (0: nearly the same) are left out and counted; 0 keeps them, for soft labels."""
    test_preferences: str = ""
    """File of such records to test on; empty: pairs of held-out groups. A prompt in both is refused."""
    test_share: float = 0.2
    """Share of groups (companies) held out, as in SFT."""
    loss: Literal["pairwise", "token"] = "pairwise"
    """`pairwise` compares the scores at the last token; `token` every answer token from the first difference on, which
    makes a steadier start for PPO's critic and a slightly worse judge."""
    end_rule: Literal["held", "shorter", "pads"] = "held"
    """Where `token` ends: at the longer answer's end, the shorter one standing at its last reading; at the shorter
    one's end; at the longer one's, over the shorter one's pads (the original)."""
    margin: Literal["none", "small", "large"] = "none"
    """Lead that is asked for by strength 0 to 3: none, 0 1/3 2/3 1, or 0 1 2 3."""
    soft_labels: bool = False
    """Learn from the share of the votes in place of their majority."""
    label_smoothing: float = 0.0
    """Votes added to either side of soft labels; pairs without votes have one."""
    steps: int = 0
    """Optimizer steps; 0: `epochs`."""
    epochs: int = 1
    """Times that every prompt is learned from."""
    prompt_weight: Literal["one", "answers"] = "one"
    """What a prompt counts for: `one`, or as many as its comparisons that do not follow from others (n answers that
    were all compared: n - 1). Where some prompts have dozens of answers and most have two, `one` hardly learns from
    the former."""
    batch_size: int = 64
    """Prompts per optimizer step, with all their comparisons, over all processes."""
    micro_batch: int = 8
    """Prompts per forward pass and process, at most."""
    micro_batch_tokens: int = 8192
    """Tokens per forward pass and process, at most, unless one prompt has more; there is no padding. 0 is no limit."""
    max_length: int = 2048
    """Tokens of prompt and answer; longer pairs are set aside and counted."""
    tune: Literal["lora", "full"] = "lora"
    """What learns with the head: an adapter on the frozen base, which PPO's other roles share, or all weights of a
    model of its own, as in the recipe."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """As in SFT: `adamw` takes 16 bytes a weight where all learn, `adamw_8bit` (one process, extra `cuda`) 6."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW; linear warm-up and decay. All weights want less: 5e-6 to 2e-5."""
    center_rewards: float = 0.01
    """Weight of the term that keeps scores around 0 (mean of (r_chosen + r_rejected)^2)."""
    likelihood: float = 0.0
    """Weight of a language-model loss on the better answers (nats a token), which keeps the model one that predicts
    while it learns to judge; after the regularisation by SFT of Yang et al. 2024 (arXiv 2406.10216)."""
    choice: ChoiceRule = field(default_factory=ChoiceRule)
    """Bounds of the choice among epochs: where mean and deviation of the scores may lie, units of the loss."""
    test_pairs: int = 512
    """Held-out pairs to test on, at most, after every epoch; drawn by prompts, the same for every seed."""
    consistency_pairs: int = 512
    """Held-out pairs that are scored again, the other way round and in other formats, at most; drawn by the seed. It
    takes several times as long as scoring them once. 0: none."""
    normalise_on: int = 256
    """Ended candidate answers that the normalisation is taken on, at most."""
    cache: str = "{runs}/cache/words"
    """Folder of bags of words fitted to the same training pairs before; may be deleted at any time."""
    save_steps: int = 50
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything random."""
    dtype: str = "auto"
    """What is computed in: auto, bfloat16 or float32. Weights are kept in it too, but where `adamw` steps on all of
    them, and a whole model is exported in it."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"})
    """Fields of peft.LoraConfig; not looked at where all weights learn."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Further fields of transformers.TrainingArguments; `gradient_checkpointing` (default: where the GPU's memory does
    not hold a pass) for one: without it the activations of the 6B take 3.9 MB a token."""
    overwrite: bool = False
    """Delete what lies in the output folder and begin afresh."""

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of micro_batch {self.micro_batch}.")
        if not 0 <= self.min_strength <= 3:
            raise ValueError(f"min_strength is {self.min_strength}; it must be 0 to 3.")
        for name in (
            "steps",
            "epochs",
            "micro_batch_tokens",
            "label_smoothing",
            "center_rewards",
            "likelihood",
            "consistency_pairs",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if not self.steps and not self.epochs:
            raise ValueError("steps and epochs are 0; one of them must say how long to learn.")
        if not self.min_strength and not self.soft_labels:
            raise ValueError("min_strength 0 keeps ties, which have no better answer; it needs soft_labels.")
        tuning.check_fits(self)


def main(settings: RewardSettings) -> None:
    """Train, test, normalise, export."""
    tuning.require(settings.optimizer, trainers.processes().num_processes)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    set_seed(settings.seed)
    out = Path(settings.output)
    runs.require(settings.model, what="The fine-tuned model", made_by="python alignment/sft.py")
    runs.require(
        settings.preferences,
        what="Preferences",
        made_by="finlm annotate push, then finlm annotate pull (or, without people: finlm annotate by-figures)",
    )
    base, _ = model.base_of(settings.model)
    begun_from = learning.begun_from(settings.start, base, tune=settings.tune)
    inputs = {"model": base, "preferences": Path(settings.preferences)}
    if settings.start:
        inputs["start"] = scorer.reward_folder(settings.start)
    if settings.test_preferences:
        inputs["test_preferences"] = Path(settings.test_preferences)
    if Path(settings.candidates).is_file():
        inputs["candidates"] = Path(settings.candidates)
    with trainers.processes().main_process_first():
        run = runs.Run.open(
            out,
            "reward",
            settings,
            inputs=inputs,
            free=("cache",),
            overwrite=settings.overwrite and trainers.processes().is_main_process,
        )
    if run.is_finished:
        print(f"{out} is finished; --overwrite true begins afresh, --output names another folder.")
        return
    runs.need_disk(out, 0.5)

    tokenizer = load_tokenizer(base)
    found = splits.read(settings, tokenizer)
    if trainers.processes().is_main_process:
        jsonl.write(out / "rejected.jsonl", found.removals)
    splits.require(found, settings, out)
    aside = f", {len(found.removals):,} set aside ({found.rules})" if found.removals else ""
    pairs = found.pairs
    console.print(
        f"reward model: {pairs['train']:,} pairs of {len(found.train):,} prompts, {pairs['test']:,} held out{aside}"
    )

    device = model.device_of_this_process()
    causal = model.load_causal(begun_from, dtype=tuning.kept_in(settings, device), device=device)
    check_vocabulary(tokenizer, causal.get_input_embeddings().num_embeddings, str(begun_from))
    if settings.tune == "full":  # the exported model, every epoch's, and two checkpoints with their moments
        epochs = settings.epochs if not settings.steps else 1 + settings.steps * settings.batch_size // len(found.train)
        runs.need_disk(out, causal.num_parameters() * causal.dtype.itemsize * (1 + epochs + 2 * 3) / 1e9)
    if settings.start:
        scorer.check_same_tokenizer(settings.start, tokenizer)
        scorer.check_same_base(settings.start, base)
    trainer = make_trainer(settings, causal, found.train, pad=tokenizer.pad_token_id)
    trainers.watch(trainer, "reward model", out)
    trainer.add_callback(Epochs(trainer, found.test, out))
    trainer.go_on()

    trainer.accelerator.wait_for_everyone()
    selection = select(read_epochs(out), settings.choice, seed=settings.seed)
    learning.take(trainer.model, folder_of(out, selection.epoch))
    trainer.settle()
    trainer.model.eval()
    rows, normalised_on = splits.normalisation_rows(settings, tokenizer, found.train)
    scale = export.Scale.of(
        trainer.model, rows, normalised_on, pad=tokenizer.pad_token_id, batch_size=settings.micro_batch
    )

    def scores(its: Sequence[Group]) -> list[list[float]]:
        return [[scale(score) for score in one] for one in trainer.scores(its)]

    records = records_of(found.test, scores(found.test))
    measured = findings_of(
        records,
        found.test,
        found.train,
        scores,
        tokenizer,
        max_length=settings.max_length,
        std=spread(records)[1],
        scale=scale.std,
        again=settings.consistency_pairs,
        cache=Path(settings.cache),
        seed=settings.seed,
    )
    if trainer.accelerator.is_main_process:
        export.write(
            trainer.model,
            scale,
            base,
            out / "model",
            tokenizer=tokenizer,
            learned_from_cut=any(group.has_cut for group in found.train),
        )
        write_judged(out, records)
        write_selection(out, selection)
        write_findings(out, measured)
        write_mistakes(out, records, (one.pair for group in found.test for one in group.comparisons))
        report = evaluate.test_report(found.test, records)
        runs.write_json(out / "report.json", report)
        page = write_reward_page(out)  # before the end: a finished run writes nothing more
        run.finish(pairs=pairs["train"], set_aside=len(found.removals), epoch=selection.epoch, **report)
        print(
            f"reward model: test accuracy {report['test_accuracy']:.3f} on {pairs['test']} held-out pairs "
            f"(longer answer alone: {report['longer_accuracy']:.3f}), margin {report['margin']:.2f}, "
            f"mean {report['mean']:.2f}, std {report['std']:.2f}. {measured.verdict} {selection.reason} More in {page}"
        )


def make_trainer(
    settings: RewardSettings,
    causal: LlamaForCausalLM,
    train: Sequence[Group],
    *,
    pad: int,
    kind: type[ComparisonTrainer] = ComparisonTrainer,
    callbacks: Sequence[TrainerCallback] = (),
    **fixed: Any,
) -> ComparisonTrainer:
    """Assemble the trainer on a model with a float32 head.

    Args:
        settings: What is learned by and how.
        causal: The model, in the dtype that `finlm.tuning.kept_in` tells; it is changed.
        train: What to learn from.
        pad: Padding token, for the end rule `pads`.
        kind: The trainer's class.
        callbacks: Further callbacks.
        fixed: Fields of TrainingArguments that the caller decides.
    """
    trained = learning.learning(settings, causal)
    if settings.start:
        learning.go_on_from(trained, settings.start)
    steps = settings.steps or settings.epochs * -(-len(train) // settings.batch_size)
    tokens = batches.most_tokens(train, settings.micro_batch, settings.micro_batch_tokens)
    keeps_activations = activations.fit(
        causal,
        tokens,
        dtype=tuning.computed_in(settings, causal.device),
        to_come=tuning.bytes_to_come(settings, causal.device, causal.num_parameters()),
    )
    arguments = trainers.arguments(
        dataclasses.replace(settings, trainer={"gradient_checkpointing": not keeps_activations} | settings.trainer),
        causal.device,
        max_steps=steps,
        warmup_steps=steps // 20,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        logging_nan_inf_filter=False,  # it waits for the GPU after each pass; such gradients end the run anyway
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        **tuning.of_optimizer(settings.optimizer) | fixed,
    )
    return kind(
        groups=train,
        objective=Objective(
            loss=settings.loss,
            end=settings.end_rule,
            margins=MARGINS[settings.margin],
            centring=settings.center_rewards,
            likelihood=settings.likelihood,
            pad=pad,
        ),
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        micro_batch_tokens=settings.micro_batch_tokens,
        autocast=tuning.autocast(settings, causal.device),
        model=trained,
        args=arguments,
        callbacks=list(callbacks),
    )


if __name__ == "__main__":
    config.run(main, RewardSettings, __doc__ or "", folder="output")
