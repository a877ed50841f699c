"""The reward model's trainer: TRL's loss on the same pairs, and steps that do not depend on how they are passed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification, TrainingArguments
from trl import RewardConfig, RewardTrainer

from finlm import scorer, tuning
from finlm.model import load_causal
from finlm.records import Message, PreferencePair, Prompt, Provenance
from reward import export, learning, readings
from reward.groups import Comparison, Group, encoded, weighed
from reward.trainer import ComparisonTrainer, Objective

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
Maker = Callable[..., ComparisonTrainer]


def pairs() -> list[PreferencePair]:
    """Twelve prompts: the answer that names the number is better; every third has a ranking of three."""
    found = []
    for number in range(12):
        prompt = Prompt(messages=(Message(role="user", content=f"What of {number}?"),))
        answers = [f"It is {number}.", f"It may be {number + 1}.", "No."][: 3 if number % 3 == 0 else 2]
        for better in range(len(answers)):
            for worse in range(better + 1, len(answers)):
                found.append(
                    PreferencePair(
                        prompt=prompt, chosen=answers[better], rejected=answers[worse], strength=worse - better,
                        source="set", provenance=Provenance(maker="import:set"),
                    )
                )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def groups(tiny: Any) -> list[Group]:
    return encoded(pairs(), AutoTokenizer.from_pretrained(tiny.base), max_length=64)[0]


@pytest.fixture
def make(tiny: Any, groups: list[Group], tmp_path: Path) -> Maker:
    """Makes trainers that begin with equal weights."""

    def trainer(
        name: str = "run", objective: Objective | None = None, steps: int = 4, **named: Any
    ) -> ComparisonTrainer:
        torch.manual_seed(3)
        causal = load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu"))
        lora = LoraConfig(
            r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", modules_to_save=[readings.HEAD],
            exclude_modules=[readings.HEAD],
        )  # fmt: skip
        settings = {"batch_size": 6, "micro_batch": 6, "micro_batch_tokens": 0, **named}
        return ComparisonTrainer(
            groups=groups,
            objective=objective or Objective(),
            model=get_peft_model(readings.install(causal), lora),
            args=TrainingArguments(
                output_dir=str(tmp_path / name), max_steps=steps, learning_rate=3e-3, per_device_train_batch_size=1,
                save_strategy="steps", save_steps=2, report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=1,
                seed=5,
            ),
            **settings,
        )  # fmt: skip

    return trainer


def weights(trainer: ComparisonTrainer) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in trainer.model.named_parameters() if one.requires_grad}


def test_the_head_learns_and_the_base_does_not(make: Maker) -> None:
    names = weights(make())
    assert sum("score" in name for name in names) == 1
    assert all("lora_" in name or "score" in name for name in names)


def test_the_loss_is_trls_on_padded_pairs(make: Maker, groups: list[Group], tiny: Any, tmp_path: Path) -> None:
    trainer = make(objective=Objective(centring=0.01))
    two = [group for group in groups if len(group.answers) == 2]
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    base = load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu"))
    base.config.num_labels = 1
    base.config.pad_token_id = tokenizer.pad_token_id
    classifier = LlamaForSequenceClassification(base.config)
    classifier.model = base.model
    with torch.no_grad():
        classifier.score.weight.copy_(next(one for name, one in weights(trainer).items() if "score" in name))
    rows = {
        "chosen_ids": [[*group.prompt, *group.answers[0]] for group in two],
        "rejected_ids": [[*group.prompt, *group.answers[1]] for group in two],
    }
    theirs = RewardTrainer(
        model=classifier,
        args=RewardConfig(
            output_dir=str(tmp_path / "trl"), max_length=None, use_cpu=True, bf16=False, report_to=[],
            center_rewards_coefficient=0.01,
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict(rows),
    )  # fmt: skip
    collated = theirs.data_collator([theirs.train_dataset[number] for number in range(len(two))])
    wanted = theirs.compute_loss(classifier.eval(), collated)
    found = trainer.compute_loss(trainer.model.eval(), trainer.objective.lay_out(two))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(centring=0.01, margins=(0.0, 1.0, 2.0, 3.0)), Objective(loss="token"),
        Objective(loss="token", end="pads"), Objective(likelihood=0.3),
    ],
)  # fmt: skip
def test_steps_do_not_depend_on_their_passes(make: Maker, objective: Objective) -> None:
    found = []
    for how in ({}, {"micro_batch": 1}, {"micro_batch_tokens": 60}):
        trainer = make(f"{len(found)}", objective, **how)
        trainer.train()
        found.append(weights(trainer))
    for other in found[1:]:
        for name, weight in found[0].items():
            # Adam divides by small numbers: a sixtieth of a step is what rounding comes to
            torch.testing.assert_close(other[name], weight, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize(("tied", "likelihood"), [(False, 0.0), (True, 0.0), (False, 0.3), (True, 0.3)])
def test_all_weights_learn_as_a_plain_loop_would(
    tiny: Any, groups: list[Group], tmp_path: Path, tied: bool, likelihood: float
) -> None:
    """One step of plain descent on TRL's loss, on each prompt's pairs by themselves and the whole model's gradients."""
    settings = SimpleNamespace(tune="full", optimizer="adamw", dtype="float32", lora={})

    def model() -> LlamaForCausalLM:
        causal = load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu"))
        if tied:
            causal.config.tie_word_embeddings = True
            causal.lm_head.weight = causal.model.embed_tokens.weight
        return causal

    torch.manual_seed(3)
    trained = learning.learning(settings, model())
    head = learning.head_of(trained).clone()
    trainer = ComparisonTrainer(
        groups=groups, objective=Objective(likelihood=likelihood), batch_size=len(groups), micro_batch=5,
        micro_batch_tokens=0, model=trained,
        args=TrainingArguments(
            output_dir=str(tmp_path), max_steps=1, learning_rate=0.1, optim="sgd", lr_scheduler_type="constant",
            max_grad_norm=0.0, per_device_train_batch_size=1, save_strategy="no", report_to=[], use_cpu=True,
            disable_tqdm=True,
        ),
    )  # fmt: skip
    trainer.go_on()

    plain, weight = model().requires_grad_(True), head.requires_grad_(True)
    plain.lm_head.requires_grad_(tied)  # an output embedding of its own stays as it was
    total = torch.zeros(())
    for group in groups:
        read = [
            plain.model(input_ids=torch.tensor([[*group.prompt, *answer]])).last_hidden_state[0, -1] @ weight
            for answer in group.answers
        ]
        leads = torch.stack([read[one.better] - read[one.worse] for one in group.comparisons])
        total = total - torch.nn.functional.logsigmoid(leads).mean()
        if likelihood:
            nll = [-answer_logp(plain, group, one.better).mean() for one in group.comparisons]
            total = total + likelihood * torch.stack(nll).mean()
    (total / len(groups)).backward()
    torch.testing.assert_close(learning.head_of(trained), (weight - 0.1 * weight.grad).detach(), atol=1e-5, rtol=1e-4)
    moved = dict(trained.named_parameters())
    for name, one in plain.named_parameters():
        wanted = one.detach() if one.grad is None else one.detach() - 0.1 * one.grad
        torch.testing.assert_close(moved[name].detach(), wanted, atol=1e-5, rtol=1e-4, msg=name)
    assert moved["lm_head.weight" if not tied else "score.weight"].requires_grad is tied


def answer_logp(plain: LlamaForCausalLM, group: Group, answer: int) -> Tensor:
    """Log-probability of each token of an answer, from the logits before it."""
    row = torch.tensor([*group.prompt, *group.answers[answer]])
    logp = plain(input_ids=row[None]).logits[0].log_softmax(dim=-1)
    return logp[torch.arange(len(row) - 1), row[1:]][len(group.prompt) - 1 :]


def test_rounded_weights_are_those_that_are_exported(tiny: Any, groups: list[Group], tmp_path: Path) -> None:
    """In bfloat16 products the weights stay float32 until the end; what is exported is what was scored with."""
    settings = SimpleNamespace(tune="full", optimizer="adamw", dtype="bfloat16", lora={})
    cpu = torch.device("cpu")
    assert (tuning.kept_in(settings, cpu), tuning.autocast(settings, cpu)) == (torch.float32, torch.bfloat16)
    trained = learning.learning(settings, load_causal(tiny.base, dtype=torch.float32, device=cpu))
    trainer = ComparisonTrainer(
        groups=groups, objective=Objective(loss="token"), batch_size=6, micro_batch=6, micro_batch_tokens=0,
        autocast=torch.bfloat16, model=trained,
        args=TrainingArguments(
            output_dir=str(tmp_path), max_steps=2, learning_rate=1e-3, per_device_train_batch_size=1,
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        ),
    )  # fmt: skip
    trainer.go_on()
    assert {one.dtype for one in trained.parameters()} == {torch.float32}
    trainer.settle()
    assert {name for name, one in trained.named_parameters() if one.dtype == torch.float32} == {"score.weight"}
    export.save_whole(trained, tmp_path / "model")
    loaded = load_causal(tmp_path / "model", dtype=torch.bfloat16, device=cpu)
    here = dict(trained.named_parameters())
    assert all(torch.equal(one, here[name]) for name, one in loaded.named_parameters())
    rows = [[*group.prompt, *answer] for group in groups for answer in group.answers]
    head = scorer.fold(learning.head_of(trained), mean=0.0, std=1.0)
    scored, again = (scorer.score_rows(one, head, rows, pad=0, batch_size=1) for one in (trained, loaded))
    torch.testing.assert_close(scored, again, atol=0.02, rtol=0)  # a last bit of bfloat16 in 48 states


def test_a_resumed_run_ends_bit_equal(make: Maker, tmp_path: Path) -> None:
    straight = make()
    straight.go_on()
    wanted = weights(straight)
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    resumed = make()
    resumed.go_on()
    assert resumed.state.global_step == 4
    assert [one["step"] for one in resumed.state.log_history if "loss" in one] == [1, 2, 3, 4]
    for name, weight in weights(resumed).items():
        assert torch.equal(weight, wanted[name])


def test_every_epoch_goes_through_all_groups_in_a_new_order(make: Maker, groups: list[Group]) -> None:
    trainer = make(batch_size=5, steps=6)
    assert trainer.steps_per_epoch == 3
    orders = []
    for epoch in range(2):
        steps = [trainer.step_of(3 * epoch + place) for place in range(3)]
        assert [int(step["prompts"]) for step in steps] == [5, 5, 2]
        sums = [sum(float(one["compared"]["weight_B"].sum()) for one in step["micro_batches"]) for step in steps]
        assert sums == pytest.approx([5, 5, 2])
        orders.append([one["passed"]["input_ids"].tolist() for step in steps for one in step["micro_batches"]])
    assert orders[0] != orders[1]


def test_a_steps_mean_is_over_the_weights_of_its_prompts(make: Maker, groups: list[Group]) -> None:
    """Twice every weight is the same step; a prompt of weight 2 is that prompt twice."""
    first, second = groups[:2]
    trainer = make()
    trainer.model.eval()

    @torch.no_grad()
    def loss(*its: Group) -> float:
        trainer.groups, trainer.batch_size = list(its), len(its)
        step = trainer.step_of(0)
        batches = step["micro_batches"]
        return sum(
            float(trainer.compute_loss(trainer.model, one, num_items_in_batch=step["prompts"])) for one in batches
        )

    once = loss(first, second)
    assert loss(*weighed([first, second])) != pytest.approx(once)
    assert loss(*(replace(group, weight=2.0) for group in (first, second))) == pytest.approx(once)
    assert loss(replace(first, weight=2.0), second) == pytest.approx(loss(first, first, second))


def test_it_learns_which_answer_is_better(make: Maker, groups: list[Group]) -> None:
    trainer = make(steps=30, micro_batch_tokens=400)

    def leads() -> Tensor:
        scores = trainer.scores(groups)
        judged = [(its, one) for group, its in zip(groups, scores, strict=True) for one in group.comparisons]
        return torch.tensor([its[one.better] - its[one.worse] for its, one in judged])

    before = leads()
    trainer.train()
    assert float((leads() > 0).float().mean()) > 0.95
    assert float(leads().mean()) > float(before.mean()) + 1


def test_scores_come_in_the_order_of_the_groups(make: Maker, groups: list[Group]) -> None:
    trainer = make(micro_batch=3)
    together = trainer.scores(groups)
    alone = [trainer.scores([group])[0] for group in groups]
    assert [len(its) for its in together] == [len(group.answers) for group in groups]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_score_is_read_at_the_true_last_token_however_a_row_is_padded(
    make: Maker, groups: list[Group], tiny: Any, side: str
) -> None:
    """Of transformers' own classifier, which looks for the last token that is no pad, on rows of all lengths."""
    trainer = make()
    tokenizer = AutoTokenizer.from_pretrained(tiny.base, padding_side=side)
    base = load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu"))
    base.config.num_labels, base.config.pad_token_id = 1, tokenizer.pad_token_id
    classifier = LlamaForSequenceClassification(base.config).eval()
    classifier.model = base.model
    with torch.no_grad():
        classifier.score.weight.copy_(learning.head_of(trainer.model).unsqueeze(0))
    rows = [[*group.prompt, *answer] for group in groups for answer in group.answers]
    assert len({len(row) for row in rows}) > 2
    padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    assert bool((padded["attention_mask"][:, 0 if side == "left" else -1] == 0).any())
    with torch.no_grad():
        wanted = classifier(**padded).logits.squeeze(1)
    found = torch.tensor([score for its in trainer.scores(groups) for score in its])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    head = scorer.fold(learning.head_of(trainer.model), mean=0.0, std=1.0)
    exported = scorer.score_rows(trainer.model, head, rows, pad=tokenizer.pad_token_id, batch_size=len(rows))
    torch.testing.assert_close(exported, wanted, atol=1e-5, rtol=1e-5)


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match="loss is 'rank'; it must be one of pairwise, token"):
        Objective(loss="rank")


def test_a_comparison_knows_its_pair(groups: list[Group]) -> None:
    assert isinstance(groups[0].comparisons[0], Comparison)
    assert [len(group.comparisons) for group in groups] == [3, 1, 1] * 4
