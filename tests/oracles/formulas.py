"""What other projects' formulas give on drawn inputs, in float64: writes formulas.json, which tests/alignment reads.

    pip install --no-deps --target TRL trl==1.12.0
    pip install --no-deps --target OPENRLHF openrlhf==0.11.2
    git clone https://github.com/deepspeedai/DeepSpeedExamples      # its applications/DeepSpeed-Chat is CHAT
    python tests/oracles/formulas.py --trl TRL --openrlhf OPENRLHF --deepspeed-chat CHAT

Nothing of theirs is copied: their files are imported, or the statements in question are cut out of the installed source
and executed. (B, A) as in docs/notation.md. Where conventions differ, the inputs say theirs so that both mean the same:

- TRL 1.12 puts the score on the padding after the end token. It is told that this position is the last token's.
- TRL divides the variance by n - 1, ours by n: `whiten` is kept as TRL gives it, with n, and the test corrects.
- DeepSpeed-Chat's score lies one token after its mask, which is right where end and padding share an id: the mask it
  is given for rewards leaves the last token out. In its losses the mask is ours.
- OpenRLHF computes KL in float32 and holds it within +-10.
"""

import argparse
import ast
import importlib
import inspect
import json
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from small import drawn

LENGTHS, WIDTH = [1, 4, 7, 9, 3], 9
SETTINGS = {"kl_coef": 0.07, "gamma": 0.98, "lam": 0.9, "cliprange": 0.2, "cliprange_value": 0.25}
OUT = Path(__file__).with_suffix(".json")


def inputs() -> dict[str, Tensor]:
    """Drawn so that both losses clip on both sides; off the answers everything is zero."""
    is_answer = torch.arange(WIDTH) < torch.tensor(LENGTHS).unsqueeze(1)
    scales = {"logp": 0.3, "old": 0.3, "ref": 0.3, "value": 0.5, "old_value": 0.5, "reward": 0.4}
    numbers = {name: drawn(f"formulas {name}", is_answer.shape, scale).double() for name, scale in scales.items()}
    for name in ("logp", "old", "ref"):
        numbers[name] = numbers[name] - 2
    numbers |= {name: drawn(f"formulas {name}", is_answer.shape, 1.0).double() for name in ("advantage", "target")}
    numbers = {name: number * is_answer for name, number in numbers.items()}
    return numbers | {"score": drawn("formulas score", (len(LENGTHS),), 1.0).double(), "is_answer": is_answer}


def with_gradient(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return inputs | {name: inputs[name].clone().requires_grad_() for name in ("logp", "value")}


# ---------------------------------------------------------------------------------------------- TRL 1.12


def between(source: str, first: str, last: str) -> str:
    """The lines from the one that begins with `first` to the one that begins with `last`, that one included."""
    lines = source.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(first))
    end = next(number for number in range(start, len(lines)) if lines[number].strip().startswith(last))
    return textwrap.dedent("\n".join(lines[start : end + 1]))


def trl(folder: Path) -> dict[str, Any]:
    sys.path.insert(0, str(folder))
    module = importlib.import_module("trl.experimental.ppo.ppo_trainer")
    source = inspect.getsource(module.PPOTrainer.train)
    given = inputs()
    is_answer, lengths = given["is_answer"], torch.tensor(LENGTHS)
    out: dict[str, Any] = {}

    for estimator in ("k1", "k3"):
        scope = {
            **vars(module),
            "args": types.SimpleNamespace(**SETTINGS, kl_estimator=estimator),
            "logprobs": given["old"],
            "ref_logprobs": given["ref"],
            "scores": given["score"],
            "sequence_lengths": lengths - 1,
            "sequence_lengths_p1": lengths - 1,  # the reward's place, made the last token's
        }
        exec(between(source, "logr = ", "rewards[actual_start, actual_end] +="), scope)
        out[f"kl_{estimator}"], out[f"rewards_{estimator}"] = scope["kl"], scope["rewards"]

    scope = {
        **vars(module),
        "args": types.SimpleNamespace(**SETTINGS),
        "responses": is_answer,
        "rewards": given["reward"],
        "values": given["old_value"],
    }
    exec(between(source, "lastgaelam = 0", "returns = "), scope)
    out["advantages"], out["returns"] = scope["advantages"], scope["returns"]

    for name, is_shifted in (("whiten", True), ("whiten_unshifted", False)):
        out[name] = module.masked_whiten(given["reward"], is_answer, shift_mean=is_shifted) * is_answer

    tensors = with_gradient(given)
    scope = {
        **vars(module),
        "args": types.SimpleNamespace(**SETTINGS),
        "micro_batch_inds": torch.arange(len(LENGTHS)),
        "padding_mask": ~is_answer,
        "padding_mask_p1": ~is_answer,
        "vpred": tensors["value"],
        "mb_values": tensors["old_value"],
        "mb_return": tensors["target"],
        "new_logprobs": tensors["logp"],
        "mb_logprobs": tensors["old"],
        "mb_advantage": tensors["advantage"],
    }
    exec(between(source, "vpredclipped = ", "pg_loss = "), scope)
    (scope["pg_loss"] + scope["vf_loss"]).backward()
    out |= {"policy_loss": scope["pg_loss"], "policy_gradient": tensors["logp"].grad}
    out |= {"value_loss": scope["vf_loss"], "value_gradient": tensors["value"].grad}
    out["value_clipped_share"] = scope["vf_clipfrac"]
    return out


# ---------------------------------------------------------------------------------------------- OpenRLHF


def openrlhf(folder: Path) -> dict[str, Any]:
    """Its two files of formulas without the packages around them, which want ray, deepspeed and a GPU."""
    sys.modules["deepspeed"] = types.ModuleType("deepspeed")
    for name in ("openrlhf", "openrlhf.models"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder.joinpath(*name.split(".")))]
    loss, utils = (importlib.import_module(f"openrlhf.models.{name}") for name in ("loss", "utils"))
    given = inputs()
    is_answer = given["is_answer"]
    out: dict[str, Any] = {}
    for estimator in ("k1", "k2", "k3"):
        kl = utils.compute_approx_kl(given["old"], given["ref"], kl_estimator=estimator)
        out[f"kl_{estimator}"] = kl
        out[f"rewards_{estimator}"] = utils.compute_reward(given["score"], SETTINGS["kl_coef"], kl, is_answer)

    tree = ast.parse((folder / "openrlhf/trainer/ppo_utils/experience_maker.py").read_text(encoding="utf-8"))
    (gae,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "get_advantages_and_returns"
    )
    scope: dict[str, Any] = {"torch": torch, "Tuple": tuple}
    exec(ast.unparse(gae), scope)
    out["advantages"], out["returns"] = scope["get_advantages_and_returns"](
        None, given["old_value"], given["reward"], is_answer, SETTINGS["gamma"], SETTINGS["lam"]
    )

    tensors = with_gradient(given)
    epsilon = SETTINGS["cliprange"]
    policy = loss.PolicyLoss(clip_eps_low=epsilon, clip_eps_high=epsilon)
    out["policy_loss"], out["policy_clipped_share"], *_ = policy(
        tensors["logp"], tensors["old"], tensors["advantage"], is_answer
    )
    out["value_loss"] = loss.ValueLoss(clip_eps=SETTINGS["cliprange_value"])(
        tensors["value"], tensors["old_value"], tensors["target"], is_answer
    )
    (out["policy_loss"] + out["value_loss"]).backward()
    out |= {"policy_gradient": tensors["logp"].grad, "value_gradient": tensors["value"].grad}
    for name, high, dual in (("asymmetric", 0.28, None), ("dual", epsilon, 1.5)):
        tensors = with_gradient(given)
        policy = loss.PolicyLoss(clip_eps_low=epsilon, clip_eps_high=high, dual_clip=dual)
        found, *_ = policy(tensors["logp"], tensors["old"], tensors["advantage"], is_answer)
        found.backward()
        out |= {f"policy_loss_{name}": found, f"policy_gradient_{name}": tensors["logp"].grad}
    return out


# ---------------------------------------------------------------------------------------------- DeepSpeed-Chat


def deepspeed_chat(folder: Path) -> dict[str, Any]:
    """Its trainer's file with the packages it imports left empty: the four formulas use torch alone."""
    for name in (
        "deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", "deepspeed.runtime.zero.partition_parameters",
        "deepspeed.accelerator", "dschat", "dschat.utils", "dschat.utils.utils",
    ):  # fmt: skip
        sys.modules[name] = types.ModuleType(name)
    sys.modules["deepspeed.runtime.zero.partition_parameters"].ZeroParamStatus = None
    sys.modules["deepspeed.accelerator"].get_accelerator = None
    sys.modules["dschat.utils.utils"].print_rank_0 = None
    spec = importlib.util.spec_from_file_location("dschat_ppo", folder / "dschat/rlhf/ppo_trainer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    trainer = module.DeepSpeedPPOTrainer
    own = types.SimpleNamespace(
        kl_ctl=SETTINGS["kl_coef"],
        clip_reward_value=5.0,
        gamma=SETTINGS["gamma"],
        lam=SETTINGS["lam"],
        cliprange=SETTINGS["cliprange"],
        cliprange_value=SETTINGS["cliprange_value"],
        compute_fp32_loss=False,
    )
    given = inputs()
    is_answer = given["is_answer"]
    one = torch.zeros(len(LENGTHS), 1)  # prompts of one token: answers begin at the first position
    before_end = torch.arange(WIDTH) < torch.tensor(LENGTHS).unsqueeze(1) - 1
    rewards = trainer.compute_rewards(own, one, given["old"], given["ref"], given["score"], before_end)
    out: dict[str, Any] = {"rewards_k1": rewards * is_answer}
    out["advantages"], out["returns"] = trainer.get_advantages_and_returns(own, given["old_value"], given["reward"], 0)
    tensors = with_gradient(given)
    out["policy_loss"] = trainer.actor_loss_fn(own, tensors["logp"], tensors["old"], tensors["advantage"], is_answer)
    out["value_loss"] = trainer.critic_loss_fn(
        own, tensors["value"], tensors["old_value"], tensors["target"], is_answer
    )
    (out["policy_loss"] + out["value_loss"]).backward()
    return out | {"policy_gradient": tensors["logp"].grad, "value_gradient": tensors["value"].grad}


def plain(value: Any) -> Any:
    return value.detach().tolist() if isinstance(value, Tensor) else value


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--trl", "--openrlhf", "--deepspeed-chat"):
        parser.add_argument(name, type=Path, required=True)
    asked = parser.parse_args()
    found = {
        "versions": {
            "trl": "1.12.0",
            "openrlhf": "0.11.2",
            "deepspeed-chat": "DeepSpeedExamples 5ff0211ade8573943382852e7add01eef557c489",
            "torch": torch.__version__,
        },
        "settings": SETTINGS,
        "inputs": inputs(),
        "trl": trl(asked.trl),
        "openrlhf": openrlhf(asked.openrlhf),
        "deepspeed_chat": deepspeed_chat(asked.deepspeed_chat),
    }
    lines = []
    for name, part in found.items():
        rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(plain(value))}" for key, value in part.items())
        lines.append(f"{json.dumps(name)}: {{\n{rows}\n}}")
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
