"""What is kept while PPO runs, and a run whose reward model pays for length under the eyes of one that does not."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from alignment import ppo_state
from alignment.best import HeldOutConfig, best_policy, trusted_update
from alignment.guards import GuardConfig
from alignment.watch import GuardStop
from finlm.errors import UserError
from finlm.metrics import forget_after, read_metrics
from finlm.ppo_records import HeldOutRecord, read_best, read_guards, read_held_out
from finlm.records import Message, Prompt

NONE = {"kl_target": 0, "length_ratio": 0, "entropy_share": 0, "ended_fall": 0, "anchor_evaluations": 0}


class Terse:
    """A second reward model that is right: every character costs a tenth."""

    def score(self, answers: Sequence[tuple[Sequence[Message], str, bool]], *, batch_size: int = 16) -> list[float]:
        return [-len(text) / 10 for _, text, _ in answers]


@pytest.fixture
def held_out() -> list[Prompt]:
    from tiny import COMPANIES

    return [
        Prompt(messages=(Message(role="user", content=f"What was {name} Inc.'s {what} in fiscal {year}?"),))
        for name in COMPANIES[:4]
        for what in ("revenue", "net income")
        for year in (2023, 2024)
    ]


@pytest.fixture
def trainer_of(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Any:
    def made(**settings: Any) -> Any:
        texts = [f"What was {name} Inc.'s revenue in fiscal 2024?" for name in ("Heronry", "Ivybank", "Jay")]
        ids = [tokenizer(f" Human: {text} Assistant:")["input_ids"] for text in texts]
        return small.trainer(
            copy.deepcopy(base),
            tokenizer,
            ids,
            tmp_path,
            adapter=small.lora(4),
            **{
                "total_episodes": 32,
                "per_device_train_batch_size": 8,
                "local_rollout_forward_batch_size": 8,
                "response_length": 24,
                "max_prompt_length": 64,
                "save_steps": 1,
                "policy_steps": 0,
                "missing_eos_penalty": 0.0,
                **settings,
            },
        )

    return made


def test_an_anchor_that_falls_while_the_reward_rises_rolls_the_run_back(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    asked = [Prompt(messages=(Message(role="user", content=f"{one} {two}"),)) for one in range(2, 8) for two in (4, 7)]
    trainer = small.trainer(
        small.base(vocabulary=8, width=16),
        small.tokenizer(8),
        [[2, 3], [4], [5, 6, 7]],
        tmp_path,
        total_episodes=64 * 20,
        per_device_train_batch_size=64,
        local_rollout_forward_batch_size=64,
        num_ppo_epochs=2,
        response_length=24,
        missing_eos_penalty=0.0,
        learning_rate=1e-2,
        critic_learning_rate=1e-2,
        kl_coef=0.0,
        save_steps=1,
        policy_steps=2,
        held_out=asked,
        anchor=Terse(),
        evaluation=HeldOutConfig(every=2, kl_limit=0),
        guards=GuardConfig(**NONE | {"anchor_evaluations": 5, "anchor_z": 2.0}),
    )
    small.pay_for_length(trainer)
    with pytest.raises(GuardStop, match=r"rolled back from update \d+ to .* by the guard 'anchor'"):
        trainer.train()
    (verdict,) = read_guards(trainer.folder)
    assert verdict.back_to is not None
    assert "the held-out anchor's score by -" in verdict.sentence
    # back to where the anchor stood highest, or before; its checkpoint was kept for that
    kept = read_held_out(trainer.folder)
    assert trainer.progress.update == verdict.back_to == max(one.update for one in kept)
    assert verdict.back_to <= verdict.since - 1
    best = read_best(trainer.folder)
    assert best is not None
    assert best.update <= verdict.back_to
    assert [line["step"] for line in read_metrics(trainer.folder / "metrics.jsonl")] == list(
        range(1, verdict.back_to + 1)
    )


def test_checkpoints_that_a_roll_back_may_need_are_kept(trainer_of: Any) -> None:
    def left(**guards: Any) -> list[int]:
        trainer = trainer_of(total_episodes=8 * 8, guards=GuardConfig(**NONE | {"kl_target": 1000} | guards))
        trainer.train()
        found = sorted(ppo_state.updates_of(trainer.folder))
        for path in ppo_state.updates_of(trainer.folder).values():
            (path / "manifest.json").unlink()  # the next trainer begins anew
        return found

    # after update 8 a streak of two may have begun with the policy of update 6: one older is needed
    assert left(patience=2) == [5, 6, 7, 8]
    assert left(patience=2, acts=False) == [7, 8]


def test_rolled_back_to_its_start_a_run_begins_as_at_first(trainer_of: Any) -> None:
    def weights(trainer: Any) -> dict[str, torch.Tensor]:
        parts = (*trainer.roles.adapter("policy").items(), *trainer.roles.adapter("critic").items())
        return {name: tensor.detach().clone() for name, tensor in parts}

    trainer = trainer_of(
        learning_rate=3e-2, score_normalisation="std", guards=GuardConfig(**NONE | {"kl_target": 0.001, "patience": 1})
    )
    begun = weights(trainer)
    with pytest.raises(GuardStop, match="rolled back from update 2 to its start by the guard 'kl'"):
        trainer.train()
    assert trainer.progress == ppo_state.Progress(roll_backs=1)
    assert all(torch.equal(tensor, begun[name]) for name, tensor in weights(trainer).items())
    assert not any(optimizer.state for optimizer in trainer.optimizers.values())
    assert ppo_state.updates_of(trainer.folder) == {}
    assert read_metrics(trainer.folder / "metrics.jsonl") == []


def test_prompts_that_are_trained_on_are_refused(trainer_of: Any, held_out: list[Prompt]) -> None:
    trained = Prompt(messages=(Message(role="user", content="What was Jay Inc.'s revenue in fiscal 2024?"),))
    with pytest.raises(UserError, match=rf"The held-out prompt {trained.id} .*Jay Inc.*is also trained on"):
        trainer_of(held_out=[*held_out, trained])


def test_a_run_whose_evaluation_is_not_finite_writes_nothing_of_it(trainer_of: Any, held_out: list[Prompt]) -> None:
    class Broken:
        def score(self, answers: Sequence[Any], *, batch_size: int = 16) -> list[float]:
            return [float("nan")] * len(answers)

    trainer = trainer_of(held_out=held_out, anchor=Broken())
    with pytest.raises(UserError, match=r"The anchor scores an answer nan in the evaluation .* at update 0"):
        trainer.train()
    assert read_held_out(trainer.folder) == []


# ---------------------------------------------------------------------------------------------- pure


def record(update: int, reward: float = 0.0, **changed: Any) -> HeldOutRecord:
    plain = {"kl_nats": 1.0, "tokens": 30.0, "ended": 1.0, "anchor": None, "right": None, "rewards": (0.0, 0.0)}
    return HeldOutRecord(update=update, reward=reward, **(plain | changed))


def test_the_best_is_one_of_the_kept_policies_and_says_why() -> None:
    config = HeldOutConfig(kl_limit=10.0)
    records = [record(0), record(10, 0.9), record(20, 0.5), record(40, 2.0, kl_nats=11.0)]
    best = best_policy(records, config, {0, 20, 40})
    assert best is not None
    assert (best.update, best.policy, best.reward) == (20, "policies/update-00020", 0.5)
    assert best.reason == (
        "the highest held-out reward of 3 kept policies (2 prompts); beyond the limits (kl_limit 10, right_fall 0.05) "
        "and left out: update 40"
    )
    assert best_policy(records, config, {30}) is None
    ruined = [record(0, kl_nats=11.0), record(20, kl_nats=12.0)]
    alone = best_policy(ruined, config, {0, 20})
    assert alone is not None
    assert (alone.update, alone.reason) == (0, "the first of 2 kept policies, all of which are beyond the limits")


def test_trusted_is_where_what_does_not_train_stood_highest() -> None:
    assert trusted_update([]) is None
    assert trusted_update([record(0), record(20)]) is None
    assert trusted_update([record(0, right=0.5), record(20, right=0.6), record(40, right=0.6)]) == 20
    # the anchor's score counts where there is one
    assert trusted_update([record(0, right=0.5, anchor=0.3), record(20, right=0.6, anchor=0.2)]) == 0


def test_later_lines_of_metrics_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    forget_after(path, 3)
    assert not path.exists()
    path.write_text('{"step": 1, "a": 1}\n{"step": 3, "a": 2}\n{"step": 4, "a": 3}\n{"ste', encoding="utf-8")
    forget_after(path, 3)
    assert path.read_text(encoding="utf-8") == '{"step": 1, "a": 1}\n{"step": 3, "a": 2}\n'
