"""The reward model: learns from preference pairs, reports its test accuracy, scale and margin, exports a scorer.

    python reward/train.py                         reads runs/preferences.jsonl and runs/sft, writes runs/reward

TRL's RewardTrainer trains a LoRA and a linear head on the frozen fine-tuned model. The head is exported with its
normalisation folded in: the fine-tuned model's own ended answers score 0 on average, with standard deviation 1.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import LlamaForSequenceClassification, set_seed
from trl import RewardConfig, RewardTrainer

from finlm import config, jsonl, model, runs, scorer, trainers
from finlm.checkpoints import WholeCheckpoints
from finlm.errors import UserError
from finlm.progress import console
from finlm.records import Candidates, PreferencePair, Removal
from finlm.tokenizer import check_vocabulary, load_tokenizer, tokenizer_fingerprint
from reward import evaluate, pairs


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """Settings of the reward model."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/reward"
    """Folder of this run and of the exported reward model."""
    model: str = "{runs}/sft"
    """Fine-tuned model: the frozen base, the same that PPO will stand on."""
    preferences: str = "{runs}/preferences.jsonl"
    """File of PreferencePair records."""
    candidates: str = "{runs}/candidates.jsonl"
    """File of Candidates records; the scores of its ended training answers become mean 0 and standard deviation 1.
    Where it is missing, the pairs' chosen answers take their place."""
    min_strength: int = 1
    """Pairs of lower strength (0: nearly the same) are left out and counted."""
    test_share: float = 0.2
    """Share of groups (companies) held out, as in SFT."""
    steps: int = 400
    """Optimizer steps."""
    batch_size: int = 64
    """Pairs per optimizer step, over all processes."""
    micro_batch: int = 8
    """Pairs per forward pass and process."""
    max_length: int = 2048
    """Tokens of prompt and answer; longer pairs are set aside and counted."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW for LoRA and head; linear warm-up and decay."""
    center_rewards: float = 0.01
    """Weight of the term that keeps scores around 0 (mean of (r_chosen + r_rejected)^2)."""
    test_pairs: int = 512
    """Held-out pairs to test on, at most."""
    normalise_on: int = 256
    """Ended candidate answers that the normalisation is taken on, at most."""
    save_steps: int = 50
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything random."""
    dtype: str = "auto"
    """Frozen weights: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"})
    """Fields of peft.LoraConfig."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Further fields of trl.RewardConfig."""
    overwrite: bool = False
    """Delete what lies in the output folder and begin afresh."""

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of micro_batch {self.micro_batch}.")
        if not 0 <= self.min_strength <= 3:
            raise ValueError(f"min_strength is {self.min_strength}; it must be 0 to 3.")


class WholeRewardTrainer(WholeCheckpoints, RewardTrainer):  # type: ignore[misc]
    """TRL's RewardTrainer with checkpoints that are whole or not there."""


def main(settings: RewardSettings) -> None:
    """Train, test, normalise, export."""
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
    inputs = {"model": base, "preferences": Path(settings.preferences)}
    if Path(settings.candidates).is_file():
        inputs["candidates"] = Path(settings.candidates)
    with trainers.processes().main_process_first():
        run = runs.Run.open(
            out,
            "reward",
            settings,
            inputs=inputs,
            overwrite=settings.overwrite and trainers.processes().is_main_process,
        )
    if run.is_finished:
        print(f"{out} is finished; --overwrite true begins afresh, --output names another folder.")
        return
    runs.need_disk(out, 0.5)

    tokenizer = load_tokenizer(base)
    split = pairs.split_pairs(
        jsonl.read(settings.preferences, PreferencePair),
        tokenizer,
        max_length=settings.max_length,
        min_strength=settings.min_strength,
        test_share=settings.test_share,
    )
    test = split.test[: settings.test_pairs]
    reason = f"{settings.test_pairs} held-out pairs are tested on"
    split.removals.extend(
        Removal(record_id=pair.pair_id, rule="over-limit", reason=reason) for pair in split.test[settings.test_pairs :]
    )
    jsonl.write(out / "rejected.jsonl", split.removals)
    if not split.train:
        raise UserError(
            f"{settings.preferences} holds no pair to train on ({len(split.removals)} set aside, see {out})."
        )
    console.print(f"reward model: {len(split.train)} pairs, {len(test)} held out, {len(split.removals)} set aside")

    trainer = make_trainer(settings, base, tokenizer, split.train, test)
    trainer.go_on()

    if trainer.accelerator.is_main_process:
        export(trainer, settings, base, split.train)
        report = evaluate.test_report(out / "model", test, split.train, dtype=settings.dtype)
        runs.write_json(out / "report.json", report)
        run.finish(pairs=len(split.train), set_aside=len(split.removals), **report)
        print(
            f"reward model: test accuracy {report['test_accuracy']:.3f} on {len(test)} held-out pairs "
            f"(longer answer alone: {report['longer_accuracy']:.3f}), margin {report['margin']:.2f}, "
            f"mean {report['mean']:.2f}, std {report['std']:.2f}"
        )


def make_trainer(
    settings: RewardSettings, base: Path, tokenizer: Any, train: list[pairs.EncodedPair], test: list[pairs.EncodedPair]
) -> WholeRewardTrainer:
    """Assemble TRL's trainer on the frozen base with a float32 head."""
    device = model.device_of_this_process()
    arguments = trainers.arguments(RewardConfig, settings, device, center_rewards_coefficient=settings.center_rewards)
    lora = config.section("lora", settings.lora, LoraConfig, {"task_type": "SEQ_CLS", "modules_to_save": ["score"]})
    trainer = WholeRewardTrainer(
        model=load_classifier(base, tokenizer, model.choose_dtype(settings.dtype, device), device),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=pairs.dataset(train),
        eval_dataset=pairs.dataset(test) if test else None,
        peft_config=lora,
    )
    trainers.watch(trainer, "reward model", Path(settings.output))
    return trainer


def load_classifier(base: Path, tokenizer: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the base with a new head in place of its LM head; the head reads in float32."""
    causal = model.load_causal(base, dtype=dtype, device=device)
    check_vocabulary(tokenizer, causal.get_input_embeddings().num_embeddings, str(base))
    causal.config.num_labels = 1
    with torch.device("meta"):
        classifier = LlamaForSequenceClassification(causal.config)
    classifier.model = causal.model
    classifier.score = pairs.ScoreHead(causal.config.hidden_size).to(device)
    classifier.config.pad_token_id = tokenizer.pad_token_id
    return classifier


def export(trainer: WholeRewardTrainer, settings: RewardSettings, base: Path, train: list[pairs.EncodedPair]) -> None:
    """Normalise on the fine-tuned model's own ended answers and write adapter, head and description."""
    tokenizer = trainer.processing_class
    rows, normalised_on = normalisation_rows(settings, tokenizer, train)
    peft_model = trainer.model.eval()
    weight_D = peft_model.base_model.model.score.modules_to_save["default"].weight.detach().float().cpu().reshape(-1)
    raw = scorer.score_rows(
        peft_model,
        scorer.fold(weight_D, mean=0.0, std=1.0).to(peft_model.device),
        rows,
        pad=tokenizer.pad_token_id,
        batch_size=settings.micro_batch,
    )
    mean, std = float(raw.mean()), float(raw.std())
    if not 0 < std < float("inf"):
        raise UserError(
            f"The scores of {normalised_on} have standard deviation {std}, so they cannot be normalised; give more "
            "answers that differ, or look for damaged weights."
        )
    folder = Path(settings.output) / "model"
    with runs.whole_folder(folder) as aside:
        pairs.save_adapter(peft_model, aside, base=os.path.relpath(base, folder))
        scorer.save_description(
            aside,
            scorer.fold(weight_D, mean=mean, std=std),
            scorer.RewardDescription(
                mean=mean,
                std=std,
                normalised_on=normalised_on,
                tokenizer=tokenizer_fingerprint(tokenizer),
                base=runs.fingerprint(base),
                learned_from_cut=any(pair.has_cut for pair in train),
            ),
        )


def normalisation_rows(
    settings: RewardSettings, tokenizer: Any, train: list[pairs.EncodedPair]
) -> tuple[list[list[int]], str]:
    """Return the rows that get mean 0 and standard deviation 1, and what they are."""
    if Path(settings.candidates).is_file():
        rows = pairs.ended_answers(
            jsonl.read(settings.candidates, Candidates),
            tokenizer,
            test_share=settings.test_share,
            limit=settings.normalise_on,
        )
        if len(rows) >= 8:
            return rows, f"{len(rows)} ended answers of {settings.candidates}"
    rows = [list(pair.chosen) for pair in train[: settings.normalise_on]]
    return rows, f"{len(rows)} chosen answers of {settings.preferences}"


if __name__ == "__main__":
    config.run(main, RewardSettings, __doc__ or "", folder="output")
