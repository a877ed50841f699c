"""PPO's full layout over several GPUs: the step of one process, and what a run takes.

    python benchmarks/full_gpus.py --processes 2 --out runs/full_gpus.json

1. Learns from the same drawn answers in one process and, sharded by FSDP2, in several: a model of SmolLM2-135M's shape
   in float32. Figures and weights must agree to what sums in another order leave.
2. Trains a model of a billion weights in bfloat16 for some updates, sampling included: losses, KL, seconds by phase and
   the peak of each GPU's memory.

Models, tokenizer, prompts and reward model are drawn here. `--sharder zero3` needs deepspeed; the embeddings are then
untied. Without a GPU both parts take a tiny model, by FSDP2.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import torch

CHECKOUT = Path(__file__).resolve().parent.parent
VOCABULARY = 32_000
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32},
}
COMPARED = {"per_device_train_batch_size": 4, "response_length": 48, "num_ppo_epochs": 2, "max_grad_norm": 0.5}
"""Sixteen answers, two steps; Adam's epsilon is large, for its step by a gradient near zero is by its sign."""
ANSWERS = 16


# ------------------------------------------------------------------------------------------ what is drawn


def make(folder: Path, shape: str, dtype: torch.dtype, *, tied: bool) -> None:
    """Write a model with its tokenizer, and a reward model on it, below `folder`."""
    from peft import LoraConfig, PeftModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from finlm import chat_format, scorer
    from finlm.tokenizer import tokenizer_fingerprint

    words = {"<pad>": 0, "</s>": 1} | {str(number): number for number in range(2, VOCABULARY)}
    level = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=level, eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = chat_format.TEMPLATE
    tokenizer.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape],
        vocab_size=VOCABULARY,
        tie_word_embeddings=tied,
        max_position_embeddings=1024,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder / "base")
    adapted = PeftModel(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    adapted.peft_config["default"].base_model_name_or_path = "../base"
    adapted.save_pretrained(folder / "reward", save_embedding_layers=False)
    described = scorer.RewardDescription(
        mean=0.0, std=1.0, normalised_on="nothing", tokenizer=tokenizer_fingerprint(tokenizer)
    )
    head = scorer.fold(torch.randn(config.hidden_size) * config.hidden_size**-0.5, mean=0.0, std=1.0)
    scorer.save_description(folder / "reward", head, described)


def ids(count: int, length: int, seed: int) -> list[list[int]]:
    """Return rows of drawn token ids, none of them padding or end."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (count, length), generator=generator).tolist()


# ------------------------------------------------------------------------------------------ one process


def child(folder: Path, part: str, updates: int) -> None:
    """Learn from this process's share of the drawn answers (`compare`), or train (`train`); write what came of it."""
    from alignment import ppo_log, sharding
    from alignment.ppo_trainer import PPOConfig, PPOTrainer
    from finlm.generation import Answer
    from finlm.model import device_of_this_process, load_causal
    from finlm.tokenizer import load_tokenizer

    count = int(os.environ.get("WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available()
    train = {"per_device_train_batch_size": 8, "response_length": 128 if on_gpu else 8, "gradient_checkpointing": True}
    accumulate = ANSWERS // 4 // count if part == "compare" else 2
    rates = {"learning_rate": 1e-4, "critic_learning_rate": 1e-4, "adam_epsilon": 1e-3}
    dtype = torch.float32 if part == "compare" else torch.bfloat16
    trainer = PPOTrainer(
        args=PPOConfig(
            layout="full",
            output_dir=str(folder / f"{part}-{count}"),
            total_episodes=10**6,  # the last update of a run writes a checkpoint; these have none
            save_steps=10**6,
            warmup_updates=0,
            gradient_accumulation_steps=accumulate,
            local_rollout_forward_batch_size=16,
            **(COMPARED | rates if part == "compare" else train),  # type: ignore[arg-type]
        ),
        processing_class=load_tokenizer(folder / "base"),
        model=load_causal(folder / "base", dtype=dtype, device=device_of_this_process()),
        ref_model=None,
        reward_model=folder / "reward",
        train_dataset=[{"input_ids": row} for row in ids(64, 128 if on_gpu else 16, 1)],
    )
    said: list[dict[str, float]] = []
    if part == "compare":
        share = ANSWERS // count
        mine = slice(trainer.processes.index * share, (trainer.processes.index + 1) * share)
        answers = [Answer((*row, 1), ended=True) for row in ids(ANSWERS, 40, 2)]
        measured = trainer.measure(ids(ANSWERS, 40, 3)[mine], answers[mine])
        kl = max(float((one.old_BA - one.ref_BA).abs().max()) for one in measured)
        said.append(trainer.learn(trainer.credit(measured), update=1) | {"first_kl": kl})
        for role in ("policy", "critic"):
            weights = trainer.roles.parameters(role).values()  # type: ignore[arg-type]
            sums = [float(sharding.whole(one, one).detach().double().square().sum()) for one in weights]
            said[0] |= {f"{role}_weight_{number}": one for number, one in enumerate(sums)}
    else:
        with ppo_log.Journal(trainer.folder) as journal:
            said = [trainer.update(journal) for _ in range(updates)]
    trainer.folder.mkdir(parents=True, exist_ok=True)
    (trainer.folder / f"said-{trainer.processes.index}.json").write_text(json.dumps(said))


def launch(folder: Path, part: str, count: int, sharder: str, updates: int) -> list[list[dict[str, float]]]:
    """Run a part in `count` processes; return what each says, update by update."""
    script = [__file__, "--child", part, "--folder", str(folder), "--updates", str(updates)]
    config = CHECKOUT / "configs" / "accelerate" / f"{sharder}.yaml"
    several = ["accelerate.commands.launch", "--config_file", str(config), "--num_processes", str(count)]
    paths = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": paths, "HF_HUB_DISABLE_TELEMETRY": "1"}
    if not torch.cuda.is_available():  # accelerate's launcher shards on GPUs only
        several = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        environment |= {"ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *(["-m", *several] if count > 1 else []), *script]
    subprocess.run(command, env=os.environ | environment, check=True)
    out = folder / f"{part}-{count}"
    return [json.loads((out / f"said-{index}.json").read_text()) for index in range(count)]


# ------------------------------------------------------------------------------------------ all of it


def furthest(one: dict[str, float], several: dict[str, float]) -> tuple[str, float]:
    """Return the number that differs most, and by how much of itself; numbers near zero count as 0.001.

    Shares of clipped tokens are left out: rounding puts a token that lies on the limit on one side or the other.
    """
    smooth = {name: value for name, value in one.items() if "clipfrac" not in name}
    apart = {name: abs(value - several[name]) / max(abs(value), 1e-3) for name, value in smooth.items()}
    name = max(apart, key=lambda name: apart[name])
    return name, apart[name]


def main() -> None:
    """Run both parts, print and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="GPUs (default: %(default)s)")
    parser.add_argument("--sharder", choices=("fsdp2", "zero3"), default="fsdp2", help="default: %(default)s")
    parser.add_argument("--updates", type=int, default=3, help="updates of the second part (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/full_gpus"), help="made anew (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--child", choices=("compare", "train"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.folder, given.child, given.updates)
        return
    if ANSWERS // 4 % given.processes:
        parser.error(f"--processes is {given.processes}; it must divide {ANSWERS // 4}")
    if given.sharder == "zero3" and not torch.cuda.is_available():
        parser.error("--sharder zero3 needs GPUs: accelerate knows no DeepSpeed without")
    shutil.rmtree(given.folder, ignore_errors=True)
    on_gpu = torch.cuda.is_available()
    small, large = given.folder / "small", given.folder / "large"
    make(small, "135m" if on_gpu else "tiny", torch.float32, tied=given.sharder == "fsdp2")
    ((one,),) = launch(small, "compare", 1, given.sharder, 1)
    ((several,), *others) = launch(small, "compare", given.processes, given.sharder, 1)
    name, apart = furthest(one, several)
    assert all(other == [several] for other in others), "processes disagree"
    print(
        f"1 process and {given.processes}: {len(one)} figures and weights, furthest apart {name}: {apart:.1e} of itself"
    )
    make(large, "1b" if on_gpu else "tiny", torch.bfloat16, tied=False)
    said = launch(large, "train", given.processes, given.sharder, given.updates)
    shown = ("objective/scores", "objective/kl", "loss/policy_avg", "loss/value_avg", "val/ratio")
    phases = ("perf/sample_seconds", "perf/measure_seconds", "perf/credit_seconds", "perf/learn_seconds")
    for index, updates in enumerate(said):
        for update, metrics in enumerate(updates, 1):
            words = [f"{key.split('/')[1]} {metrics[key]:.4g}" for key in (*shown, *phases)]
            print(f"process {index}, update {update}: {', '.join(words)}, {metrics['perf/peak_memory_gib']:.1f} GiB")
    if given.out:
        git = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
        found = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        commit = os.environ.get("FINLM_COMMIT", found)  # where the tree was copied without its history
        kept = (*shown, *phases, "perf/peak_memory_gib", "perf/tokens_per_second", "rollout/answer_tokens")
        figures = {
            "compared": {"one": one, "several": several, "furthest": name, "relative": apart},
            "trained": [[{key: metrics[key] for key in kept} for metrics in updates] for updates in said],
        }
        hardware = f"{given.processes} x {torch.cuda.get_device_name() if on_gpu else 'CPU process'}"
        versions = {"torch": torch.__version__}
        record: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "commit": commit, "hardware": hardware}
        record |= {"versions": versions, "figures": figures}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
