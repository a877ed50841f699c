"""Prompts for PPO: nothing is lost, cut or filled up in silence; shares, quotas and the draw are what they say."""

import itertools
import json
import math
import shlex
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from finlm import confidence, config, data, jsonl, prompt_pool, prompts
from finlm.classifier import classify
from finlm.confidence import ConfidenceSettings, ScoredPrompt, confident, draw_weighted, quantile
from finlm.errors import MissingInput, UserError
from finlm.prompt_mixture import Cell, Mixture, Quota, draw, quotas, read_mixture
from finlm.records import Candidates, Message, PreferencePair, Prompt, Provenance, Removal, Response

CELLS = (("finance", "accounting"), ("finance", "markets"), ("general", "writing"), ("safety", "privacy"))


def prompt(text: str, category: Any = "general", subfield: str = "", **more: Any) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), category=category, subfield=subfield, **more)


def many(cell: tuple[str, str], count: int, start: int = 0) -> list[Prompt]:
    names = itertools.islice(itertools.product("bcdfgklmnp", "aeiou", "rstvz"), start, start + count)
    return [prompt(f"Tell us of {''.join(letters).title()}.", *cell) for letters in names]


def preference(one: Prompt) -> PreferencePair:
    return PreferencePair(
        prompt=one, chosen="Yes.", rejected="No.", strength=1, source="t", provenance=Provenance(maker="person:1")
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty preference prompts and eighty new ones in four sub-fields, without companies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FINLM_RUNS", raising=False)
    known = [one for place, cell in enumerate(CELLS) for one in many(cell, 10, start=60 * place)]
    fresh = [one for place, cell in enumerate(CELLS) for one in many(cell, 20, start=60 * place + 10)]
    jsonl.write("runs/preferences.jsonl", [preference(one) for one in known])
    jsonl.write("new.jsonl", fresh)
    return tmp_path


def collect(*more: str, expect: int = 0) -> tuple[list[Prompt], list[Removal], dict[str, Any]]:
    """Run the stage as its command line would, and return prompts, removals and counts."""
    base = ["--instructions", "[]", "--new", '["new.jsonl"]', "--test_share", "0", "--max_prompt_length", "0"]
    prompts.main(config.parse(prompts.PromptSettings, "", [*base, *more]))
    counts = json.loads(Path("runs/prompts/run.json").read_text(encoding="utf-8"))["counts"]
    return (
        list(jsonl.read("runs/prompts.jsonl", Prompt)),
        list(jsonl.read("runs/prompts/rejected.jsonl", Removal)),
        counts,
    )


def refuse(message: str, *more: str) -> None:
    with pytest.raises(UserError) as caught:
        collect(*more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("runs/prompts.jsonl").exists()


# ------------------------------------------------------------------------------------------------ records, reading


def test_a_prompt_written_before_there_were_subfields_loads(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text('{"messages":[{"role":"user","content":"Q?"}],"category":"safety"}\n')
    (old,) = jsonl.read(tmp_path / "old.jsonl", Prompt)
    assert old == prompt("Q?", "safety")
    assert old.id == prompt("Q?", "safety", "privacy").id  # sorting a prompt does not make it another one


def test_empty_rows_are_set_aside_and_broken_ones_named(tmp_path: Path) -> None:
    rows = ['{"messages":[{"role":"user","content":"Q?"}]}', "", '{"messages":[{"role":"user","content":" \\n"}]}']
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join([*rows, '{"messages":[],"id":"x"}', ""]), encoding="utf-8")
    kept, removals = prompt_pool.read_prompts(file)
    assert kept == [prompt("Q?")]
    assert [(removal.rule, removal.record_id == "x") for removal in removals] == [("empty", False), ("empty", True)]
    for bad, why in (
        ('{"messages":[{"role":"user","content":"Q?"}]', "truncated"),
        ('{"messages":[{"role":"user","content":7}]}', "Expected `str`"),
        ('{"messages":[{"role":"user","content":"Q?"}],"category":"fun"}', "Invalid enum value 'fun'"),
        ('{"messages":[{"role":"assistant","content":"Q?"}]}', "expected 'user'"),
        ('{"prompt":"Q?"}', "missing required field `messages`"),
    ):
        file.write_text("\n".join([*rows, bad]), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            prompt_pool.read_prompts(file)
        assert f"{file}:4: not a valid PromptRow" in str(caught.value)
        assert why in str(caught.value)


def test_long_prompts_are_set_aside_whole() -> None:
    short, long = prompt("one two"), prompt("one two three")
    kept, removals = prompt_pool.without_long([short, long], lambda one: len(one.messages[0].content.split()), 2)
    assert kept == [short]
    assert [(one.record_id, one.rule, one.reason) for one in removals] == [
        (long.id, "too-long", "3 tokens, the limit is 2")
    ]


def test_duplicates_by_rule() -> None:
    passage = "Revenue was $3 million and rose with demand for the new pumps in every region of the country. " * 3
    first = prompt("What do pumps cost?")
    same = prompt("  what do PUMPS cost? ")
    near = prompt(f"{passage}\n\nWhy did demand for the new pumps rise in every region so fast?")
    nearly = prompt(f"{passage}\n\nwhy did demand for the new pumps rise in every region so very fast?")
    asks_other = prompt(f"{passage}\n\nWhich pumps does the company make?")
    other_group = prompt(nearly.messages[0].content + " ", group="Acme")
    secret = prompt("What is in the vault?")
    leaked = prompt("What is  in the Vault?")
    pool = [first, same, near, nearly, asks_other, leaked]
    kept, removals = prompt_pool.without_duplicates(pool, threshold=0.7, never=[secret])
    assert kept == [first, near, asks_other]
    assert {removal.record_id: removal.rule for removal in removals} == {
        same.id: "duplicate",
        nearly.id: "near-duplicate",
        leaked.id: "held-out-duplicate",
    }
    assert prompt_pool.without_duplicates([near, nearly], threshold=0)[0] == [near, nearly]
    grouped = prompt(near.messages[0].content, group="Bolt")
    assert prompt_pool.without_duplicates([grouped, other_group], threshold=0.7)[0] == [grouped, other_group]
    rights = [prompt(text.messages[0].content, reference=right) for text, right in ((near, "A."), (nearly, "B."))]
    assert prompt_pool.without_duplicates(rights, threshold=0.7)[0] == rights


# ------------------------------------------------------------------------------------------------ the whole stage


def test_without_settings_one_new_prompt_per_preference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, removed, counts = collect()
    assert counts["from_preferences"] == counts["new"] == 40
    assert (counts["read"], len(found) + len(removed)) == (120, 120)
    assert Counter(one.rule for one in removed) == {"over-limit": 40} == counts["rules"]
    assert "40 prompts of the preferences and 40 new ones (0 held out): runs/prompts.jsonl" in capsys.readouterr().out
    observed = yaml.safe_load(Path("runs/prompts/mixture.yaml").read_text())["shares"]
    assert math.isclose(sum(share for parts in observed.values() for share in parts.values()), 1)
    prompts.main(config.parse(prompts.PromptSettings, "", ["--config", "runs/prompts/config.yaml"]))
    assert "is finished" in capsys.readouterr().out


def test_every_removed_prompt_has_its_rule(folder: Path) -> None:
    known = [pair.prompt for pair in jsonl.read("runs/preferences.jsonl", PreferencePair)]
    fresh = list(jsonl.read("new.jsonl", Prompt))
    grouped = [prompt(f"What does {name} make?", group=name) for name in ("Alder", "Birch", "Cedar", "Dove", "Elm")]
    held_out = [one for one in [*known, *fresh, *grouped] if data.is_held_out(one, test_share=0.4)]
    assert {one.group for one in held_out} - {""}, "choose other names"
    shouted = prompt(known[0].messages[0].content.upper())
    rows = [jsonl.encode(one).decode() for one in [*fresh, *grouped, shouted, known[1]]]
    Path("new.jsonl").write_text("\n".join([*rows, '{"messages":[]}']), encoding="utf-8")
    found, removed, counts = collect("--test_share", "0.4", "--new_per_preference", "0.5")
    assert not {one.id for one in found} & {one.id for one in held_out}
    rules = Counter(one.rule for one in removed)
    assert rules["empty"] == 1
    assert rules["held-out"] == counts["held_out"] == len(held_out) + data.is_held_out(shouted, test_share=0.4)
    assert counts["read"] == len(known) + len(fresh) + len(grouped) + 2 == len(found) + len(removed)
    assert counts["repeated"] == 1
    assert counts["new"] == round(counts["from_preferences"] / 2)
    assert len({one.id for one in found} | {one.record_id for one in removed}) == counts["read"]
    evaluated = list(jsonl.read("runs/prompts/held_out.jsonl", Prompt))
    assert {one.id for one in evaluated} <= {one.id for one in [*held_out, shouted]}
    assert counts["evaluated"] == len(evaluated) == min(64, len({one.question.casefold() for one in held_out}))
    tested, _, _ = collect("--test_share", "0.4", "--split", "test", "--overwrite", "true", "--new_per_preference", "9")
    assert {one.id for one in tested} <= {one.id for one in [*held_out, shouted]}


def test_held_out_prompts_for_ppo_are_few_and_those_with_an_answer_come_first(folder: Path) -> None:
    answered = [prompt(f"What did plant {number} cost?", group="", reference=f"${number}.") for number in range(40)]
    jsonl.write("new.jsonl", [*jsonl.read("new.jsonl", Prompt), *answered])
    how = ("--test_share", "0.4", "--overwrite", "true")
    kept = Path("runs/prompts/held_out.jsonl")

    def drawn(*more: str) -> list[Prompt]:
        collect(*how, *more)
        return list(jsonl.read(kept, Prompt))

    few = drawn("--held_out", "5")
    assert len(few) == 5
    assert all(one.reference for one in few)
    assert drawn("--held_out", "5") == few
    assert drawn("--held_out", "5", "--seed", "1") != few
    many = drawn("--held_out", "100")
    assert {one.id for one in few} < {one.id for one in many}
    for none in (("--held_out", "0"), ("--split", "test")):
        collect(*how, *none)
        assert not kept.exists()
    with pytest.raises(UserError, match="held_out is -1"):
        collect("--held_out", "-1")


def test_too_long_prompts_are_counted_by_the_models_tokenizer(folder: Path, tiny: Any) -> None:
    long = prompt("many words " * 200)
    jsonl.write("new.jsonl", [*jsonl.read("new.jsonl", Prompt), long])
    found, removed, counts = collect("--max_prompt_length", "64", "--model", str(tiny.base))
    assert counts["rules"]["too-long"] == 1
    (one,) = [removal for removal in removed if removal.rule == "too-long"]
    assert one.record_id == long.id
    assert "the limit is 64" in one.reason
    assert all(len(kept.messages[0].content) < 40 for kept in found)
    refuse_missing = ["--max_prompt_length", "64", "--overwrite", "true"]
    with pytest.raises(MissingInput, match="make it with: python alignment/sft"):
        collect(*refuse_missing)


SHARES = {"finance": {"accounting": 0.4, "markets": 0.1}, "general": 0.25, "safety": {"privacy": 0.25}}


def test_shares_are_met_or_the_gap_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, removed, counts = collect("--shares", json.dumps(SHARES))
    # 40 wanted from each side: 16, 4, 10, 10; the preferences have 10 of each sub-field
    met = {(one.source, one.subfield): one for one in jsonl.read("runs/prompts/quotas.jsonl", Quota)}
    assert {name: (one.wanted, one.available, one.taken, one.short) for name, one in met.items()} == {
        ("preferences", "accounting"): (16, 10, 10, 6),
        ("preferences", "markets"): (4, 10, 4, 0),
        ("preferences", "*"): (10, 10, 10, 0),
        ("preferences", "privacy"): (10, 10, 10, 0),
        ("new", "accounting"): (16, 20, 16, 0),
        ("new", "markets"): (4, 20, 4, 0),
        ("new", "*"): (10, 20, 10, 0),
        ("new", "privacy"): (10, 20, 10, 0),
    }
    assert counts["short"] == 6
    assert Counter(one.subfield for one in found) == {"accounting": 26, "markets": 8, "writing": 20, "privacy": 20}
    assert Counter(one.rule for one in removed) == {"over-quota": 120 - 74}
    assert "6 of 80 prompts are missing" in capsys.readouterr().out
    assert yaml.safe_load(Path("runs/prompts/mixture.yaml").read_text())["shares"] == SHARES


def test_a_subfield_that_no_prompt_has_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = {"finance": {"acounting": 0.5}, "safety": 0.5}
    found, removed, counts = collect("--shares", json.dumps(shares), "--total", "20")
    assert {one.category for one in found} == {"safety"}
    assert (len(found), counts["short"]) == (10, 10)
    assert Counter(one.rule for one in removed)["no-share"] == 90  # accounting and markets, and general
    said = " ".join(capsys.readouterr().out.split())
    assert "No prompt has the sub-field 'acounting' of finance" in said


def test_total_is_split_in_the_ratio(folder: Path) -> None:
    found, _, counts = collect("--total", "30", "--new_per_preference", "2")
    assert (counts["from_preferences"], counts["new"], len(found)) == (10, 20, 30)


def test_the_draw_depends_on_the_seed_alone(folder: Path) -> None:
    flags = ("--shares", json.dumps(SHARES), "--overwrite", "true")
    one = [collect(*flags, "--seed", seed)[0] for seed in ("1", "1", "2")]
    assert one[0] == one[1]
    assert one[0] != one[2]


# ------------------------------------------------------------------------------------------------ mixtures


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"finnance": 1.0}, "perhaps you meant 'finance'"),
        ({"fun": 1.0}, "the categories are general, finance, safety"),
        ({"finance": 0.5, "general": 0.4}, "the shares add up to 0.9, they must add up to 1"),
        ({"finance": {"accounting": 0.5}, "general": 0.6}, "finance/accounting 0.5, general 0.6"),
        ({"finance": 0.0, "general": 1.0}, "the share of finance is 0.0; it must be above 0"),
        ({"finance": -1.0, "general": 2.0}, "the share of finance is -1.0"),
        ({"finance": "half"}, "finance/* is 'half'; it must be a number"),
        ({"finance": {}, "general": 1.0}, "finance has no sub-field"),
        ({"finance": True}, "finance/* is True"),
        ({"finance": float("nan")}, "the share of finance is nan"),
    ],
)
def test_shares_are_checked(folder: Path, shares: dict[str, Any], message: str) -> None:
    Path("a.yaml").write_text(yaml.safe_dump({"shares": shares}))
    refuse(message, "--config", "a.yaml")
    with pytest.raises(UserError, match=r"a\.yaml: "):
        read_mixture("a.yaml")


def test_a_mixture_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    shares = {"finance": {"accounting": 0.3, "*": 0.2}, "general": 0.5}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"shares": shares}))
    mixture = read_mixture(tmp_path / "m.yaml")
    assert mixture.nested() == shares
    assert mixture.cell_of(prompt("Q", "finance", "accounting")) == Cell("finance", "accounting")
    assert mixture.cell_of(prompt("Q", "finance", "tax")) == mixture.cell_of(prompt("Q", "finance")) == Cell("finance")
    assert mixture.cell_of(prompt("Q", "safety")) is None
    (tmp_path / "m.yaml").write_text("total: 3\n")
    with pytest.raises(UserError, match="holds no mixture"):
        read_mixture(tmp_path / "m.yaml")
    with pytest.raises(MissingInput, match="no such mixture"):
        read_mixture(tmp_path / "none.yaml")


def test_quotas_add_up() -> None:
    thirds = {Cell("finance", name): 1 / 3 for name in "abc"}
    assert list(quotas(10, thirds).values()) == [4, 3, 3]
    # Hamilton's method on his own example's scale: 7.42, 1.54, 1.04 -> the largest remainder gets the seat
    uneven = {Cell("finance"): 0.742, Cell("general"): 0.154, Cell("safety"): 0.104}
    assert list(quotas(10, uneven).values()) == [7, 2, 1]
    for total in range(60):
        assert sum(quotas(total, uneven).values()) == total


def test_a_draw_without_weights_is_spread_over_companies() -> None:
    pool = [prompt(f"{name} {number}?", "finance", group=name) for name in "AB" for number in range(9)]
    taken = draw(pool, 6, Mixture({}), source="new", weights={}, seed=3)
    assert Counter(one.group for one in taken.prompts) == {"A": 3, "B": 3}
    assert len(taken.removals) == 12
    assert draw(pool, 0, Mixture({}), source="new", weights={}, seed=3).prompts == []


# ------------------------------------------------------------------------------------------------ the classifier

SORTS = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    field = "tax" if "B" in row["messages"][-1]["content"] else "law"
    print(json.dumps({"id": row["id"], "category": "finance", "subfield": field}), flush=True)
"""


def command(source: str) -> str:
    return shlex.join([sys.executable, "-c", source])


def asked(log: Path) -> str:
    """A classifier that also writes down whom it was asked about."""
    return command(SORTS.replace("    field", f"    open({str(log)!r}, 'a').write(row['id'] + '\\n')\n    field", 1))


def test_classifier_sorts_each_prompt_once(folder: Path) -> None:
    found, _, _ = collect("--classifier", asked(folder / "log"), "--shares", '{"finance": {"tax": 0.5, "law": 0.5}}')
    assert {(one.category, one.subfield) for one in found} == {("finance", "tax"), ("finance", "law")}
    assert all((one.subfield == "tax") == ("B" in one.messages[0].content) for one in found)
    ids = (folder / "log").read_text().split()
    assert len(ids) == len(set(ids)) == 120


def test_earlier_answers_sort_without_a_command(folder: Path) -> None:
    collect("--classifier", command(SORTS))
    Path("runs/prompts/sorted.jsonl").rename("before.jsonl")
    lines = Path("before.jsonl").read_text().splitlines()
    Path("before.jsonl").write_text("\n".join(lines[:100]))
    again, _, _ = collect("--sorted_before", '["before.jsonl"]', "--new_per_preference", "9", "--overwrite", "true")
    assert sum(one.subfield in ("tax", "law") for one in again) == 100


def test_classifier_is_not_asked_again(tmp_path: Path) -> None:
    pool = many(CELLS[0], 9)
    kept, log = tmp_path / "sorted.jsonl", tmp_path / "log"
    first = classify(pool[:5], asked(log), kept=kept, timeout_seconds=60)
    assert classify(pool, asked(log), kept=kept, timeout_seconds=60)[:5] == first
    assert log.read_text().split() == [one.id for one in pool]
    assert classify(pool, "no-such-program", kept=kept, timeout_seconds=60)[:5] == first


ANSWER = 'print(json.dumps({"id": row["id"], "category": "finance"}), flush=True)'
FAULTS = [
    (SORTS.replace('"finance"', '"fun"'), "line 1 of its output: Invalid enum value 'fun'"),
    (f"{SORTS}\nprint('Done!')", "line 4 of its output: JSON is malformed"),
    (SORTS.replace('row["id"]', '"stranger"'), "id 'stranger' is no prompt that it was given"),
    (SORTS.replace("    print", f"    {ANSWER}\n    print"), "line 2 of its output: id"),
    (SORTS.replace("for line in sys.stdin", "for line in list(sys.stdin)[1:]"), "answered 2 of 3 prompts ("),
    (SORTS.replace("    print", "    if field == 'tax': sys.exit(3)\n    print"), "ended with exit code 3 after"),
    ("raise SystemExit(7)", "ended with exit code 7 after 0 of 3 answers"),
    ("", "answered 0 of 3 prompts"),
    (SORTS.replace('"category": "finance", ', ""), "missing required field `category`"),
]


@pytest.mark.parametrize(("source", "message"), FAULTS)
def test_a_classifier_that_fails_is_told(tmp_path: Path, source: str, message: str) -> None:
    pool = [prompt(text) for text in ("A?", "B?", "C?")]
    with pytest.raises(UserError) as caught:
        classify(pool, command(source), kept=tmp_path / "sorted.jsonl", timeout_seconds=60)
    assert message in str(caught.value)


def test_a_classifier_that_hangs_is_ended(tmp_path: Path) -> None:
    waits = SORTS + "    import time; time.sleep(600)\n"
    pool, kept = [prompt(text) for text in ("A?", "B?", "C?")], tmp_path / "sorted.jsonl"
    with pytest.raises(UserError, match=r"wrote nothing for 2 s after \d of 3 answers; raise classifier_timeout"):
        classify(pool, command(waits), kept=kept, timeout_seconds=2)
    log = tmp_path / "log"
    classify(pool, asked(log), kept=kept, timeout_seconds=60)
    assert set(log.read_text().split()) <= {one.id for one in pool[1:]} | {pool[0].id}


def test_a_classifier_that_is_not_there(tmp_path: Path) -> None:
    for words in ("no-such-program -x", "'unclosed", " "):
        with pytest.raises(UserError, match="cannot be started"):
            classify([prompt("A?")], words, kept=tmp_path / "sorted.jsonl", timeout_seconds=5)


# ------------------------------------------------------------------------------------------------ confidence


def scored(pool: list[Prompt], *rows: tuple[float, ...]) -> dict[str, ScoredPrompt]:
    return {one.id: ScoredPrompt(prompt_id=one.id, scores=row) for one, row in zip(pool, rows, strict=False)}


def test_mean_and_deviation_by_hand() -> None:
    one = ScoredPrompt(prompt_id="x", scores=(1.0, 2.0, 6.0))
    assert one.mean == 3.0
    assert one.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.25) == pytest.approx(1.75)
    assert [quantile([1.0, 5.0], share) for share in (0, 0.5, 1)] == [1.0, 3.0, 5.0]
    assert quantile([2.0], 0.9) == 2.0
    numbers = [3.5, -1.0, 7.25, 0.0, 2.0, 9.0, 4.0]
    assert statistics.quantiles(numbers, n=4, method="inclusive") == pytest.approx(
        [quantile(numbers, share) for share in (0.25, 0.5, 0.75)]
    )


def test_rules_by_absolute_thresholds() -> None:
    pool = many(CELLS[0], 6)
    scores = scored(pool, (0.0, 0.0), (0.0, 0.1), (-5.0, -3.0), (4.0, 6.0), (-1.0, 1.0))
    settings = ConfidenceSettings(thresholds="score", least_deviation=0.5, lowest_mean=-2.0, highest_mean=2.0)
    outcome = confident(pool, scores, settings)
    assert [removal.rule for removal in outcome.removals] == ["small-deviation"] * 2 + ["extreme-mean"] * 2
    assert [removal.record_id for removal in outcome.removals] == [one.id for one in pool[:4]]
    assert outcome.kept == pool[4:]
    assert outcome.unscored == 1
    # the one without scores weighs what the scored ones of its category weigh on average
    assert outcome.weights == {pool[4].id: pytest.approx(math.sqrt(2)), pool[5].id: pytest.approx(math.sqrt(2))}
    dropped = confident(pool, scores, ConfidenceSettings(thresholds="score", least_deviation=0.5, unscored="drop"))
    assert dropped.removals[-1] == Removal(record_id=pool[5].id, rule="no-scores", reason="its answers were not scored")


def test_quantiles_are_each_categorys_own() -> None:
    low, high = many(CELLS[0], 5), many(CELLS[2], 5, start=40)
    spreads = (1.0, 2.0, 3.0, 4.0, 5.0)
    scores = scored(low, *((-s, s) for s in spreads)) | scored(high, *((90 - 10 * s, 90 + 10 * s) for s in spreads))
    settings = ConfidenceSettings(least_deviation=0.25, lowest_mean=0.0, highest_mean=1.0)
    outcome = confident(low + high, scores, settings)
    # the second smallest of five is their quarter; what is smaller goes
    assert outcome.kept == low[1:] + high[1:]
    assert [limit.least_deviation for limit in outcome.limits] == pytest.approx([2 * math.sqrt(2), 20 * math.sqrt(2)])


def test_weighted_draw_has_the_probabilities_of_drawing_one_by_one() -> None:
    pool = many(CELLS[0], 4)
    weights = dict(zip([one.id for one in pool], (1.0, 2.0, 3.0, 4.0), strict=True))
    expected = dict.fromkeys(weights, 0.0)
    for first, second in itertools.permutations(weights, 2):  # two draws, each in proportion to what is left
        chance = weights[first] / 10 * weights[second] / (10 - weights[first])
        expected[first] += chance
        expected[second] += chance
    draws = 6000
    counts = Counter(one.id for seed in range(draws) for one in draw_weighted(pool, weights, 2, seed=seed))
    for name, chance in expected.items():
        assert counts[name] / draws == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / draws))


def test_weighted_draw_does_not_depend_on_order_or_on_others() -> None:
    pool = many(CELLS[0], 20)
    weights = {one.id: 1.0 + place for place, one in enumerate(pool)}
    taken = draw_weighted(pool, weights, 8, seed=5)
    assert draw_weighted(pool[::-1], weights, 8, seed=5) == taken
    assert draw_weighted([one for one in pool if one != taken[0]], weights, 7, seed=5) == taken[1:]
    assert draw_weighted(pool, weights, 8, seed=6) != taken
    nothing = {one.id: 0.0 for one in pool[:19]} | {pool[19].id: 1.0}
    assert draw_weighted(pool, nothing, 1, seed=5) == [pool[19]]


def test_the_filter_in_the_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = [pair.prompt for pair in jsonl.read("runs/preferences.jsonl", PreferencePair)]
    pool += list(jsonl.read("new.jsonl", Prompt))
    same, wide, unscored = pool[:4], pool[4:110], pool[110:]
    rows = [ScoredPrompt(prompt_id=one.id, scores=(0.5, 0.5)) for one in same]
    rows += [ScoredPrompt(prompt_id=one.id, scores=(-1.0, 1.0)) for one in wide]
    jsonl.write("scores.jsonl", rows)
    flags = ("--scores", "scores.jsonl", "--thresholds", "score", "--lowest_mean", "-1", "--highest_mean", "1")
    found, removed, counts = collect(*flags, "--unscored", "drop", "--new_per_preference", "9")
    assert counts["rules"] == {"small-deviation": 4, "no-scores": 10}
    assert {one.record_id for one in removed} == {one.id for one in same + unscored}
    assert len(found) == 106
    said = " ".join(capsys.readouterr().out.split())
    assert "confidence filter, in score units (10 prompts without scores)" in said
    kept, _, _ = collect(*flags, "--new_per_preference", "9", "--overwrite", "true")
    assert len(kept) == 116


def test_bad_scores_are_named(folder: Path) -> None:
    name = next(jsonl.read("new.jsonl", Prompt)).id
    for row, message in (
        (f'{{"prompt_id":"{name}","scores":[0.5]}}', "has 1 score; a deviation needs 2 or more"),
        (f'{{"prompt_id":"{name}","scores":[0.5,"x"]}}', "Expected `float`"),
        (f'{{"prompt_id":"{name}","scores":[0.5,NaN]}}', "scores.jsonl:1:"),
        (f'{{"prompt_id":"{name}","scores":[0,1]}}\n' * 2, "has two lines of scores"),
        ('{"prompt_id":"elsewhere","scores":[0,1]}', "has scores of none of the 120 prompts"),
    ):
        Path("scores.jsonl").write_text(row + "\n")
        refuse(message, "--scores", "scores.jsonl")
    refuse("give one of them", "--scores", "scores.jsonl", "--score_with", "runs/reward")
    refuse("as a quantile it must be 0 to 1", "--highest_mean", "3")
    refuse("lowest_mean 0.9 is above highest_mean 0.5", "--lowest_mean", "0.9", "--highest_mean", "0.5")
    refuse("least_deviation is -1.0", "--least_deviation", "-1")
    refuse("The reward model not found at runs/reward", "--score_with", "runs/reward")


def test_answers_of_several_files_are_one_prompts(tmp_path: Path) -> None:
    one, other = many(CELLS[0], 2)
    rows = [
        Candidates(prompt=who, responses=(Response(text=text, model="m"),))
        for who, text in ((one, "A"), (other, "C"), (one, "B"))
    ]
    jsonl.write(tmp_path / "c.jsonl", rows)
    found = confidence.answers_of(tmp_path / "c.jsonl", [one.id])
    assert [answer.text for answer in found[one.id].responses] == ["A", "B"]
    with pytest.raises(UserError, match="has one answer, a deviation needs 2 or more"):
        confidence.answers_of(tmp_path / "c.jsonl", [one.id, other.id])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--total", "-1"), "total is -1"),
        (("--new_per_preference", "-1"), "new_per_preference is -1.0"),
        (("--near_duplicate", "2"), "near_duplicate is 2.0"),
        (("--classifier_timeout", "0"), "classifier_timeout is 0.0"),
        (("--total", "2", "--shares", '{"safety": {"none": 1.0}}'), "no prompt is left (no-share 120)"),
    ],
)
def test_other_settings_are_checked(folder: Path, flags: tuple[str, ...], message: str) -> None:
    refuse(message, *flags)
