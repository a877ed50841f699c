"""PPO: aligns the fine-tuned model with the reward model.

    accelerate launch alignment/ppo.py                       reads runs/sft, runs/reward, runs/prompts.jsonl
    accelerate launch alignment/ppo.py --config ppo_6b       the 6B on one 80 GB GPU

Policy, critic and reward model are adapters on one frozen base, which is the reference (alignment/roles.py). The run
lies in runs/ppo; the same command resumes it, and --total_episodes trains a finished one on.
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
from peft import LoraConfig
from transformers import set_seed

from alignment.ppo_trainer import PPOConfig, PPOTrainer
from alignment.stopping import EXIT_CODE, Stopped
from finlm import config, jsonl, model, runs, scorer
from finlm.progress import console
from finlm.records import Prompt
from finlm.tokenizer import check_vocabulary, load_tokenizer


@dataclass(frozen=True, kw_only=True)
class PPOSettings(PPOConfig):
    """Settings of the PPO stage: those of the trainer, and where things lie."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output_dir: str = "{runs}/ppo"
    """Folder of the run: policy, checkpoints, rollouts, metrics."""
    model: str = "{runs}/sft"
    """Fine-tuned model: start of the policy, reference, and base of all adapters."""
    reward_model: str = "{runs}/reward"
    """Reward model trained on that base; also the critic's start."""
    prompts: str = "{runs}/prompts.jsonl"
    """File of Prompt records."""
    dtype: str = "auto"
    """Frozen weights: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    ptx_instructions: list[str] = field(default_factory=lambda: ["{runs}/selfqa/instructions.jsonl"])
    """Files of Conversation records to mix in."""
    ptx_text: list[str] = field(default_factory=lambda: ["{runs}/selfqa/documents.jsonl"])
    """Plain-text files (paragraphs between blank lines) or files of Document records to mix in."""
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"})
    """Fields of peft.LoraConfig for the policy."""
    overwrite: bool = False
    """Delete what lies in the output folder and begin afresh."""


def main(settings: PPOSettings) -> None:
    """Find what the stages before left, train, export the policy."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    set_seed(settings.seed)
    out = Path(settings.output_dir)
    runs.require(settings.model, what="The fine-tuned model", made_by="python alignment/sft.py")
    runs.require(settings.reward_model, what="The reward model", made_by="python reward/train.py")
    runs.require(settings.prompts, what="Prompts", made_by="finlm prompts")
    mixed_in = [*settings.ptx_instructions, *settings.ptx_text] if settings.ptx_coef else []
    for path in mixed_in:
        runs.require(path, what="What ptx_coef mixes in", made_by="python selfqa/generate.py --corpus filings/")
    base, _ = model.base_of(settings.model)
    reward = Path(settings.reward_model) / "model"
    inputs: dict[str, str | Path] = {"model": base, "reward_model": reward, "prompts": settings.prompts}
    with PartialState().main_process_first():
        run = runs.Run.open(
            out,
            "ppo",
            settings,
            inputs=inputs | {path: path for path in mixed_in},
            grows=("total_episodes",),
            overwrite=settings.overwrite and PartialState().is_main_process,
        )
    if run.is_finished:
        print(
            f"{out} is finished ({settings.total_episodes:,} episodes); --total_episodes with a higher number trains "
            "on, --overwrite true begins afresh."
        )
        return
    scorer.check_same_base(reward, base)
    runs.need_disk(out, 0.5)

    device = model.device_of_this_process()
    tokenizer = load_tokenizer(base)
    policy = model.load_causal(base, dtype=model.choose_dtype(settings.dtype, device), device=device)
    check_vocabulary(tokenizer, policy.get_input_embeddings().num_embeddings, str(base))
    trainer = PPOTrainer(
        args=settings,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        train_dataset=list(jsonl.read(settings.prompts, Prompt)),
        peft_config=config.section("lora", settings.lora, LoraConfig, {"task_type": "CAUSAL_LM"}),
    )
    jsonl.write(out / "rejected.jsonl", trainer.removals)
    console.print(f"PPO: {len(trainer.prompts)} prompts, {trainer.total_updates} updates on {device}")
    try:
        trainer.train()
    except Stopped as stopped:
        if trainer.accelerator.is_main_process:
            print(stopped, file=sys.stderr)
        sys.exit(EXIT_CODE)

    if trainer.accelerator.is_main_process:
        trainer.save_policy(out / "policy", base=os.path.relpath(base, out / "policy"))
        run.finish(prompts=len(trainer.prompts), set_aside=len(trainer.prompts.removals), updates=trainer.total_updates)
        print(f"PPO: {trainer.total_updates} updates, policy in {out / 'policy'}; talk to it: finlm chat --model {out}")


if __name__ == "__main__":
    config.run(main, PPOSettings, __doc__ or "", folder="output_dir")
