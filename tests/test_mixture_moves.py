"""Shares that move: by hand, within bounds, to a sum of one."""

import pytest

from finlm.bounded import scaled_to_one
from finlm.mixture_moves import MixtureMoves, decide, moved
from finlm.sft_records import CategoryLoss, HeldOutLoss, StreamName

FIRST: dict[str, float] = {
    "text-general": 0.2,
    "text-finance": 0.2,
    "instructions-general": 0.3,
    "instructions-finance": 0.3,
}


def losses(step: int, **by_stream: float) -> HeldOutLoss:
    return HeldOutLoss(
        step=step,
        categories=tuple(
            CategoryLoss(stream=_name(name), language="en", loss=loss, tokens=100, samples=4)
            for name, loss in by_stream.items()
        ),
    )


def _name(text: str) -> StreamName:
    return text.replace("_", "-")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("stream", "its", "passes", "left", "wanted"),
    [
        ("instructions-general", [2.0, 1.5, 1.4], 0.5, 0.6, (1, "high")),  # 70 % is left of it, 60 % on average
        ("instructions-general", [2.0, 1.5, 1.1], 0.5, 0.6, (0, "kept")),
        ("instructions-general", [2.0, 1.5, 1.499], 0.5, 0.6, (-1, "converged")),
        ("instructions-general", [2.0, 1.5, 1.6], 2.5, 0.6, (-1, "overfits")),
        ("instructions-general", [2.0, 1.5, 1.6], 0.5, 0.6, (-1, "overfits")),
        ("text-general", [3.0, 3.2], 0.3, 0.9, (1, "forgotten")),  # unseen text: what is lost is what was known
        ("text-general", [3.0, 2.8, 3.0], 3.0, 0.9, (-1, "overfits")),
    ],
)
def test_decisions(stream: str, its: list[float], passes: float, left: float, wanted: tuple[int, str]) -> None:
    direction, why = decide(stream, its, passes, left, 0.005)
    assert (direction, why.split(":")[0]) == wanted


def test_shares_move_by_hand() -> None:
    history = [
        losses(0, text_general=3.0, text_finance=3.0, instructions_general=2.0, instructions_finance=2.0),
        losses(50, text_general=3.3, text_finance=2.9, instructions_general=1.0, instructions_finance=1.9),
    ]
    shares, reasons = moved(
        FIRST, FIRST, history, dict.fromkeys(FIRST, 0.4), MixtureMoves(every=50, step=2.0, most=4.0, among="all")
    )
    # left: 1.1, 0.967, 0.5, 0.95: 0.879 on average. Raised: forgotten text-general, high text-finance and
    # instructions-finance; instructions-general falls and is kept: 0.4 + 0.4 + 0.3 + 0.6 = 1.7 parts
    assert shares == pytest.approx(
        {"text-general": 4 / 17, "text-finance": 4 / 17, "instructions-general": 3 / 17, "instructions-finance": 6 / 17}
    )
    assert reasons["text-general"].startswith("forgotten: 3.300 after 3.000")


def test_text_keeps_its_part_where_shares_move_within_a_kind() -> None:
    history = [
        losses(0, text_general=3.0, text_finance=3.0, instructions_general=2.0, instructions_finance=2.0),
        losses(50, text_general=2.9, text_finance=2.0, instructions_general=1.0, instructions_finance=1.5),
    ]
    shares, reasons = moved(FIRST, FIRST, history, dict.fromkeys(FIRST, 0.4), MixtureMoves(every=50, step=2.0))
    # of the texts 97 % and 67 % are left, 82 % on average: 0.4 + 0.2 parts of 0.4; of the answers 50 % and 75 %:
    # 0.3 + 0.6 parts of 0.6. Against all (72 % on average) the answers of finance would have stood below text-general
    assert shares == pytest.approx(
        {
            "text-general": 0.4 * 2 / 3,
            "text-finance": 0.4 / 3,
            "instructions-general": 0.2,
            "instructions-finance": 0.4,
        }
    )
    assert reasons["instructions-finance"] == "high: 75% of its first loss is left, 62% on average"


def test_a_stream_alone_of_its_kind_keeps_its_share() -> None:
    first = {"text-general": 0.25, "text-finance": 0.0, "instructions-general": 0.75, "instructions-finance": 0.0}
    history = [losses(step, text_general=3.0, instructions_general=2.0 - step) for step in (0, 1)]
    shares, _ = moved(first, first, history, dict.fromkeys(first, 1.0), MixtureMoves(every=1))
    assert shares == pytest.approx(first)


def test_bounds_hold_for_ever() -> None:
    shares, moves = dict(FIRST), MixtureMoves(every=1, step=3.0, among="all")
    history = [losses(0, text_general=3.0, text_finance=3.0, instructions_general=2.0, instructions_finance=2.0)]
    for step in range(1, 12):  # one stream always high, the others converged
        history.append(
            losses(
                step, text_general=3.0, text_finance=3.0, instructions_general=2.0, instructions_finance=2.0 - step / 20
            )
        )
        shares, _ = moved(shares, FIRST, history, dict.fromkeys(FIRST, 2.0), moves)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
        for name, share in shares.items():
            assert 0.5 * FIRST[name] - 1e-9 <= share <= 2 * FIRST[name] + 1e-9
    assert shares["instructions-finance"] == pytest.approx(0.6)


def test_a_stream_without_share_or_held_out_rows() -> None:
    first = FIRST | {"text-general": 0.0, "text-finance": 0.4}
    history = [losses(0, instructions_general=2.0), losses(9, instructions_general=1.5)]
    shares, reasons = moved(first, first, history, {}, MixtureMoves(every=9))
    assert shares["text-general"] == 0
    assert set(reasons) == {"text-finance", "instructions-general", "instructions-finance"}
    assert reasons["text-finance"] == "no held-out rows: its share is kept"
    assert sum(shares.values()) == pytest.approx(1)


def test_scaling_and_its_limits() -> None:
    found = scaled_to_one({"a": 1.0, "b": 1.0, "c": 2.0}, dict.fromkeys("abc", 0.0), {"a": 0.1, "b": 1.0, "c": 1.0})
    assert found == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6})  # what a may not have, b and c share as 1 : 2
    with pytest.raises(ValueError, match="do not allow 1"):
        scaled_to_one({"a": 1.0}, {"a": 0.0}, {"a": 0.5})
    with pytest.raises(ValueError, match="no share is above zero"):
        scaled_to_one({"a": 0.0}, {"a": 0.0}, {"a": 1.0})
    for bad in ({"step": 1.0}, {"every": -1}, {"least": 1.5}, {"tolerance": 1.0}):
        with pytest.raises(ValueError, match="mixture"):
            MixtureMoves(**bad)  # type: ignore[arg-type]
