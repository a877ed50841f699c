"""Mixed supervised fine-tuning: text and instructions, general and finance, packed into one run.

    python alignment/sft.py                     reads runs/selfqa, writes runs/sft
    python alignment/sft.py --preview 3         shows three packed rows and what is learned of them

Loss on every token of text, on the answers alone for instructions (arXiv 2305.12002). Four streams are drawn in target
shares of tokens, packed by best fit, and never see each other within a row. Held-out loss is measured by category; the
shares may follow it (`mixture`). A LoRA is merged once, in float32, and is the base of all that follows; of a run that
tunes all weights (`tune: full`) the trained model itself is.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import LlamaForCausalLM, TrainerCallback, set_seed

from alignment import sft_tuning
from alignment.processes import Processes
from alignment.sft_plan import Plan
from alignment.sft_trainer import BEST, HeldOutSettings, PackedTrainer, answer_loss, best_of
from alignment.stopping import EXIT_CODE, StopsBehindStep, StopSignal
from finlm import config, jsonl, model, runs, streams, trainers, tuning
from finlm.mixture_moves import MixtureMoves
from finlm.progress import console
from finlm.samples import Sample
from finlm.sft_page import write_sft_page
from finlm.sft_preview import preview
from finlm.sft_records import STREAMS, StreamName
from finlm.streams import Streams
from finlm.tokenizer import check_vocabulary, load_tokenizer

PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Share of each stream among all tokens, prompts included; they sum to 1."""

    text_general: float = 0.0
    """General text."""
    text_finance: float = 0.2
    """Finance text."""
    instructions_general: float = 0.0
    """General instructions."""
    instructions_finance: float = 0.8
    """Finance instructions."""


@dataclass(frozen=True, kw_only=True)
class SFTSettings:
    """Settings of mixed supervised fine-tuning."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/sft"
    """Folder of this run and of the merged model."""
    model: str = "embedded"
    """Base model's folder, or `embedded` for SmolLM2-135M."""
    text_general: list[str] = field(default_factory=list)
    """Files of general text: .jsonl, .json or .parquet with `text` or `content`, Document records, .txt, .md; each also
    .xz or .gz."""
    text_finance: list[str] = field(default_factory=lambda: ["{runs}/selfqa/documents.jsonl"])
    """Files of finance text."""
    instructions_general: list[str] = field(default_factory=list)
    """Files of general instructions: .jsonl, .json, .parquet of Alpaca, ShareGPT, messages, question and answer, prompt
    and response, self-instruct, or Conversation records; .xz and .gz too."""
    instructions_finance: list[str] = field(default_factory=lambda: ["{runs}/selfqa/instructions.jsonl"])
    """Files of finance instructions."""
    shares: Shares = field(default_factory=Shares)
    """Share of each stream among all tokens, prompts included; they sum to 1."""
    mixture: MixtureMoves = field(default_factory=MixtureMoves)
    """How shares move; `every` 0 leaves them as they are."""
    held_out: HeldOutSettings = field(default_factory=HeldOutSettings)
    """When held-out loss is measured, and what follows from it."""
    export: Literal["last", "best"] = "last"
    """The model that is exported: the last, or the one with the least held-out loss of answers."""
    forms: list[str] = field(default_factory=lambda: ["open-book", "closed-book", ""])
    """Forms of instructions to use: open-book, closed-book, or empty for those without a form."""
    test_share: float = 0.2
    """Share of groups (companies, questions, documents) held out from training, here and in every later stage."""
    steps: int = 400
    """Optimizer steps."""
    batch_size: int = 32
    """Packed rows per optimizer step, over all processes."""
    micro_batch: int = 8
    """Packed rows per forward pass and process."""
    max_length: int = 2048
    """Tokens of a packed row. Longer conversations are set aside, longer documents continue in another sample, cut at
    the end of a sentence."""
    tune: Literal["lora", "full"] = "lora"
    """What learns: adapters on the frozen base (2 bytes a weight in bfloat16: 13 GB with the 6B, and 0.6 GB for rank
    16), or all weights."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw` keeps moments and, where all learn, weights in float32: 16 bytes a weight with gradients, 102 GB with the
    6B, 115 in a pass that computes in bfloat16. `adamw_8bit`, for all weights in one process, keeps moments of eight
    bits and weights of `dtype`, rounded by chance in bfloat16: 6 bytes a weight, 38 GB; torchao's (extra `cuda`)."""
    learning_rate: float = 2e-4
    """Peak learning rate of AdamW; linear warm-up and cosine decay. All weights want less, the recipe 5e-5."""
    save_steps: int = 50
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything random."""
    dtype: str = "auto"
    """What is computed in: auto, bfloat16 or float32. Weights are kept in it too, but where `adamw` steps on all of
    them."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"})
    """Fields of peft.LoraConfig; not looked at where all weights learn."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Further fields of transformers.TrainingArguments; `gradient_checkpointing` (default: on CUDA) for one: with it
    activations take 0.25 MB a token of the 6B and the step a third longer, without it 3.9 MB."""
    cache: str = "{runs}/cache/tokens"
    """Folder of encoded files; may be deleted at any time."""
    preview: int = 0
    """Show so many packed rows of the first step, with what is learned of them, and end."""
    overwrite: bool = False
    """Delete what lies in the output folder and begin afresh."""

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of micro_batch {self.micro_batch}.")
        tuning.check_fits(self)
        streams.check_shares(self.by_stream, self.files)

    @property
    def files(self) -> dict[StreamName, list[str]]:
        """Files of each stream."""
        return {name: getattr(self, name.replace("-", "_")) for name in STREAMS}

    @property
    def by_stream(self) -> dict[str, float]:
        """Share of each stream."""
        return {name: getattr(self.shares, name.replace("-", "_")) for name in STREAMS}


def main(settings: SFTSettings) -> None:
    """Read the streams, fine-tune, merge, export."""
    tuning.require(settings.optimizer, trainers.processes().num_processes)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    set_seed(settings.seed)
    out = Path(settings.output)
    files = [path for its in settings.files.values() for path in its]
    for path in files:
        runs.require(path, what="Training data", made_by="python selfqa/generate.py --corpus filings/")
    base = model.resolve_model(settings.model, settings.runs)
    tokenizer = load_tokenizer(base)
    if settings.preview:
        found = read(settings, tokenizer)
        streams.require_samples(settings.by_stream, found)
        rows = next(plan_of(settings, found, out).steps(0, 1))
        preview(rows, tokenizer, console, count=settings.preview, row_tokens=settings.max_length)
        return
    with trainers.processes().main_process_first():
        run = runs.Run.open(
            out,
            "sft",
            settings,
            inputs={"model": base} | {path: path for path in files},
            free=("cache",),
            overwrite=settings.overwrite and trainers.processes().is_main_process,
        )
    if run.is_finished:
        print(f"{out} is finished; --overwrite true begins afresh, --output names another folder.")
        return
    runs.need_disk(out, 1.0)

    with trainers.processes().main_process_first():
        found = read(settings, tokenizer)
    if trainers.processes().is_main_process:
        jsonl.write(out / "rejected.jsonl", found.removals)
    streams.require_samples(settings.by_stream, found)
    plan = plan_of(settings, found, out)
    counts = {name: len(its) for name, its in found.train.items() if settings.by_stream[name] > 0}
    tested = sum(map(len, found.held_out.values()))
    told = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
    console.print(f"SFT: samples {told}; {tested} held out, {len(found.removals):,} set aside")

    device = model.device_of_this_process()
    causal = model.load_causal(base, dtype=tuning.kept_in(settings, device), device=device)
    check_vocabulary(tokenizer, causal.get_input_embeddings().num_embeddings, str(base))
    trainer = make_trainer(settings, causal, plan, found.held_out)
    trainers.watch(trainer, "SFT", out)
    with StopSignal() as signal:
        stop = StopsBehindStep(signal, Processes(trainer.accelerator))
        trainer.add_callback(stop)
        trainer.go_on()
    if stop.has_stopped:
        if trainer.accelerator.is_main_process:
            told = f"stopped by SIGTERM behind step {trainer.state.global_step} of {settings.steps}"
            print(f"{told}; the same command goes on from there.", file=sys.stderr)
        sys.exit(EXIT_CODE)
    trainer.take_up()
    trainer.evaluated()

    weights = trainer.whole_weights()
    if trainer.accelerator.is_main_process:
        best = best_of(trainer.history)
        exported = best if settings.export == "best" and best is not None else trainer.history[-1]
        kept = out / BEST
        sft_tuning.export(trainer.model, weights, base, out, of=kept if exported is best and kept.is_dir() else None)
        write_sft_page(out, out / PAGE)  # before the end: a finished run writes nothing more
        drawn = plan.totals()
        run.finish(
            samples=counts,
            held_out_samples=tested,
            set_aside=len(found.removals),
            steps=trainer.state.global_step,
            rows=plan.rows_packed,
            drawn_tokens={name: one.tokens for name, one in drawn.items()},
            learned_tokens={name: one.learned for name, one in drawn.items()},
            test_loss_before=answer_loss(trainer.history[0]),
            test_loss=answer_loss(exported),
            exported_step=exported.step,
        )
        after = answer_loss(exported)
        said = f"SFT: held-out loss of answers {after:.3f}, " if after is not None else "SFT: "
        print(f"{said}model in {out / 'model'}; curves, mixture and forgetting in {out / PAGE}")


def read(settings: SFTSettings, tokenizer: Any) -> Streams:
    """Read, encode and split the files of all streams with a share, and those whose held-out loss alone is wanted."""
    return streams.load(
        settings.files,
        tokenizer,
        max_length=settings.max_length,
        forms=settings.forms,
        test_share=settings.test_share,
        test_samples=settings.held_out.samples,
        cache=Path(settings.cache),
    )


def plan_of(settings: SFTSettings, found: Streams, out: Path) -> Plan:
    """Return what each step learns from."""
    return Plan(
        found.train,
        settings.by_stream,
        room=settings.max_length,
        rows=settings.batch_size,
        seed=settings.seed,
        folder=out,
    )


def make_trainer(
    settings: SFTSettings,
    causal: LlamaForCausalLM,
    plan: Plan,
    held_out: Mapping[str, Sequence[Sample]],
    *,
    kind: type[PackedTrainer] = PackedTrainer,
    callbacks: Sequence[TrainerCallback] = (),
    **fixed: Any,
) -> PackedTrainer:
    """Assemble the trainer on a model.

    Args:
        settings: What learns and how.
        causal: The model, in the dtype that `finlm.tuning.kept_in` tells; it is changed.
        plan: What each step learns from.
        held_out: Held-out samples by stream.
        kind: The trainer's class.
        callbacks: Further callbacks.
        fixed: Fields of TrainingArguments that the caller decides.
    """
    arguments = trainers.arguments(
        settings,
        causal.device,
        lr_scheduler_type="cosine",
        logging_nan_inf_filter=False,  # it waits for the GPU after each pass; such gradients end the run anyway
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        **tuning.of_optimizer(settings.optimizer) | fixed,
    )
    return kind(
        plan=plan,
        held_out=held_out,
        moves=settings.mixture,
        settings=settings.held_out,
        folder=Path(settings.output),
        autocast=tuning.autocast(settings, causal.device),
        model=sft_tuning.learning(settings, causal),
        args=arguments,
        callbacks=list(callbacks),
    )


if __name__ == "__main__":
    config.run(main, SFTSettings, __doc__ or "", folder="output")
