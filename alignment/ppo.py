"""PPO: aligns the fine-tuned model with the reward model.

    accelerate launch alignment/ppo.py                       reads runs/sft, runs/reward, runs/prompts.jsonl, and to
                                                             evaluate on runs/prompts/held_out.jsonl
    accelerate launch alignment/ppo.py --config ppo_6b       the 6B on one 80 GB GPU
    accelerate launch --config_file configs/accelerate/fsdp2.yaml alignment/ppo.py --config ppo_6b_full
                                                             all its weights, on eight

Policy, critic and reward model are adapters on one frozen base, which is the reference (alignment/roles.py), or whole
models in shards (alignment/full_roles.py). The run
lies in runs/ppo; the same command resumes it, and --total_episodes trains a finished one on.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from peft import LoraConfig
from transformers import set_seed

from alignment.make_roles import keep_models_whole
from alignment.policies import copy_policy
from alignment.ppo_trainer import PPOConfig, PPOTrainer
from alignment.stopping import EXIT_CODE, Stopped
from alignment.watch import GuardStop
from finlm import config, ensemble, jsonl, model, ppo_records, runs, scorer
from finlm.errors import UserError
from finlm.progress import console
from finlm.records import Prompt
from finlm.tokenizer import check_vocabulary, load_tokenizer

HELD_OUT_BY = "finlm prompts --overwrite true"


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
    """Reward model, an adapter trained on that base or a whole model beside it; also the critic's start."""
    reward_models: list[str] = field(default_factory=list)
    """Further reward models on that base, such as others of the same pairs with other seeds: what is paid is then the
    mean or minimum of all (reward_reduce), `reward_model` included, and a guard watches how far they disagree. Each
    adds a pass through the base to a rollout."""
    prompts: str = "{runs}/prompts.jsonl"
    """File of Prompt records."""
    held_out: str = "{runs}/prompts/held_out.jsonl"
    """File of Prompt records to evaluate on; where there is none at the default place, PPO trains without."""
    anchor: str = ""
    """Second reward model, trained on other data, that scores the answers to held-out prompts and does not train; it
    may stand on another base, which is loaded beside the policy's. Empty: none."""
    export: Literal["last", "best"] = "last"
    """The policy that becomes `policy/`, which chat and evaluation take: the last, or of the kept ones the best by
    held-out reward within the limits of `evaluation`. The last is the default: the highest of some means over a few
    dozen answers is high partly by luck, guards end a run that gets worse, and the closing line names the best."""
    dtype: str = "auto"
    """Frozen weights: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    ptx_instructions: list[str] = field(default_factory=lambda: ["{runs}/selfqa/instructions.jsonl"])
    """Files of instructions to mix in, in the formats that `finlm sft` reads."""
    ptx_text: list[str] = field(default_factory=lambda: ["{runs}/selfqa/documents.jsonl"])
    """Files of text to mix in, in the formats that `finlm sft` reads."""
    ptx_cache: str = "{runs}/cache/tokens"
    """Folder of encoded files; may be deleted at any time."""
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"})
    """Fields of peft.LoraConfig for the policy; not used with layout full."""
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
    mixed_in = [path for its in settings.ptx_files.values() for path in its]
    for path in mixed_in:
        runs.require(path, what="What ptx_coef mixes in", made_by="python selfqa/generate.py --corpus filings/")
    base, _ = model.base_of(settings.model)
    reward = Path(settings.reward_model) / "model"
    inputs: dict[str, str | Path] = {"model": base, "reward_model": reward, "prompts": settings.prompts}
    rewards = ensemble.members_of([reward, *settings.reward_models]) if settings.reward_models else [reward]
    inputs |= {f"reward_models.{number}": folder for number, folder in enumerate(rewards[1:], 1)}
    if settings.anchor:
        inputs["anchor"] = scorer.reward_folder(settings.anchor)
    processes = Accelerator()  # a PartialState made before it would take several processes on CPUs for one
    keep_models_whole(processes)
    with processes.main_process_first():
        held_out = held_out_prompts(settings)
        run = runs.Run.open(
            out,
            "ppo",
            settings,
            inputs=inputs | {path: path for path in [*held_out, *mixed_in]},
            grows=("total_episodes",),
            free=("guards", "ptx_cache"),
            overwrite=settings.overwrite and processes.is_main_process,
        )
    if run.is_finished:
        print(
            f"{out} is finished ({settings.total_episodes:,} episodes); --total_episodes with a higher number trains "
            "on, --overwrite true begins afresh."
        )
        return
    for folder in rewards:
        scorer.check_same_base(folder, base)
    if settings.export == "best" and not (held_out and settings.policy_steps):
        reason = "policy_steps is 0: no policy is kept" if held_out else why_no_evaluation(settings)
        raise UserError(f"export is 'best', but {reason}. Mend that, or set export to last.")
    runs.need_disk(out, 0.5)

    device = model.device_of_this_process()
    tokenizer = load_tokenizer(base)
    policy = model.load_causal(base, dtype=model.choose_dtype(settings.dtype, device), device=device)
    if settings.layout == "full":  # three checkpoints, each float32 weights and two moments of policy and critic
        runs.need_disk(out, 3 * 2 * 12 * policy.num_parameters() / 1e9)
    check_vocabulary(tokenizer, policy.get_input_embeddings().num_embeddings, str(base))
    trainer = PPOTrainer(
        args=settings,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=rewards,
        train_dataset=list(jsonl.read(settings.prompts, Prompt)),
        eval_dataset=[prompt for path in held_out for prompt in jsonl.read(path, Prompt)],
        anchor=anchor_of(settings, device) if held_out else None,
        peft_config=None if settings.layout == "full" else lora_of(settings),
    )
    jsonl.write(out / "rejected.jsonl", trainer.removals)
    if trainer.accelerator.is_main_process:
        aside = f" ({len(trainer.removals)} records set aside)" if trainer.removals else ""
        console.print(f"PPO: {len(trainer.prompts)} prompts{aside}, {trainer.total_updates} updates on {device}")
        if not trainer.watch.is_evaluating and settings.evaluation.every:
            console.print(f"PPO runs without evaluation: {why_no_evaluation(settings)}")
    try:
        trainer.train()
    except (Stopped, GuardStop) as ended:
        if trainer.accelerator.is_main_process:
            print(ended if isinstance(ended, Stopped) else f"error: {ended}", file=sys.stderr)
        sys.exit(EXIT_CODE if isinstance(ended, Stopped) else 2)

    trainer.roles.refresh()
    if trainer.accelerator.is_main_process:
        exported = export(trainer, settings, os.path.relpath(base, out / "policy"))
        run.finish(
            prompts=len(trainer.prompts),
            set_aside=len(trainer.removals),
            updates=trainer.total_updates,
            exported=exported,
        )
        print(closing(out, trainer.total_updates, exported))


def held_out_prompts(settings: PPOSettings) -> list[str]:
    """Return the file of prompts to evaluate on; a run that was begun without goes on without.

    Raises:
        MissingInput: The file was named, or the run was begun with it, and it is not there.
    """
    state = None if settings.overwrite else runs.read_state(settings.output_dir)
    if state is not None and runs.has_begun(settings.output_dir):
        return [path for path in state["inputs"] if path == settings.held_out]
    is_default = settings.held_out == f"{settings.runs}/prompts/held_out.jsonl"
    if not settings.evaluation.every or (is_default and not Path(settings.held_out).is_file()):
        return []
    runs.require(settings.held_out, what="Held-out prompts", made_by=HELD_OUT_BY)
    return [settings.held_out]


def why_no_evaluation(settings: PPOSettings) -> str:
    """Say why there are no held-out prompts, and what makes them."""
    if Path(settings.held_out).is_file():
        return f"it was begun before there was {settings.held_out}; --overwrite true begins afresh"
    return f"there are no held-out prompts at {settings.held_out}; make them with: {HELD_OUT_BY}"


def anchor_of(settings: PPOSettings, device: torch.device) -> scorer.Scorer | None:
    """Load the second reward model, if one is named."""
    if not settings.anchor:
        return None
    # PEFT draws weights before it loads them; the policy's must be the same with and without an anchor
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return scorer.Scorer.load(settings.anchor, dtype=model.choose_dtype(settings.dtype, device), device=device)


def lora_of(settings: PPOSettings) -> LoraConfig:
    """Return the policy's LoRA."""
    found: LoraConfig = config.section("lora", settings.lora, LoraConfig, {"task_type": "CAUSAL_LM"})
    return found


def export(trainer: PPOTrainer, settings: PPOSettings, base: str) -> int:
    """Write `policy/`, the last policy or the best; return its update."""
    target, best = trainer.folder / "policy", ppo_records.read_best(trainer.folder)
    if settings.export == "best" and best is not None:
        copy_policy(trainer.folder / best.policy, target, base=base)
        return best.update
    trainer.save_policy(target, base=base)
    return trainer.total_updates


def closing(out: Path, updates: int, exported: int) -> str:
    """Say what was made, and which kept policy did best on held-out prompts."""
    said = f"PPO: {updates} updates, policy in {out / 'policy'}"
    said += f" (that of update {exported})" if exported != updates else ""
    best = ppo_records.read_best(out)
    if best is not None and best.update == exported:
        said += f", the best on held-out prompts (reward {best.reward:+.2f})"
    elif best is not None:
        said += f"; on held-out prompts {out / best.policy} did best (reward {best.reward:+.2f}): {best.reason}"
    return f"{said}; talk to it: finlm chat --model {out}"


if __name__ == "__main__":
    config.run(main, PPOSettings, __doc__ or "", folder="output_dir")
