"""One whole PPO update by TRL 1.12: writes trl_update.json, which tests/alignment reads.

    pip install --no-deps --target TRL trl==1.12.0
    python tests/oracles/trl_update.py --trl TRL

TRL's own `PPOTrainer.train` runs, with LoRA on policy, value model and reward model, on the base, the adapters, the
prompts and the answers of `world` below, which the test uses too. Everything runs in float64, so that these numbers
have no rounding to speak of. What is changed of TRL, and nothing else:

- Sampling gives the answers of `world`. Their log-probabilities are those of one forward pass, as TRL's other passes.
- The score lies on the last token: one line of `train` says `+ 1`, for the padding after it.
- `masked_var` divides by n, not by n - 1.
- Value and reward model have a head with a bias.
"""

import argparse
import inspect
import json
import os
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
sys.path.insert(0, str(Path(__file__).parent.parent))

import small
import torch
from datasets import Dataset
from peft import inject_adapter_in_model
from torch import Tensor, nn
from transformers import LlamaForSequenceClassification

OUT = Path(__file__).with_suffix(".json")
VOCABULARY = 24
RESPONSE_LENGTH = 6
MODULES = ["q_proj", "v_proj", "down_proj"]
SCALES = {"policy": 0.15, "reward": 0.15}
"""Standard deviation of the adapters' first weights; the critic begins as the reward model."""
SHARED = {
    "total_episodes": 8,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_mini_batches": 1,
    "num_ppo_epochs": 4,
    "local_rollout_forward_batch_size": 8,
    "response_length": RESPONSE_LENGTH,
    "missing_eos_penalty": 1.0,
    "learning_rate": 0.01,
    "adam_epsilon": 1e-5,
    "cliprange": 0.1,
    "cliprange_value": 0.1,
    "vf_coef": 0.5,
}
"""Settings that both trainers have under the same name."""
CASES = {
    "plain": {"temperature": 1.0, "kl_estimator": "k1", "kl_coef": 0.05, "gamma": 1.0, "lam": 0.95},
    "other": {
        "temperature": 0.7, "kl_estimator": "k3", "kl_coef": 0.2, "gamma": 0.97, "lam": 0.8, "whiten_rewards": True,
    },
}  # fmt: skip
PROMPTS = [[5, 9, 13], [20] * 5, [7, 8, 9, 10, 11, 12], [2, 3], [4] * 4, [15, 3], [16, 17, 18, 19], [21] * 7]
ANSWERS = [
    [10, 11, 1], [12, 1], [13, 14, 15, 16, 17, 18], [1], [19, 20, 21, 1], [22, 23, 2, 3, 1], [4, 1],
    [5, 6, 7, 8, 9, 10],
]  # fmt: skip
"""They end with the end token (1) or were cut off at six tokens."""


def base(kind: type[nn.Module] | None = None) -> Any:
    """The base, or a model of another kind on the same body."""
    made = small.base(vocabulary=VOCABULARY)
    if kind is None:
        return made
    other = kind(small.config(vocabulary=VOCABULARY))
    other.model.load_state_dict(made.model.state_dict())
    return other.eval()


def reader() -> Any:
    """A model with an adapter and a head, as critic and reward model begin."""
    model = base(LlamaForSequenceClassification)
    model = inject_adapter_in_model(small.lora(modules=MODULES), model)
    adapter = [(name, parameter) for name, parameter in model.named_parameters() if "lora_" in name]
    small.fill_adapter(adapter, "reward", SCALES["reward"])
    weight_D, bias = small.head(model.config.hidden_size)
    model.score = nn.Linear(model.config.hidden_size, 1)
    with torch.no_grad():
        model.score.weight.copy_(weight_D)
        model.score.bias.fill_(bias)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or "score" in name)
    return model.double()


def trained(model: nn.Module) -> dict[str, list[Any]]:
    """What an adapter (and head) weighs now, by names without the adapter's."""
    found = {}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            found[small.adapter_name(name)] = parameter.tolist()
        elif "score" in name:
            found[f"head.{name.rsplit('.', 1)[1]}"] = parameter.tolist()
    return found


def update(ppo: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Run one update and return what it saw and made."""
    kept: dict[str, Any] = {}
    answer_of = {tuple(prompt): answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)}
    temperature = settings["temperature"]

    def known_answers(model: Any, queries: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        rows = [answer_of[tuple(token for token in row if token != small.PAD)] for row in queries.tolist()]
        answers = torch.tensor([row + [small.PAD] * (RESPONSE_LENGTH - len(row)) for row in rows])
        both = torch.cat([queries, answers], dim=1)
        logits = ppo.forward(model, both, small.PAD).logits[:, queries.shape[1] - 1 : -1]
        return both, logits / (temperature + 1e-7)

    ppo.batch_generation = known_answers

    class Listening(ppo.PPOTrainer):
        def log(self, metrics: dict[str, float], *_: Any) -> None:
            scope = sys._getframe(1).f_locals
            names = ("logprobs", "ref_logprobs", "values", "scores", "rewards", "advantages", "returns")
            kept.update({name: scope[name] for name in names}, queries=scope["queries"], metrics=metrics)

    tokens = small.tokenizer(VOCABULARY)
    policy = base().double()
    reward, value = reader().requires_grad_(False), reader()
    with tempfile.TemporaryDirectory() as folder:
        args = ppo.PPOConfig(
            output_dir=folder,
            report_to="none",
            bf16=False,
            gradient_checkpointing=False,
            optim="adamw_torch",
            lr_scheduler_type="constant",
            weight_decay=0.0,
            stop_token="eos",
            num_sample_generations=0,
            save_strategy="no",
            disable_tqdm=True,
            **(SHARED | settings),
        )
        trainer = Listening(
            args=args,
            processing_class=tokens,
            model=policy,
            ref_model=None,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": PROMPTS}),
            eval_dataset=Dataset.from_dict({"input_ids": PROMPTS}),
            peft_config=small.lora(modules=MODULES),
        )
        adapter = [(name, parameter) for name, parameter in trainer.policy_model.named_parameters() if "lora_" in name]
        small.fill_adapter(adapter, "policy", SCALES["policy"])
        trainer.policy_model.double()  # PEFT makes adapters in float32
        trainer.train()
    order = [PROMPTS.index([token for token in row if token != small.PAD]) for row in kept.pop("queries").tolist()]
    back = torch.tensor(order).argsort()
    metrics = kept.pop("metrics")
    names = ("objective/", "policy/", "loss/", "val/")
    return {
        **{name: number[back].tolist() for name, number in kept.items()},
        "metrics": {name: number for name, number in metrics.items() if name.startswith(names)},
        "policy": trained(trainer.policy_model),
        "critic": trained(value),
    }


def match(ppo: Any) -> None:
    """The two changes of TRL's arithmetic."""
    source = textwrap.dedent(inspect.getsource(ppo.PPOTrainer.train))
    line = "sequence_lengths_p1 = sequence_lengths + 1"
    assert source.count(line) == 1
    exec(source.replace(line, "sequence_lengths_p1 = sequence_lengths"), vars(ppo), made := {})
    ppo.PPOTrainer.train = made["train"]
    original = ppo.masked_var
    ppo.masked_var = lambda values, mask: original(values, mask, unbiased=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trl", type=Path, required=True)
    sys.path.insert(0, str(parser.parse_args().trl))
    import transformers
    import trl
    from trl.experimental.ppo import ppo_trainer as ppo

    match(ppo)
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    cases = {name: update(ppo, settings) for name, settings in CASES.items()}
    lines = [f'"versions": {json.dumps(versions)}']
    for name, found in cases.items():
        rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
        lines.append(f"{json.dumps(name)}: {{\n{rows}\n}}")
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
