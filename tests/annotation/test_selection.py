"""Which candidates are shown, which tasks are pushed, and where gold pairs lie."""

import math
from collections import Counter
from pathlib import Path

import pytest
from annotation_helpers import prompt, response

from annotation.choosing import ScoredCandidates, ScoredResponse, choose, scores_of, uncertainty, worth_of
from annotation.eventlog import EventLog
from annotation.export import export
from annotation.judged import from_log
from annotation.logged import Annotation
from annotation.pairing import Comparison
from annotation.push import PushSettings, read_gold, read_scores
from annotation.selection import Asked, select, with_gold
from finlm import jsonl
from finlm.errors import UserError
from finlm.prompt_mixture import Mixture
from finlm.records import Candidates, PreferencePair, Provenance, Removal, Response


def scored(texts: dict[str, tuple[float, ...]], question: str = "Q") -> ScoredCandidates:
    answers = [ScoredResponse(text=text, score=sum(its) / len(its), scores=its) for text, its in texts.items()]
    return ScoredCandidates(prompt=prompt(question), responses=tuple(answers))


def compared(number: int, category: str = "finance") -> Comparison:
    asked = prompt(f"Question {number}", category=category)
    return Comparison(prompt=asked, first=response("a"), second=response("b"), parents=(f"c{number}",))


def test_uncertainty_by_hand() -> None:
    assert uncertainty([0.3], [0.3]) == 1.0
    # sigmoid(ln 3) = 3/4: H = 3/4 log2(4/3) + 1/4 log2(4) = 0.811278
    assert uncertainty([math.log(3)], [0.0]) == pytest.approx(0.811278, abs=1e-6)
    assert uncertainty([0.0], [math.log(3)]) == pytest.approx(0.811278, abs=1e-6)
    # two models that are sure of opposite sides are together undecided
    assert uncertainty([9.0, -9.0], [0.0, 0.0]) == pytest.approx(1.0)
    assert uncertainty([2000.0], [0.0]) == 0.0


def test_the_most_uncertain_answers_are_shown() -> None:
    rows = scored({"a": (3.0, 3.0), "b": (0.1, 0.0), "c": (0.0, 0.1), "d": (-4.0, -4.0)})
    candidates = Candidates(prompt=rows.prompt, responses=tuple(map(response, "abcd")))
    scores = scores_of([rows])
    chosen = choose(candidates, 2, "uncertain", 0, scores)
    assert not isinstance(chosen, Removal)
    assert {one.text for one in chosen} == {"b", "c"}
    assert worth_of(rows.prompt, chosen, scores) > worth_of(rows.prompt, candidates.responses[:2], scores)
    missing = choose(candidates, 2, "uncertain", 0, {key: its for key, its in scores.items() if key[1] != "d"})
    assert isinstance(missing, Removal)
    assert missing.rule == "not-scored"


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    candidates = Candidates(prompt=prompt("Q"), responses=(response("a"), Response(text="b", model="m", ended=False)))
    jsonl.write(tmp_path / "candidates.jsonl", [candidates])
    # what `finlm reward score` writes: the record with a score, and one a model, in each response
    line = jsonl.encode(candidates).decode()
    line = line.replace('"text":"a"', '"text":"a","score":1.5,"scores":[1,2]')
    line = line.replace('"text":"b"', '"text":"b","score":0.5,"scores":[0,1]')
    (tmp_path / "scored.jsonl").write_text(line, encoding="utf-8")
    settings = PushSettings(strategy="uncertain", scores=str(tmp_path / "scored.jsonl"))
    found = read_scores(settings, tmp_path / "candidates.jsonl")
    key = candidates.prompt.id
    assert found == {(key, "a", True): (1.0, 2.0), (key, "b", False): (0.0, 1.0)}
    (tmp_path / "scored.jsonl").write_text(line.replace("[1,2]", "[1]"), encoding="utf-8")
    with pytest.raises(UserError, match=r"answers have \[1, 2\] scores"):
        read_scores(settings, tmp_path / "candidates.jsonl")
    (tmp_path / "scored.jsonl").write_text(line.replace("[1,2]", "[1,1e999]"), encoding="utf-8")
    with pytest.raises(UserError, match="not a valid ScoredCandidates"):
        read_scores(settings, tmp_path / "candidates.jsonl")
    with pytest.raises(UserError, match="finlm reward score"):
        read_scores(PushSettings(strategy="uncertain", scores=str(tmp_path / "none.jsonl")), tmp_path / "c.jsonl")
    with pytest.raises(ValueError, match="not finite"):
        ScoredResponse(text="x", score=math.nan)


def test_quotas_split_the_limit() -> None:
    finance, general = [compared(n) for n in range(6)], [compared(n, "general") for n in range(10, 12)]
    tasks = [*finance, *general, compared(20, "safety")]
    mixture = Mixture.of({"finance": 0.5, "general": 0.5})
    worth = {one.id: number / 10 for number, one in enumerate(tasks)}
    done = select(tasks, 6, mixture, worth)
    # three of finance, those worth most first; general has two of the three wanted
    assert [one.prompt.messages[0].content for one in done.tasks] == [f"Question {n}" for n in (11, 10, 5, 4, 3)]
    assert done.short == {"general": 1}
    assert Counter(one.rule for one in done.removals) == {"over-quota": 3, "no-share": 1}
    assert len(done.tasks) + len(done.removals) == len(tasks)
    plain = select(tasks, 2, Mixture({}), {})
    assert plain.tasks == tuple(tasks[:2])
    assert Counter(one.rule for one in plain.removals) == {"over-limit": 7}
    assert select(tasks, 0, Mixture({}), {}).tasks == tuple(tasks)


def test_gold_pairs_lie_among_the_others() -> None:
    tasks: list[Asked] = [compared(number) for number in range(95)]
    gold = [compared(number) for number in range(1000, 1040)]
    mixed, count = with_gold(tasks, gold, 0.05, 7)
    assert (count, len(mixed)) == (5, 100)  # 5 of 100
    assert [one for one in mixed if one in tasks] == tasks
    assert with_gold(tasks, gold, 0.05, 7) == (mixed, 5)
    # pushed again with more tasks, the gold pairs of before are among those of now
    more, _ = with_gold([*tasks, *(compared(number) for number in range(100, 195))], gold, 0.05, 7)
    known = {one.id for one in gold}
    assert {one.id for one in mixed} & known < {one.id for one in more} & known
    # they lie anywhere: over many seeds in the first half as often as in the second
    places = [place for seed in range(200) for place, one in enumerate(with_gold(tasks, gold, 0.05, seed)[0])
              if one.id in known]  # fmt: skip
    assert 421 < sum(place < 50 for place in places) < 579  # 1000 fair tosses, five standard deviations
    assert with_gold(tasks, gold, 0.9, 7)[1] == 40  # no more than there are
    assert with_gold(gold, gold, 0.05, 7)[1] == 0  # what is pushed anyway is not pushed twice


def test_gold_tells_of_people_and_is_no_preference(tmp_path: Path) -> None:
    fields = {"source": "rule:x", "provenance": Provenance(maker="rule:x")}
    pairs = [
        PreferencePair(prompt=prompt("Known"), chosen="b", rejected="a", strength=3, **fields),
        PreferencePair(prompt=prompt("Tied"), chosen="b", rejected="a", strength=0, **fields),
    ]
    jsonl.write(tmp_path / "gold.jsonl", pairs)
    gold, left_out = read_gold(str(tmp_path / "gold.jsonl"))
    assert [one.rule for one in left_out] == ["gold-is-a-tie"]
    jsonl.write(tmp_path / "tied.jsonl", pairs[1:])
    with pytest.raises(UserError, match="no pair with two answers"):
        read_gold(str(tmp_path / "tied.jsonl"))
    with EventLog(tmp_path / "log.sqlite") as log:
        # the log knew the pair before, its answers the other way round
        log.add_pairs([Comparison(prompt=prompt("Known"), first=response("a"), second=response("b")), compared(1)])
        log.add_pairs(gold)
        log.add_gold(gold)
        assert log.gold() == {gold[0].id: 1}
        shown = log.pairs()
        sides = {name: "AB"[pair.placed.index("b")] for name, pair in shown.items()}
        judged = [
            Annotation(
                id=number, task_id=number, pair_id=name, kind="annotation", annotator=1, updated_at="2026-11-29",
                result=({"from_name": "preference", "value": {"choices": [f"{side}2"]}},),
            )
            for number, (name, side) in enumerate(sides.items(), 1)
        ]  # fmt: skip
        work = from_log(shown, list(shown), judged, log.gold())
        assert [(one.gold, one.side == one.gold) for one in work.ratings if one.pair_id == gold[0].id] == [(1, True)]
        assert [one.gold for one in work.ratings if one.pair_id != gold[0].id] == [None]
        done = export(shown, list(shown), judged, log.gold())
    assert done.removed == {"gold": 1}
    assert (done.judged_pairs, len(done.preferences)) == (2, 1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"annotators": -1}, "must be 1 or more"),
        ({"gold_share": 1.0}, "must lie between 0 and 1"),
        ({"shares": "mixture.yaml"}, "needs a --limit"),
        ({"strategy": "uncertain"}, "needs --scores"),
        ({"scores": "scored.jsonl"}, "needs --scores"),
        ({"strategy": "uncertain", "scores": "s", "reward": "r"}, "needs --scores"),
        ({"strategy": "uncertain", "scores": "s", "pairs": "p"}, "are pairs already"),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        PushSettings(**settings)  # type: ignore[arg-type]
