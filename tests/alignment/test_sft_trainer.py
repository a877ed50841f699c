"""The packed trainer: the loss by transformers' own, accumulation that changes nothing, and a resume to the bit."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, TrainerCallback, TrainingArguments, set_seed

from alignment.sft_plan import Plan
from alignment.sft_trainer import HeldOutSettings, PackedTrainer, answer_loss, best_of, has_ended, in_batches
from finlm import jsonl, packed_loss
from finlm.batches import IGNORE, packed
from finlm.mixture_moves import MixtureMoves
from finlm.model import load_causal
from finlm.samples import Row, Sample
from finlm.sft_records import CategoryLoss, HeldOutLoss, Mixed, StreamName

CPU = torch.device("cpu")
SHARES = {"text-general": 0.25, "instructions-finance": 0.75}
Maker = Callable[..., PackedTrainer]


def samples(stream: StreamName, count: int, seed: int) -> list[Sample]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        ids = rng.integers(2, 300, rng.integers(2, 30), dtype=np.int32)
        learned = np.ones(len(ids), dtype=np.bool_)
        if stream.startswith("instructions"):
            learned[: len(ids) // 2] = False
        learned[0] = False
        made.append(Sample(stream, ids, learned, f"{stream}-{number}", ("en", "zh")[number % 2], f"f:{number}"))
    return made


STREAMS: dict[str, list[Sample]] = {
    "text-general": samples("text-general", 40, 0),
    "instructions-finance": samples("instructions-finance", 60, 1),
}
HELD_OUT: dict[str, list[Sample]] = {
    "text-general": samples("text-general", 6, 2),
    "instructions-finance": samples("instructions-finance", 7, 3),
}


@pytest.fixture
def make(tiny: Any, tmp_path: Path) -> Maker:
    def trainer(
        folder: Path = tmp_path / "run",
        *,
        steps: int = 6,
        rows: int = 4,
        micro: int = 2,
        lora: bool = True,
        streams: Mapping[str, Sequence[Sample]] = STREAMS,
        shares: Mapping[str, float] = SHARES,
        moves: MixtureMoves | None = None,
        held_out: HeldOutSettings | None = None,
        save: int = 2,
    ) -> PackedTrainer:
        model = packed_loss.install(load_causal(Path(tiny.base), dtype=torch.float32, device=CPU))
        set_seed(7)
        trained: Any = model
        if lora:
            config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.1)
            trained = get_peft_model(model, config)
        arguments = TrainingArguments(
            output_dir=str(folder / "checkpoints"), max_steps=steps, per_device_train_batch_size=micro,
            gradient_accumulation_steps=rows // micro, learning_rate=1e-2, save_strategy="steps", save_steps=save,
            logging_steps=1, report_to=[], use_cpu=True, seed=3, disable_tqdm=True, adam_epsilon=1e-3,
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        return PackedTrainer(
            plan=Plan(streams, shares, room=64, rows=rows, seed=5, folder=folder),
            held_out=HELD_OUT,
            moves=moves or MixtureMoves(),
            settings=held_out or HeldOutSettings(),
            folder=folder,
            model=trained,
            args=arguments,
        )

    return trainer


def weights(trainer: PackedTrainer) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in trainer.model.named_parameters() if one.requires_grad}


def test_packed_rows_by_hand() -> None:
    one = Sample("text-general", np.array([5, 6, 7], np.int32), np.array([False, True, True]), "a", "en", "f:1")
    two = Sample("instructions-general", np.array([8, 9], np.int32), np.array([False, True]), "b", "en", "f:2")
    batch = packed([Row((one,)), Row((two, one))])
    assert batch["input_ids"].tolist() == [5, 6, 7, 8, 9, 5, 6, 7]
    assert batch["labels"].tolist() == [6, 7, IGNORE, 9, IGNORE, 6, 7, IGNORE]
    assert batch["learned"].tolist() == [0, 1, 3, 5, 6]
    assert batch["bounds"].tolist() == [0, 3, 5, 8]
    assert batch["longest"] == 3
    with pytest.raises(ValueError, match="no samples"):
        packed([])


def test_losses_are_transformers_own_for_each_sample_alone(make: Maker, tiny: Any) -> None:
    trainer = make()
    plain = load_causal(Path(tiny.base), dtype=torch.float32, device=CPU)
    assert isinstance(plain, LlamaForCausalLM)
    its = [*STREAMS["text-general"][:3], *STREAMS["instructions-finance"][:3]]
    with torch.no_grad():
        trainer.model.eval()
        found = trainer.losses(trainer.model, packed([Row(tuple(its[:4])), Row(tuple(its[4:]))]))
        parts = torch.split(found, [one.learned for one in its])
        for one, part in zip(its, parts, strict=True):
            ids = torch.from_numpy(one.ids.astype(np.int64)).unsqueeze(0)
            labels = ids.masked_fill(~torch.from_numpy(one.is_learned), IGNORE)
            wanted = plain(input_ids=ids, labels=labels).loss.item()
            assert part.mean().item() == pytest.approx(wanted, abs=1e-5)


def test_accumulation_changes_nothing(make: Maker, tmp_path: Path) -> None:
    """Four rows at once, or one after the other: the loss is over the tokens of the step. Adam's epsilon is large, for
    its step by a gradient near zero is by its sign."""
    found = []
    for micro in (4, 2, 1):
        trainer = make(tmp_path / str(micro), steps=2, micro=micro, lora=False)
        trainer.go_on()
        found.append(weights(trainer))
    for other in found[1:]:
        for name, weight in found[0].items():
            torch.testing.assert_close(other[name], weight, atol=2e-5, rtol=1e-4)


def test_held_out_losses_are_means_over_tokens_by_stream_and_language(make: Maker) -> None:
    trainer = make()
    record = trainer.evaluate_by_category()
    assert {(one.stream, one.language, one.samples) for one in record.categories} == {
        ("text-general", "en", 3), ("text-general", "zh", 3),
        ("instructions-finance", "en", 4), ("instructions-finance", "zh", 3),
    }  # fmt: skip
    with torch.no_grad():
        trainer.model.eval()
        its = [one for one in HELD_OUT["text-general"] if one.language == "zh"]
        alone = [trainer.losses(trainer.model, packed([Row((one,))])) for one in its]
    found = next(one for one in record.categories if (one.stream, one.language) == ("text-general", "zh"))
    assert found.loss == pytest.approx(torch.cat(alone).mean().item(), abs=1e-5)
    assert found.tokens == sum(one.learned for one in its)


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Killed


@pytest.mark.parametrize("killed_at", [1, 3, 4, 5])
def test_a_killed_run_with_moving_shares_ends_as_an_unbroken_one(make: Maker, tmp_path: Path, killed_at: int) -> None:
    moves = MixtureMoves(every=2, step=1.5, among="all")
    straight = make(tmp_path / "straight", moves=moves)
    straight.go_on()
    first = make(tmp_path / "cut", moves=moves)
    first.add_callback(KillAt(killed_at))
    with pytest.raises(Killed):
        first.go_on()
    second = make(tmp_path / "cut", moves=moves)
    second.go_on()
    for name, weight in weights(straight).items():
        assert torch.equal(weights(second)[name], weight), name
    for name in ("held_out.jsonl", "mixture.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    mixed = msgspec.json.decode((tmp_path / "cut" / "mixture.json").read_bytes(), type=Mixed)
    assert [one.first_step for one in mixed.rounds] == [0, 2, 4]
    assert mixed.rounds[1].shares != mixed.rounds[0].shares
    assert mixed.rows == 24
    drawn = [sum(its.tokens for its in one.drawn.values()) for one in mixed.rounds]
    assert sum(drawn) >= mixed.filled * 24 * 64 - 64


def test_the_best_model_is_kept_and_patience_ends_the_run(make: Maker, tmp_path: Path) -> None:
    """Random tokens: held-out loss soon rises, and training longer makes nothing better."""
    trainer = make(steps=60, held_out=HeldOutSettings(every=2, patience=3), save=50)
    trainer.go_on()
    history = list(jsonl.read(tmp_path / "run" / "held_out.jsonl", HeldOutLoss))
    best = best_of(history)
    assert best is not None
    assert trainer.state.global_step == history[-1].step == best.step + 6 < 60
    said = msgspec.json.decode((tmp_path / "run" / "best" / "best.json").read_bytes())
    assert said == {"step": best.step, "loss": answer_loss(best)}
    assert (tmp_path / "run" / "best" / "adapter_model.safetensors").is_file()


def test_a_run_that_patience_ended_learns_no_more_where_it_is_taken_up(make: Maker, tmp_path: Path) -> None:
    """Killed between its end and its export, with a checkpoint of its last step."""
    how: dict[str, Any] = {"steps": 60, "held_out": HeldOutSettings(every=2, patience=3), "save": 2}
    first = make(**how)
    first.go_on()
    again = make(**how)
    again.go_on()
    assert again.state.global_step == first.state.global_step < 60
    for name, weight in weights(first).items():
        assert torch.equal(weights(again)[name], weight), name
    again.take_up()
    assert again.history == first.history


def test_a_step_without_a_learned_token_has_loss_zero_and_moves_nothing(make: Maker) -> None:
    mute = [
        Sample(one.stream, one.ids, np.zeros(len(one), dtype=np.bool_), one.record_id, one.language, one.place)
        for one in STREAMS["instructions-finance"]
    ]
    trainer = make(steps=1, streams={"instructions-finance": mute}, shares={"instructions-finance": 1.0})
    before = weights(trainer)
    trainer.go_on()
    assert [float(one["loss"]) for one in trainer.state.log_history if "loss" in one] == [0.0]
    for name, weight in weights(trainer).items():
        assert torch.equal(weight, before[name])


def test_a_micro_batch_without_a_learned_token_adds_nothing_to_its_step(make: Maker, tmp_path: Path) -> None:
    """Two rows, one of them mute: the step is that of the other row alone, over its tokens alone."""
    ids = np.arange(2, 60, dtype=np.int32)
    heard = Sample("instructions-finance", ids, np.arange(58) > 20, "a", "en", "f:1")
    mute = Sample("instructions-finance", ids[::-1].copy(), np.zeros(58, dtype=np.bool_), "b", "en", "f:2")
    found = []
    for name, its, rows in (("both", [heard, mute], 2), ("one", [heard], 1)):
        trainer = make(
            tmp_path / name, steps=1, rows=rows, micro=1, lora=False,
            streams={"instructions-finance": its}, shares={"instructions-finance": 1.0},
        )  # fmt: skip
        trainer.go_on()
        found.append(weights(trainer))
    for name, weight in found[0].items():
        torch.testing.assert_close(weight, found[1][name], atol=1e-6, rtol=1e-5)


def test_batches_of_held_out_samples() -> None:
    its = STREAMS["text-general"][:10]
    batches = list(in_batches(its, 40))
    assert [one for batch in batches for one in batch] == its
    assert all(sum(map(len, batch)) <= 40 or len(batch) == 1 for batch in batches)


def test_patience_counts_from_the_best() -> None:
    def at(step: int, loss: float) -> HeldOutLoss:
        its = CategoryLoss(stream="instructions-general", language="en", loss=loss, tokens=9, samples=1)
        other = CategoryLoss(stream="text-general", language="en", loss=1.0 / (step + 1), tokens=90, samples=1)
        return HeldOutLoss(step=step, categories=(its, other))  # text gets better and does not count

    history = [at(0, 2.0), at(1, 1.5), at(2, 1.6), at(3, 1.5)]
    assert best_of(history) == history[1]
    assert [has_ended(history[:count], 2) for count in (1, 2, 3, 4)] == [False, False, False, True]
    assert not has_ended(history, 0)


def test_a_round_that_has_just_begun_has_drawn_nothing(tmp_path: Path) -> None:
    plan = Plan(STREAMS, SHARES, room=64, rows=4, seed=5, folder=tmp_path)
    laid_out = sum(len(its) for rows in plan.steps(0, 3) for row in rows for its in row.samples)
    plan.begin_round(3, SHARES, dict.fromkeys(SHARES, "as before"))
    plan.write()
    first, second = msgspec.json.decode((tmp_path / "mixture.json").read_bytes(), type=Mixed).rounds
    assert {name: its.tokens for name, its in second.drawn.items()} == dict.fromkeys(SHARES, 0)
    drawn = {name: its.tokens for name, its in first.drawn.items()}
    assert sum(drawn.values()) >= laid_out > 0  # samples wait until they fit into a row
    assert {name: its.tokens for name, its in plan.totals().items()} == drawn
