"""The reward model on a GPU: fused parts and packed answers read and learn what plain layers do, and nothing waits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from finlm import activations, fused_layers, fused_lora, unpadded
from finlm.records import Message, PreferencePair, Prompt, Provenance
from reward import readings
from reward.groups import Comparison, Group
from reward.losses import first_difference
from reward.trainer import ComparisonTrainer, Objective

pytestmark = pytest.mark.gpu
VOCABULARY = 3001
OBJECTIVES = [Objective(centring=0.01), Objective(loss="token", margins=(0.0, 0.3, 0.6, 1.0))]


def make(*, is_fused: bool, is_exact: bool = False) -> Any:
    """A random LLaMA with the heads of the 6B (128 wide), an adapter that is not zero, and a head.

    In bfloat16; what is exact computes on from there in float64.
    """
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, head_dim=128, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).to("cuda", torch.bfloat16).requires_grad_(False)
    if is_fused:
        fused_layers.install(unpadded.install(base))
    lora = LoraConfig(
        r=8, target_modules="all-linear", task_type="CAUSAL_LM", modules_to_save=[readings.HEAD],
        exclude_modules=[readings.HEAD],
    )  # fmt: skip
    torch.manual_seed(1)
    model = get_peft_model(readings.install(base), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    if is_fused:
        fused_lora.install(model)
    if is_exact:
        model.double().get_base_model().score.float()  # the head reads float32, whatever comes
    return model


def groups(count: int = 6) -> list[Group]:
    """Prompts with two or three answers; the better one has the rarer tokens."""
    generator = torch.Generator().manual_seed(3)

    def drawn(least: int, most: int, low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(least, most, (), generator=generator))
        return tuple(torch.randint(low, high, (length,), generator=generator).tolist())

    made = []
    for number in range(count):
        prompt = Prompt(messages=(Message(role="user", content=f"{number}"),))
        record = PreferencePair(
            prompt=prompt, chosen="a", rejected="b", strength=1 + number % 3, source="set",
            provenance=Provenance(maker="import:set"),
        )  # fmt: skip
        middle = VOCABULARY // 2
        answers = [(*drawn(9, 300, middle, VOCABULARY - 1), 1)]
        answers += [(*drawn(9, 300, 2, middle), 1) for _ in range(1 + number % 2)]
        comparisons = tuple(
            Comparison(record, 0, worse, first_difference(answers[0], answers[worse]), 1.0)
            for worse in range(1, len(answers))
        )
        made.append(Group(drawn(5, 120, 2, VOCABULARY - 1), tuple(answers), comparisons))
    return made


def trainer_of(model: Any, objective: Objective, folder: Path, steps: int = 8) -> ComparisonTrainer:
    return ComparisonTrainer(
        groups=groups(),
        objective=objective,
        batch_size=6,
        micro_batch=3,
        micro_batch_tokens=0,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder), max_steps=steps, learning_rate=1e-3, per_device_train_batch_size=1, report_to=[],
            save_strategy="no", disable_tqdm=True, logging_steps=1, seed=5, bf16=False, logging_nan_inf_filter=False,
            lr_scheduler_type="constant",
        ),
    )  # fmt: skip


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().double() - wanted.detach().double()).norm() / wanted.detach().double().norm())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.loss)
def test_readings_and_gradients_are_as_near_to_float64_as_plain_layers(objective: Objective) -> None:
    """Of two computations in bfloat16 ours may not be further from the exact one than transformers' and PEFT's is."""
    found = []
    for how in ({"is_fused": True}, {"is_fused": False}, {"is_fused": False, "is_exact": True}):
        model = make(**how)
        batch = on_gpu(objective.lay_out(groups()))
        reading_R = model(**batch["passed"])
        objective.of(reading_R, batch["compared"]).backward()
        gradients = [p.grad.flatten().double() for _, p in model.named_parameters() if p.grad is not None]
        found.append((reading_R, torch.cat(gradients)))
    (ours, our_gradient), (theirs, their_gradient), (wanted, gradient) = found
    assert off(ours, wanted) < 1.2 * off(theirs, wanted) < 0.04
    assert off(our_gradient, gradient) < 1.2 * off(their_gradient, gradient) < 0.08


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.loss)
def test_fused_training_is_plain_training(tmp_path: Path, objective: Objective) -> None:
    """In bfloat16 the losses of eight steps agree to 0.01, where they fall from about 1 to less than 0.1."""
    said = []
    for is_fused in (True, False):
        trainer = trainer_of(make(is_fused=is_fused), objective, tmp_path / str(is_fused))
        trainer.train()
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        said.append([float(loss) for loss in losses])
    ours, theirs = said
    assert len(ours) == 8
    assert ours[-1] < ours[0] - 0.1
    assert ours == pytest.approx(theirs, abs=0.01)


@torch.no_grad()
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.loss)
def test_a_poisoned_neighbour_changes_not_one_bit(objective: Objective) -> None:
    """The third sample of a pass becomes tokens without a number: no other's readings change."""
    model = make(is_fused=True).eval()
    batch = on_gpu(objective.lay_out(groups()))
    passed = batch["passed"]
    model.get_base_model().model.embed_tokens.weight[VOCABULARY - 1] = float("nan")
    before_R = model(**passed)
    start, stop = passed["bounds"][2:4].tolist()
    poisoned = passed["input_ids"].clone()
    poisoned[start:stop] = VOCABULARY - 1
    after_R = model(**passed | {"input_ids": poisoned})
    is_poisoned_R = (passed["read"] >= start) & (passed["read"] < stop)
    assert bool(after_R[is_poisoned_R].isnan().all())
    assert not bool(before_R.isnan().any())
    assert torch.equal(before_R[~is_poisoned_R], after_R[~is_poisoned_R])


@pytest.fixture
def no_waiting() -> Iterator[Any]:
    """Sets whether a wait for the GPU is an error, and takes it back."""
    yield lambda is_error: torch.cuda.set_sync_debug_mode("error" if is_error else "default")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.loss)
def test_a_pass_does_not_wait_for_the_gpu(tmp_path: Path, objective: Objective, no_waiting: Any) -> None:
    """Once its tensors are there, and what it needs is compiled."""
    trainer = trainer_of(make(is_fused=True), objective, tmp_path)
    step = trainer._prepare_inputs(trainer.step_of(0))
    for is_error in (False, True):
        no_waiting(is_error)
        for batch in step["micro_batches"]:
            trainer.compute_loss(trainer.model, batch, num_items_in_batch=step["prompts"]).backward()


def test_a_pass_keeps_what_was_reckoned() -> None:
    model = make(is_fused=True)
    objective = Objective(loss="token")
    batch = on_gpu(objective.lay_out(groups()))
    objective.of(model(**batch["passed"]), batch["compared"]).backward()  # compiles
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    loss = objective.of(model(**batch["passed"]), batch["compared"])
    kept = torch.cuda.memory_allocated() - before
    reckoned = len(batch["passed"]["input_ids"]) * activations.token_bytes(model.config, torch.bfloat16)
    assert loss.requires_grad
    # the last layer keeps less, for it goes on with the answers alone
    assert 0.7 * reckoned < kept < activations.SPARE * reckoned


def on_gpu(batch: Any) -> Any:
    return {
        part: {name: one.cuda() if isinstance(one, Tensor) else one for name, one in its.items()}
        for part, its in batch.items()
    }
