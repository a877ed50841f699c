"""Reward models on one base: each says what it says alone, and what does not fit together is refused."""

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_rewards import CPU, drawn_reward
from tokenizers import AddedToken

from finlm import chat_format, ensemble, runs
from finlm.ensemble import EncodedAnswer, Ensemble
from finlm.errors import MissingInput, UserError
from finlm.records import Message
from finlm.scorer import Scorer
from finlm.tokenizer import load_tokenizer

QUESTIONS = ("What was it?", "What was Alder Inc.'s revenue in fiscal 2024?", "Why?")
ANSWERS = ("It was 7.", "", "Revenue was $1.2 million in fiscal 2024, as in fiscal 2023 and before.", "No")


@pytest.fixture(scope="module")
def folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four reward models: two adapters of other shapes, one on the upper layer, and the first's with another head."""
    home = tmp_path_factory.mktemp("rewards")
    drawn_reward(tiny.base, home / "a", seed=1)
    drawn_reward(tiny.base, home / "b", seed=2, rank=2)
    drawn_reward(tiny.base, home / "c", seed=3, layers=[1])
    drawn_reward(tiny.base, home / "d", seed=1, head_seed=9)
    return home


def asked() -> list[tuple[tuple[Message, ...], str, bool]]:
    return [
        ((Message(role="user", content=question),), answer, ended)
        for question in QUESTIONS
        for answer in ANSWERS
        for ended in (True, False)
    ]


def encoded(judge: Ensemble) -> list[EncodedAnswer]:
    return [judge.encode(prompt, answer, ended=ended) for prompt, answer, ended in asked()]


def load(*folders: Path) -> Ensemble:
    return Ensemble.load(list(folders), dtype=torch.float32, device=CPU)


def alone(folder: Path) -> list[float]:
    """What the member says by itself, on a base of its own, one answer at a time."""
    return Scorer.load(folder, dtype=torch.float32, device=CPU).score(asked(), batch_size=1)


def test_an_ensemble_says_what_its_members_say_one_by_one(folder: Path) -> None:
    judge = load(*[folder / name for name in "abcd"])
    score_KN = judge.score(encoded(judge), batch_tokens=200)
    assert score_KN.shape == (4, len(asked()))
    for row, name in zip(score_KN, "abcd", strict=True):
        torch.testing.assert_close(row, torch.tensor(alone(folder / name)), atol=1e-5, rtol=0)
    assert float((score_KN[0] - score_KN[3]).abs().max()) > 0.1
    # the first and the last differ by their heads alone, so the base is passed three times
    assert [member.adapter for member in judge.members] == ["reward_0", "reward_1", "reward_2", "reward_0"]


def test_members_below_which_no_adapter_sits_share_the_layers_below(tiny: Any, folder: Path, tmp_path: Path) -> None:
    other = drawn_reward(tiny.base, tmp_path / "e", seed=5, layers=[1])
    judge = load(folder / "c", other)
    assert judge._trunk.depth == 1
    score_KN = judge.score(encoded(judge), batch_tokens=300)
    for row, path in zip(score_KN, (folder / "c", other), strict=True):
        torch.testing.assert_close(row, torch.tensor(alone(path)), atol=1e-5, rtol=0)


def test_each_reads_a_cut_answer_as_it_learned_to(tiny: Any, folder: Path, tmp_path: Path) -> None:
    closing = drawn_reward(tiny.base, tmp_path / "closing", seed=1, learned_from_cut=False)
    judge = load(folder / "a", closing)
    score_KN = judge.score(encoded(judge), batch_tokens=500)
    was_cut_N = torch.tensor([not ended for _, _, ended in asked()])
    torch.testing.assert_close(score_KN[0, ~was_cut_N], score_KN[1, ~was_cut_N], atol=1e-5, rtol=0)
    assert float((score_KN[0, was_cut_N] - score_KN[1, was_cut_N]).abs().mean()) > 0.5
    torch.testing.assert_close(score_KN[1], torch.tensor(alone(closing)), atol=1e-5, rtol=0)


def test_scores_depend_on_neither_batches_nor_order(folder: Path) -> None:
    judge = load(folder / "a", folder / "b")
    answers = encoded(judge)
    whole = judge.score(answers, batch_tokens=10**6)
    sizes: list[int] = []
    torch.testing.assert_close(judge.score(answers, batch_tokens=1, on_batch=sizes.append), whole, atol=1e-5, rtol=0)
    assert sizes == [1] * len(answers)
    order = random.Random(0).sample(range(len(answers)), len(answers))
    torch.testing.assert_close(
        judge.score([answers[place] for place in order], batch_tokens=120), whole[:, order], atol=1e-5, rtol=0
    )
    assert judge.score([], batch_tokens=9).shape == (2, 0)


def test_threads_do_not_see_each_others_adapters(folder: Path) -> None:
    judge = load(folder / "a", folder / "b")
    wanted = judge.score(encoded(judge), batch_tokens=100)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: judge.score(encoded(judge), batch_tokens=100), range(8)))
    assert all(torch.equal(one, wanted) for one in found)


def test_one_alone_is_its_scorer_to_the_bit(folder: Path) -> None:
    judge, scorer = load(folder / "b"), Scorer.load(folder / "b", dtype=torch.float32, device=CPU)
    score_1N = judge.score(encoded(judge), batch_tokens=10**6)
    assert score_1N[0].tolist() == scorer.score(asked(), batch_size=len(asked()))
    assert torch.equal(ensemble.reduced(score_1N, "mean"), score_1N[0])
    assert torch.equal(ensemble.reduced(score_1N, "min"), score_1N[0])


def test_mean_minimum_and_disagreement_by_hand() -> None:
    score_KN = torch.tensor([[1.0, 4.0], [2.0, 4.0], [6.0, 4.0]])
    assert ensemble.reduced(score_KN, "mean").tolist() == [3.0, 4.0]
    assert ensemble.reduced(score_KN, "min").tolist() == [1.0, 4.0]
    # (4 + 1 + 9) / 3
    assert ensemble.disagreement(score_KN).tolist() == pytest.approx([(14 / 3) ** 0.5, 0.0])


def test_encoded_is_what_is_trained_on(folder: Path) -> None:
    judge = load(folder / "a")
    (prompt, answer, _), *_ = asked()
    tokens = judge.tokenizer
    wanted = [*chat_format.encode(tokens, prompt).ids, *tokens(f" {answer}</s>")["input_ids"]]
    assert list(judge.encode(prompt, answer).ids) == wanted
    assert len(judge.encode(prompt, answer, ended=False)) == len(wanted)  # an end token may come behind it


# ------------------------------------------------------------------------------------------------ what fits together


def test_a_folder_of_several_and_a_run_are_named_alike(folder: Path) -> None:
    wanted = [folder / name / "model" for name in "abcd"]
    assert ensemble.members_of(folder) == ensemble.members_of([folder]) == wanted
    assert ensemble.members_of([folder / "b", folder / "a" / "model"]) == [wanted[1], wanted[0]]
    assert ensemble.members_of(str(folder / "c")) == [wanted[2]]
    with pytest.raises(UserError, match="is named twice"):
        ensemble.members_of([folder, folder / "b"])
    with pytest.raises(UserError, match="No reward model is named"):
        ensemble.members_of([])
    with pytest.raises(MissingInput, match="holds no reward model"):
        ensemble.members_of(folder / "nowhere")


def test_another_base_is_refused(tiny: Any, folder: Path, tmp_path: Path) -> None:
    copied, changed = tmp_path / "copied", tmp_path / "changed"
    for place in (copied, changed):
        shutil.copytree(tiny.base, place)
    config = json.loads((changed / "config.json").read_text(encoding="utf-8"))
    (changed / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}), encoding="utf-8")
    same = drawn_reward(copied, tmp_path / "same", seed=5)
    other = drawn_reward(changed, tmp_path / "other", seed=6)
    assert len(load(folder / "a", same).members) == 2  # the same files in another place
    with pytest.raises(UserError, match=r"other/model was trained on another base .* on which .*a/model stands"):
        load(folder / "a", other)
    # by what it says of itself, wherever its base has gone
    said = drawn_reward(tiny.base, tmp_path / "said", seed=7, base_fingerprint="f" * 64)
    with pytest.raises(UserError, match=r"was trained on another base .fingerprint ffffffffffffffff"):
        load(folder / "a", said)
    right = drawn_reward(tiny.base, tmp_path / "right", seed=7, base_fingerprint=runs.fingerprint(tiny.base))
    assert len(load(folder / "a", right).members) == 2


def test_another_tokenizer_is_refused(tiny: Any, folder: Path, tmp_path: Path) -> None:
    other = drawn_reward(tiny.base, tmp_path / "other", seed=5)
    described = json.loads((other / "model" / "reward.json").read_text(encoding="utf-8"))
    (other / "model" / "reward.json").write_text(json.dumps(described | {"tokenizer": "0" * 16}), encoding="utf-8")
    with pytest.raises(UserError, match=r"was trained with another tokenizer .fingerprint 0000000000000000"):
        load(folder / "a", other)


def test_a_base_whose_tokenizer_has_changed_is_refused(tiny: Any, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny.base, base)
    made = drawn_reward(base, tmp_path / "made", seed=5)
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens([AddedToken("<new>")])
    tokenizer.save_pretrained(base)
    with pytest.raises(UserError, match="trained with another vocabulary"):
        load(made)


def test_fingerprints_name_every_file_that_counts(tiny: Any, folder: Path) -> None:
    found = load(folder / "a", folder / "b").fingerprints
    assert list(found) == [str(folder / "a" / "model"), str(folder / "b" / "model"), "base", "tokenizer"]
    assert found["base"] == runs.fingerprint(tiny.base)
    assert len(set(found.values())) == 4
