"""Mixed supervised fine-tuning: plain text and instructions in one run, exported as one set of weights.

    python alignment/sft.py                                   reads runs/selfqa, writes runs/sft
    accelerate launch alignment/sft.py --config sft_6b        the 6B

Loss on every token of text, on the answers alone for instructions (arXiv 2305.12002). TRL's SFTTrainer trains a LoRA
on the frozen base; the result is merged once, in float32, and is the base of all that follows.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from finlm import config, data, jsonl, model, runs, trainers
from finlm.checkpoints import WholeCheckpoints
from finlm.errors import UserError
from finlm.likelihood import token_log_probs
from finlm.metrics import read_metrics
from finlm.progress import console
from finlm.records import Removal
from finlm.scorer import last_hidden
from finlm.tables import as_dataset
from finlm.tokenizer import check_vocabulary, load_tokenizer


@dataclass(frozen=True, kw_only=True)
class SFTSettings:
    """Settings of mixed supervised fine-tuning."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/sft"
    """Folder of this run and of the merged model."""
    model: str = "embedded"
    """Base model's folder, or `embedded` for SmolLM2-135M."""
    instructions: list[str] = field(default_factory=lambda: ["{runs}/selfqa/instructions.jsonl"])
    """Files of Conversation records."""
    text: list[str] = field(default_factory=lambda: ["{runs}/selfqa/documents.jsonl"])
    """Plain-text files (paragraphs between blank lines) or files of Document records."""
    text_share: float = 0.2
    """Share of text among all tokens, 0 to 1."""
    forms: list[str] = field(default_factory=lambda: ["open-book", "closed-book", ""])
    """Forms of instructions to use: open-book, closed-book, or empty for those without a form."""
    test_share: float = 0.2
    """Share of groups (companies) held out from training, here and in every later stage."""
    steps: int = 400
    """Optimizer steps."""
    batch_size: int = 32
    """Rows per optimizer step, over all processes."""
    micro_batch: int = 8
    """Rows per forward pass and process."""
    max_length: int = 2048
    """Tokens per row; longer instructions are set aside, longer text continues in another row."""
    learning_rate: float = 2e-4
    """Peak learning rate of AdamW for the LoRA weights; linear warm-up and cosine decay."""
    test_rows: int = 64
    """Held-out instruction rows for the test loss, at most."""
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
    """Further fields of trl.SFTConfig."""
    overwrite: bool = False
    """Delete what lies in the output folder and begin afresh."""

    def __post_init__(self) -> None:
        if not 0 <= self.text_share < 1:
            raise ValueError(f"text_share is {self.text_share}; it must be at least 0 and below 1.")
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of micro_batch {self.micro_batch}.")


@dataclass(frozen=True, slots=True)
class Rows:
    """What is trained and tested on, and what was set aside: instructions, test rows and removals are all there was."""

    train: list[data.Row]
    """In the order of training, text included; a row may come again."""
    instructions: int
    """Different instructions that the training rows are drawn from."""
    test: list[data.Row]
    removals: list[Removal]


class MixedSFTTrainer(WholeCheckpoints, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer with checkpoints that are whole or not there, and a loss that is computed where it counts.

    TRL computes logits for every token of a row, prompts included. In open-book rows three tokens of four are prompt.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean negative log-likelihood of the learned tokens of the whole optimizer step."""
        causal = self.accelerator.unwrap_model(model).get_base_model()
        hidden_BTD = last_hidden(causal, inputs["input_ids"], inputs["attention_mask"].bool())
        labels_BT = inputs["labels"][:, 1:]
        is_learned_BT = labels_BT != data.IGNORE
        states_ND, tokens_N = hidden_BTD[:, :-1][is_learned_BT], labels_BT[is_learned_BT]
        logp_N, _ = token_log_probs(states_ND, tokens_N, causal.get_output_embeddings().weight)
        count = num_items_in_batch if num_items_in_batch is not None else is_learned_BT.sum()
        loss = -logp_N.sum() / count
        return (loss, {"loss": loss}) if return_outputs else loss


def main(settings: SFTSettings) -> None:
    """Fine-tune, merge, export."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    set_seed(settings.seed)
    out = Path(settings.output)
    for path in settings.instructions:
        runs.require(path, what="Instructions", made_by="python selfqa/generate.py --corpus filings/")
    base = model.resolve_model(settings.model, settings.runs)
    with PartialState().main_process_first():
        run = runs.Run.open(
            out,
            "sft",
            settings,
            inputs={"model": base} | {path: path for path in [*settings.instructions, *settings.text]},
            overwrite=settings.overwrite and PartialState().is_main_process,
        )
    if run.is_finished:
        print(f"{out} is finished; --overwrite true begins afresh, --output names another folder.")
        return
    runs.need_disk(out, 1.0)

    tokenizer = load_tokenizer(base)
    rows = make_rows(settings, tokenizer)
    jsonl.write(out / "rejected.jsonl", rows.removals)
    text_rows = sum(row.stream == "text" for row in rows.train)
    console.print(
        f"SFT: {rows.instructions} instructions, {len(rows.train)} rows ({text_rows} of text), {len(rows.test)} held "
        f"out, {len(rows.removals)} set aside"
    )

    trainer = make_trainer(settings, base, tokenizer, rows.train, rows.test)
    metrics = out / "metrics.jsonl"
    if rows.test and not read_metrics(metrics):
        trainer.evaluate()
    trainer.go_on()
    after = trainer.evaluate()["eval_loss"] if rows.test else None

    if trainer.accelerator.is_main_process:
        export(trainer, base, out, model.choose_dtype("bfloat16", torch.device("cpu")))
        run.finish(
            instructions=rows.instructions,
            held_out_rows=len(rows.test),
            set_aside=len(rows.removals),
            rows=len(rows.train),
            text_rows=text_rows,
            learned_tokens=sum(row.learned for row in rows.train),
            test_loss_before=read_metrics(metrics)[0].get("eval_loss"),
            test_loss=after,
        )
        print(f"SFT: test loss {after:.3f}, model in {out / 'model'}" if after is not None else f"model in {out}")


def make_rows(settings: SFTSettings, tokenizer: Any) -> Rows:
    """Encode instructions and text, hold companies out, interleave."""
    found = data.read_conversations(settings.instructions)
    conversations = [c for c in found if c.form in settings.forms]
    if not conversations:
        raise UserError(f"No instruction in {settings.instructions} has a form among {settings.forms}; change --forms.")
    held_out = [data.is_held_out(c, test_share=settings.test_share) for c in conversations]
    train, removals = data.instruction_rows(
        (c for c, is_test in zip(conversations, held_out, strict=True) if not is_test),
        tokenizer,
        max_length=settings.max_length,
    )
    test, test_removals = data.instruction_rows(
        (c for c, is_test in zip(conversations, held_out, strict=True) if is_test),
        tokenizer,
        max_length=settings.max_length,
    )
    removals += test_removals
    removals += data.beyond(found, conversations, rule="other-form", reason=f"forms are {settings.forms}")
    reason = f"{settings.test_rows} held-out rows are tested on"
    removals += [Removal(record_id=r.record_id, rule="over-limit", reason=reason) for r in test[settings.test_rows :]]
    paragraphs = (
        [paragraph for path in settings.text for paragraph in data.read_text(path)] if settings.text_share else []
    )
    text = data.text_rows(paragraphs, tokenizer, max_length=settings.max_length)
    count = settings.steps * settings.batch_size
    rows = data.interleave(train, text, text_share=settings.text_share, count=count, seed=settings.seed)
    return Rows(rows, len(train), test[: settings.test_rows], removals)


def make_trainer(
    settings: SFTSettings, base: Path, tokenizer: Any, train_rows: list[data.Row], test_rows: list[data.Row]
) -> MixedSFTTrainer:
    """Assemble TRL's trainer: our rows as they are, in their order."""
    device = model.device_of_this_process()
    arguments = trainers.arguments(
        SFTConfig,
        settings,
        device,
        lr_scheduler_type="cosine",
        shuffle_dataset=False,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    lora = config.section("lora", settings.lora, LoraConfig, {"task_type": "CAUSAL_LM"})
    causal = model.load_causal(base, dtype=model.choose_dtype(settings.dtype, device), device=device)
    check_vocabulary(tokenizer, causal.get_input_embeddings().num_embeddings, str(base))
    trainer = MixedSFTTrainer(
        model=causal,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=_dataset(train_rows),
        eval_dataset=_dataset(test_rows) if test_rows else None,
        peft_config=lora,
    )
    trainers.watch(trainer, "SFT", Path(settings.output))
    return trainer


def _dataset(rows: list[data.Row]) -> Dataset:
    return as_dataset({"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]})


def export(trainer: MixedSFTTrainer, base: Path, out: Path, dtype: torch.dtype) -> None:
    """Write the adapter, and base + adapter merged in float32 as the model that all later stages stand on."""
    with runs.whole_folder(out / "adapter") as aside:
        model.save_trained(trainer.model, aside)
    model.export_merged(base, out / "adapter", out / "model", dtype=dtype)


if __name__ == "__main__":
    config.run(main, SFTSettings, __doc__ or "", folder="output")
