"""The reward model in two processes is the reward model in one: the same steps, scores and resume.

The processes are real, over gloo, started by torch's launcher; this file is also what they run.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from two_processes import ROOT, launch

STEPS = 6


def child(base: str, out: str, loss: str, micro_batch: str, *also: str) -> None:
    """One process: learns from rankings, and writes down what it has.

    Args:
        base: Folder of the model.
        out: Folder of the run.
        loss: pairwise or token.
        micro_batch: Prompts of a pass.
        also: kill (die after the third step).
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, TrainerCallback, TrainingArguments

    from finlm.model import load_causal, save_trained
    from reward import readings
    from reward.groups import encoded
    from reward.trainer import ComparisonTrainer, Objective

    torch.set_num_threads(1)
    causal = load_causal(base, dtype=torch.float32, device=torch.device("cpu"))
    groups = encoded(rankings(), AutoTokenizer.from_pretrained(base), max_length=200)[0]
    torch.manual_seed(11)
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", modules_to_save=[readings.HEAD],
        exclude_modules=[readings.HEAD],
    )  # fmt: skip
    model = get_peft_model(readings.install(causal), lora)
    folder = Path(out)
    trainer = ComparisonTrainer(
        groups=groups,
        objective=Objective(loss=loss, margins=(0.0, 0.3, 0.6, 1.0), centring=0.01),
        batch_size=6,
        micro_batch=int(micro_batch),
        micro_batch_tokens=0,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "checkpoints"), max_steps=STEPS, per_device_train_batch_size=1, learning_rate=1e-2,
            seed=3, save_strategy="steps", save_steps=2, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
            adam_epsilon=1e-3, max_grad_norm=0.1, ddp_find_unused_parameters=False, ddp_broadcast_buffers=False,
        ),
    )  # fmt: skip

    class Kill(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                os._exit(9)

    if "kill" in also:
        trainer.add_callback(Kill())
    trainer.go_on()
    scores = trainer.scores(groups)
    if trainer.args.should_save:
        save_trained(trainer.model, folder / "made")
    log = [line for line in trainer.state.log_history if "grad_norm" in line]
    said = {"log": log, "scores": scores}
    (folder / f"said-{trainer.args.process_index}.json").write_text(json.dumps(said), encoding="utf-8")


def rankings() -> list[Any]:
    """Thirteen prompts, which six do not divide, with two to four answers of unequal lengths."""
    from finlm.records import Message, PreferencePair, Prompt, Provenance

    found = []
    for number in range(13):
        prompt = Prompt(messages=(Message(role="user", content=f"What of {number}?" + " And?" * (number % 5)),))
        answers = [f"It is {number}.", f"It may be {number + 1}, or so.", "No.", "Ask again, " * 8 + "please."]
        answers = answers[: 2 + number % 3]
        for better in range(len(answers)):
            for worse in range(better + 1, len(answers)):
                found.append(
                    PreferencePair(
                        prompt=prompt, chosen=answers[better], rejected=answers[worse], strength=worse - better,
                        source="set", provenance=Provenance(maker="import:set"),
                    )
                )  # fmt: skip
    return found


def said(folder: Path, index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"said-{index}.json").read_text(encoding="utf-8"))
    return found


def made(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "made").glob("*.safetensors")
    return load_file(path)


def is_close(one: Path, two: Path) -> None:
    """Check that two runs took the same steps and came to the same model, to the rounding of sums in another order."""
    import torch

    first, second = said(one), said(two)
    assert len(first["log"]) == STEPS
    for line, same in zip(first["log"], second["log"], strict=True):
        assert same["loss"] == pytest.approx(line["loss"], rel=1e-5)
        assert same["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-4)
    for scores, same in zip(first["scores"], second["scores"], strict=True):
        assert same == pytest.approx(scores, abs=1e-4)
    for name, weight in made(one).items():
        torch.testing.assert_close(made(two)[name], weight, atol=5e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["pairwise", "token"])
def test_two_processes_take_the_steps_of_one(tiny: Any, tmp_path: Path, loss: str) -> None:
    """In passes of one prompt, where one process has a pass more than the other, and of all its prompts.

    Thirteen prompts in steps of six: the last step of an epoch has one, and one process none.
    """
    folders = []
    for count, micro_batch in ((1, "6"), (2, "6"), (2, "1")):
        out = tmp_path / f"{count}-{micro_batch}"
        done = launch(count, Path(__file__), tiny.base, out, loss, micro_batch)
        assert done.returncode == 0, done.stderr[-3000:]
        folders.append(out)
    for out in folders[1:]:
        is_close(folders[0], out)
        assert said(out, 0)["scores"] == said(out, 1)["scores"]  # both processes have all of them


@pytest.mark.slow
def test_a_killed_run_of_two_processes_goes_on_to_the_bit(tiny: Any, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    given = ("pairwise", "2")
    assert launch(2, Path(__file__), tiny.base, straight, *given).returncode == 0
    assert launch(2, Path(__file__), tiny.base, broken, *given, "kill").returncode != 0
    assert [path.name for path in broken.glob("checkpoints/checkpoint-*")] == ["checkpoint-2"]
    done = launch(2, Path(__file__), tiny.base, broken, *given)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, weight in made(straight).items():
        assert weight.equal(made(broken)[name]), name
    assert said(broken)["scores"] == said(straight)["scores"]


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_the_command_runs_in_two_processes(tiny: Any, tmp_path: Path, tune: str) -> None:
    from finlm import jsonl

    jsonl.write(tmp_path / "preferences.jsonl", rankings())
    weights = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}[tune]
    found = []
    for count in (1, 2):
        given = {
            "model": tiny.base, "preferences": tmp_path / "preferences.jsonl", "test_share": 0.4, "epochs": 2,
            "batch_size": 4, "micro_batch": 2, "max_length": 200, "save_steps": 2, "learning_rate": 1e-3,
            "dtype": "float32", "threads": 1, "runs": tmp_path / str(count), "trainer": '{"report_to": []}',
            "tune": tune,
        }  # fmt: skip
        done = launch(count, ROOT / "reward" / "train.py", *(f"--{name}={value}" for name, value in given.items()))
        assert done.returncode == 0, done.stderr[-3000:]
        out = tmp_path / str(count) / "reward"
        assert (out / "report.html").is_file()
        assert sorted(path.name for path in (out / "epochs").iterdir()) == ["epoch-01", "epoch-02"]
        counts = json.loads((out / "run.json").read_text(encoding="utf-8"))["counts"]
        found.append((counts, load_file(out / "model" / weights)))
    (one, adapter), (two, other) = found
    assert two.pop("accuracy_by_fault") == one.pop("accuracy_by_fault")
    assert two == pytest.approx(one, rel=1e-3)
    for name, weight in adapter.items():
        assert float((other[name] - weight).abs().max()) < 5e-5, name


if __name__ == "__main__":
    child(*sys.argv[1:])
