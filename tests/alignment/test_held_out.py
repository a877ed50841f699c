"""In-loop evaluation through a real trainer: what is measured is what the models say, and nothing is done twice."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase
from two_processes import search_path

from alignment.best import HeldOutConfig, best_update
from alignment.held_out import HeldOut
from alignment.ppo_trainer import PPOTrainer
from finlm import chat_format, jsonl, likelihood
from finlm.errors import UserError
from finlm.evaluation import AnswerRecord
from finlm.model import load_causal
from finlm.ppo_records import HeldOutRecord, read_held_out
from finlm.records import Message, Prompt
from finlm.scorer import Scorer, load_head
from finlm.tokenizer import load_tokenizer

CPU = torch.device("cpu")
Maker = Callable[..., PPOTrainer]


@pytest.fixture(scope="module")
def base(tiny: Any) -> LlamaForCausalLM:
    model = load_causal(Path(tiny.base), dtype=torch.float32, device=CPU)
    assert isinstance(model, LlamaForCausalLM)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny.base)


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Nine questions; two have no known answer."""
    from tiny import COMPANIES, figure

    return [
        Prompt(
            messages=(Message(role="user", content=f"What was {name} Inc.'s revenue in fiscal 2024?"),),
            reference="" if number < 2 else f"Revenue was {figure(name, 'Revenue', 2024)} in fiscal 2024.",
        )
        for number, name in enumerate(COMPANIES[:9])
    ]


@pytest.fixture
def make(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Maker:
    """Makes equal trainers whose policy is not the reference; `output_dir` tells runs apart."""

    def trainer(run: str = "run", **settings: Any) -> PPOTrainer:
        ids = [tokenizer(f" Human: {text} Assistant:")["input_ids"] for text in ("One.", "Two two two.", "Three?")]
        made: PPOTrainer = small.trainer(
            copy.deepcopy(base),
            tokenizer,
            ids,
            tmp_path / run,
            adapter=small.lora(4),
            adapter_scale=0.1,
            **{
                "total_episodes": 32,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "num_ppo_epochs": 1,
                "local_rollout_forward_batch_size": 8,
                "response_length": 20,
                "max_prompt_length": 64,
                "learning_rate": 1e-3,
                "missing_eos_penalty": 0.5,
                **settings,
            },
        )
        return made

    return trainer


def answers_of(trainer: PPOTrainer, update: int) -> list[AnswerRecord]:
    return list(jsonl.read(trainer.folder / "held_out" / f"update-{update:05d}.jsonl", AnswerRecord))


def test_an_evaluation_measures_what_the_models_say(
    make: Maker, base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt], tmp_path: Path
) -> None:
    trainer = make()
    record = HeldOut(trainer, prompts, HeldOutConfig(every=2)).after(0)
    assert record is not None
    answers = answers_of(trainer, 0)
    assert [answer.prompt_id for answer in answers] == [prompt.id for prompt in prompts]

    ids = [list(chat_format.encode(tokenizer, prompt.messages).ids) for prompt in prompts]
    told = [chat_format.encode_answer(tokenizer, answer.text, ended=answer.ended) for answer in answers]
    same = [row for row, answer in enumerate(answers) if len(told[row]) == answer.tokens]
    assert len(same) >= 5, "few answers are what their text encodes to; sample others"

    # the reward model and the policy apart from the trainer: each loaded on a base of its own
    reward = PeftModel(copy.deepcopy(base), small.lora(4))
    small.fill_adapter(((n, p) for n, p in reward.named_parameters() if "lora_" in n), "reward", 0.05)
    scorer = Scorer(reward.eval(), load_head(tmp_path / "run" / "reward", width=base.config.hidden_size), tokenizer)
    scores = scorer.score([(p.messages, a.text, a.ended) for p, a in zip(prompts, answers, strict=True)])
    policy = PeftModel(copy.deepcopy(base), small.lora(4))
    small.fill_adapter(((n, p) for n, p in policy.named_parameters() if "lora_" in n), "policy", 0.1)
    logp, ref = (likelihood.answer_log_probs(model, ids, told, pad=0, batch_size=1) for model in (policy.eval(), base))
    for row in same:
        assert answers[row].score == pytest.approx(scores[row], abs=1e-4)
        assert answers[row].kl_nats == pytest.approx(logp[row] - ref[row], abs=1e-4)

    costs = [0.0 if answer.ended else 0.5 for answer in answers]
    assert record.rewards == pytest.approx([a.score - cost for a, cost in zip(answers, costs, strict=True)])
    assert record.reward == pytest.approx(sum(record.rewards) / 9)
    assert record.tokens == pytest.approx(sum(answer.tokens for answer in answers) / 9)
    assert record.ended == sum(answer.ended for answer in answers) / 9
    assert record.kl_nats == pytest.approx(sum(answer.kl_nats or 0 for answer in answers) / 9)
    assert (record.anchor, record.anchors) == (None, ())
    assert record.rights == tuple(answer.is_right for answer in answers[2:])
    assert not any(answer.is_right for answer in answers[:2])


def test_a_right_answer_counts_if_it_ended(
    make: Maker, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    from finlm import generation

    def sample(model: Any, tokens: Any, ids: Sequence[Any], *_: Any, **__: Any) -> list[generation.Answer]:
        texts = [prompt.reference or "I do not know." for prompt in prompts]
        texts[2] = "Revenue was $1 in fiscal 2024."
        return [
            generation.Answer(tuple(chat_format.encode_answer(tokenizer, text, ended=row != 3)), ended=row != 3)
            for row, text in enumerate(texts)
        ]

    monkeypatch.setattr(generation, "sample", sample)
    trainer = make(response_length=64)
    record = HeldOut(trainer, prompts, HeldOutConfig(every=1)).after(0)
    assert record is not None
    assert record.rights == (False, False, True, True, True, True, True)
    assert record.right == pytest.approx(5 / 7)
    assert [answer.fault for answer in answers_of(trainer, 0)[3:5]] == ["cut-off", ""]


class Constant:
    """A second reward model that pays a tenth per letter."""

    def score(self, answers: Sequence[tuple[Sequence[Message], str, bool]], *, batch_size: int = 16) -> list[float]:
        return [len(text) / 10 for _, text, _ in answers]


def test_an_anchor_scores_the_same_answers(make: Maker, prompts: list[Prompt]) -> None:
    trainer = make()
    record = HeldOut(trainer, prompts, HeldOutConfig(every=1), Constant()).after(0)
    assert record is not None
    wanted = [len(answer.text) / 10 - (0.0 if answer.ended else 0.5) for answer in answers_of(trainer, 0)]
    assert record.anchors == pytest.approx(wanted)
    assert record.anchor == pytest.approx(sum(wanted) / 9)


def test_updates_that_are_due_are_evaluated_once_and_by_the_same_draws(make: Maker, prompts: list[Prompt]) -> None:
    trainer = make()
    held_out = HeldOut(trainer, prompts, HeldOutConfig(every=2))
    state = torch.get_rng_state()
    found = [held_out.after(update) for update in range(5)]
    assert torch.equal(torch.get_rng_state(), state), "an evaluation changes what training draws"
    assert [record is not None for record in found] == [True, False, True, False, True]
    # nothing was learned in between: the same policy answers the same
    assert found[0] is not None
    assert all(record is None or replace(record, update=0) == found[0] for record in found)
    assert held_out.records == [record for record in found if record is not None]

    # the same run, started again
    again = HeldOut(make(), prompts, HeldOutConfig(every=2))
    assert [again.after(update) for update in range(5)] == [None] * 5
    assert again.after(6) is not None
    assert [record.update for record in again.records] == [0, 2, 4, 6]


def test_a_kill_between_answers_and_record_evaluates_again_to_the_same(
    make: Maker, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    held_out = HeldOut(trainer, prompts, HeldOutConfig(every=1))
    write = jsonl.write

    def killed(path: Any, records: Any) -> int:
        if Path(path).name == "held_out.jsonl":
            raise KeyboardInterrupt
        return write(path, records)

    with monkeypatch.context() as patch:
        patch.setattr(jsonl, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            held_out.after(0)
    assert held_out.records == []
    before = answers_of(trainer, 0)
    assert held_out.after(0) is not None
    assert answers_of(trainer, 0) == before


def test_training_does_not_feel_an_evaluation(make: Maker, prompts: list[Prompt]) -> None:
    def weights(run: str, *, is_evaluated: bool) -> list[torch.Tensor]:
        trainer = make(run)
        held_out = HeldOut(trainer, prompts, HeldOutConfig(every=1))
        for update in (1, 2):
            asked = trainer.prompts_of(update)
            trainer.learn(trainer.credit(trainer.measure(asked, trainer.sample(asked, update))), update)
            if is_evaluated:
                assert held_out.after(update) is not None
        return [
            parameter.detach() for name in ("policy", "critic") for parameter in trainer.roles.adapter(name).values()
        ]

    with_it, without = weights("with", is_evaluated=True), weights("without", is_evaluated=False)
    assert all(torch.equal(one, other) for one, other in zip(with_it, without, strict=True))


TWO = """
import os, sys
from pathlib import Path
import small, torch
from alignment.held_out import HeldOut, HeldOutConfig
from finlm import jsonl
from finlm.model import load_causal
from finlm.ppo_records import HeldOutRecord, read_held_out
from finlm.records import Prompt
from finlm.tokenizer import load_tokenizer
from test_held_out import Constant

torch.set_num_threads(1)
base, prompts, folder = map(Path, sys.argv[1:])
trainer = small.trainer(
    load_causal(base, dtype=torch.float32, device=torch.device("cpu")), load_tokenizer(base), [[5, 6, 7]],
    folder / os.environ["RANK"], adapter=small.lora(4), adapter_scale=0.1, total_episodes=8,
    per_device_train_batch_size=4, response_length=12, max_prompt_length=64, output_dir=str(folder / "run"),
)
assert trainer.processes.count == 2
held_out = HeldOut(trainer, list(jsonl.read(prompts, Prompt)), HeldOutConfig(every=1), Constant())
record = held_out.after(0)
trainer.accelerator.wait_for_everyone()
assert held_out.records == [record], "the processes do not agree"
assert held_out.after(0) is None
"""


@pytest.mark.slow
def test_two_processes_share_the_prompts(tiny: Any, prompts: list[Prompt], tmp_path: Path) -> None:
    jsonl.write(tmp_path / "prompts.jsonl", prompts)
    (tmp_path / "two.py").write_text(TWO, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
            str(tmp_path / "two.py"), str(tiny.base), str(tmp_path / "prompts.jsonl"), str(tmp_path),
        ],
        env=os.environ
        | {
            "PYTHONPATH": search_path(),
            "ACCELERATE_USE_CPU": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answers = list(jsonl.read(tmp_path / "run" / "held_out" / "update-00000.jsonl", AnswerRecord))
    assert [answer.prompt_id for answer in answers] == [prompt.id for prompt in prompts]
    (record,) = read_held_out(tmp_path / "run")
    costs = [0.0 if answer.ended else 1.0 for answer in answers]  # missing_eos_penalty's default
    assert record.anchors == pytest.approx([len(a.text) / 10 - cost for a, cost in zip(answers, costs, strict=True)])


def test_after_a_roll_back_later_evaluations_are_forgotten(make: Maker, prompts: list[Prompt]) -> None:
    held_out = HeldOut(make(), prompts, HeldOutConfig(every=1))
    for update in range(4):
        held_out.after(update)
    held_out.forget_after(1)
    assert [record.update for record in held_out.records] == [0, 1]
    assert held_out.after(2) is not None


def test_zero_never_evaluates(make: Maker) -> None:
    trainer = make()
    assert HeldOut(trainer, [], HeldOutConfig(every=0)).after(0) is None
    assert read_held_out(trainer.folder) == []


def test_bad_input_is_refused(make: Maker, prompts: list[Prompt]) -> None:
    trainer = make()
    with pytest.raises(UserError, match="no held-out prompts"):
        HeldOut(trainer, [], HeldOutConfig())
    long = Prompt(messages=(Message(role="user", content="word " * 80),))
    with pytest.raises(UserError, match="None of 1 held-out prompts has at most 64 tokens"):
        HeldOut(trainer, [long], HeldOutConfig())
    held_out = HeldOut(trainer, [long, *prompts], HeldOutConfig())
    assert held_out.prompts == prompts
    (removal,) = held_out.removals
    assert (removal.record_id, removal.rule) == (long.id, "too-long")
    for field, value in (("every", -1), ("batch_size", 0), ("kl_limit", -1.0), ("right_fall", 2.0)):
        with pytest.raises(ValueError, match=f"{field} is {value}"):
            HeldOutConfig(**{field: value})
    with pytest.raises(ValueError, match="no answers"):
        record(update=3, reward=0.0, rewards=())


# ---------------------------------------------------------------------------------------------- the best update


def record(**changed: Any) -> HeldOutRecord:
    plain = {"kl_nats": 1.0, "tokens": 30.0, "ended": 1.0, "anchor": None, "right": 0.5, "rewards": (0.0,)}
    return HeldOutRecord(**(plain | changed))


def test_the_best_update_has_the_highest_reward_within_the_limits() -> None:
    config = HeldOutConfig(kl_limit=10.0, right_fall=0.05)
    first, second, third, fourth = (
        record(update=0, reward=0.0, right=0.55),
        record(update=20, reward=0.6, right=0.50),  # 0.05 lower is allowed
        record(update=40, reward=0.9, right=0.40),  # hacked
        record(update=60, reward=1.2, kl_nats=10.1),  # left the reference
    )
    assert best_update([first, second, third, fourth], config) == 20
    assert best_update([first, third, fourth], config) == 0
    assert best_update([fourth, third, second, first], HeldOutConfig(kl_limit=0, right_fall=1.0)) == 60
    assert best_update([replace(first, kl_nats=11.0), fourth], config) == 0
    assert (
        best_update([record(update=5, reward=0.3, right=None), record(update=9, reward=0.3, right=None)], config) == 5
    )
    with pytest.raises(ValueError, match="no held-out evaluation"):
        best_update([], config)
