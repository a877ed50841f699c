"""The page of a fine-tuning run: its numbers are those of the records, and it is honest about what is not there."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from finlm import config, forgetting, jsonl, report, runs, sft_report
from finlm.errors import MissingInput, UserError
from finlm.metrics import append_metrics
from finlm.records import Removal
from finlm.sft_page import SHOWN_REASON, page_of, write_sft_page
from finlm.sft_records import (
    STREAMS,
    CategoryLoss,
    Drawn,
    HeldOutLoss,
    Mixed,
    MixtureRound,
    read_held_out,
    read_mixture,
)

ATTACK = "<script>alert(1)</script>[red]\x1b[2J"
TOKENS = {"text-general": 3000, "text-finance": 2000, "instructions-general": 400, "instructions-finance": 600}
BEFORE = {"text-general": 3.0, "text-finance": 2.8, "instructions-general": 2.4, "instructions-finance": 2.6}


def evaluation(step: int, moved: dict[str, float]) -> HeldOutLoss:
    """English has three quarters of the tokens and lies 0.1 below what Chinese lies 0.3 above: the mean is as said."""
    categories = []
    for stream in STREAMS:
        loss = BEFORE[stream] + moved.get(stream, 0.0)
        for language, share, offset in (("en", 3, -0.1), ("zh", 1, 0.3)):
            tokens = TOKENS[stream] * share // 4
            categories.append(
                CategoryLoss(stream=stream, language=language, loss=loss + offset, tokens=tokens, samples=16)
            )
    return HeldOutLoss(step=step, categories=tuple(categories))


def mixture() -> Mixed:
    """Two rounds that have ended and one that was begun."""
    even = dict.fromkeys(STREAMS, 0.25)
    reasons = dict.fromkeys(STREAMS, "the settings' share")
    first = {name: Drawn(samples=10, tokens=1000, learned=500, passes=0.5) for name in STREAMS}
    second = first | {
        "text-general": Drawn(samples=4, tokens=500, learned=499, passes=0.75),
        "instructions-finance": Drawn(samples=30, tokens=1500, learned=600, passes=1.25),
    }
    later = even | {"text-general": 0.125, "instructions-finance": 0.375}
    why = reasons | {"instructions-finance": f"its loss is the highest: 2.4 {ATTACK}"}
    return Mixed(
        rounds=(
            MixtureRound(number=0, first_step=0, shares=even, reasons=reasons, drawn=first),
            MixtureRound(number=1, first_step=20, shares=later, reasons=why, drawn=second),
            MixtureRound(number=2, first_step=40, shares=later, reasons=dict.fromkeys(STREAMS, "kept"), drawn={}),
        ),
        row_tokens=100,
        rows=80,
        filled=0.975,
    )


def write_run(folder: Path, moved: dict[str, float], mixed: Mixed | None = None) -> Path:
    """A run of 60 steps, evaluated at 0, 20, 40 and 60, whose losses move evenly."""
    for step in range(1, 61):
        append_metrics(folder / "metrics.jsonl", step, {"loss": 3 - step / 60, "learning_rate": 1e-4 * (61 - step)})
    parts = [evaluation(step, {name: by * step / 60 for name, by in moved.items()}) for step in (0, 20, 40, 60)]
    jsonl.write(folder / "held_out.jsonl", parts)
    runs.write_json(folder / "mixture.json", asdict(mixed or mixture()))
    long = [Removal(record_id=f"{number}", rule="too-long", reason=f"{2100 + number} tokens") for number in range(3)]
    empty = Removal(record_id="e", rule=f"empty {ATTACK}", reason=f"{ATTACK} {'x' * 500}", text=ATTACK)
    jsonl.write(folder / "rejected.jsonl", [empty, *long])
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(
        tmp_path / "runs" / "sft",
        {"text-general": 0.06, "text-finance": -0.09, "instructions-general": -0.6, "instructions-finance": -0.9},
    )


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The arm without text."""
    moved = {"text-general": 0.15, "text-finance": -0.03, "instructions-general": -0.6, "instructions-finance": -0.9}
    return write_run(tmp_path / "runs" / "sft-without-text", moved)


def section(page: report.Page, title: str) -> report.Section:
    return {one.title: one for one in page.sections}[title]


def rows(page: report.Page, title: str) -> tuple[tuple[report.Cell, ...], ...]:
    table = section(page, title)
    assert isinstance(table, report.Table)
    return table.rows


def curve(page: report.Page, title: str) -> dict[str, report.Series]:
    found = section(page, title)
    assert isinstance(found, report.Curve)
    return {one.name: one for one in found.series}


class Reader(HTMLParser):
    """Tags and text of a page, and that each tag is closed by its own."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


# ------------------------------------------------------------------------------------------------ the numbers


def test_losses_before_and_after_are_those_of_the_records(run: Path) -> None:
    table = rows(page_of(run), "Held-out loss before and after")
    assert len(table) == 12  # four streams, in all languages, in English, in Chinese
    # 3.0 and 3.06; a rise of 0.06 / 3.0; the lowest was the first
    assert table[0] == ("text-general", "all", "3.0000", "3.0600", "+0.0600", "+2.0%", "3.0000", 0, 3000)
    assert table[1] == ("text-general", "en", "2.9000", "2.9600", "+0.0600", "+2.1%", "2.9000", 0, 2250)
    assert table[2] == ("text-general", "zh", "3.3000", "3.3600", "+0.0600", "+1.8%", "3.3000", 0, 750)
    finance = ("instructions-finance", "all", "2.6000", "1.7000", "-0.9000", "-34.6%", "1.7000", 60, 600)
    assert finance in table


def test_curves_go_through_every_evaluation(run: Path) -> None:
    page = page_of(run)
    whole = curve(page, "Held-out loss by stream")
    assert list(whole) == list(STREAMS)
    assert whole["text-general"].x == (0, 20, 40, 60)
    assert whole["text-general"].y == pytest.approx((3.0, 3.02, 3.04, 3.06))
    moved = curve(page, "Held-out loss: change")
    assert moved["instructions-finance"].y == pytest.approx((0, -0.3, -0.6, -0.9))
    spoken = curve(page, "Held out: instructions-general")
    assert spoken["zh"].y == pytest.approx((2.7, 2.5, 2.3, 2.1))
    training = curve(page, "Training loss")
    assert training["each step"].y[-1] == 2.0
    smooth = training["mean of 20 steps"]
    assert smooth.x == tuple(range(20, 61))
    assert smooth.y[0] == pytest.approx(3 - 10.5 / 60)  # the mean of 1 to 20 is 10.5


def test_forgetting_beside_an_arm_without_text(run: Path, plain: Path) -> None:
    page = page_of(run, [plain])
    table = rows(page, "Forgetting")
    assert table[0] == ("text-general", "all", "sft", "3.0000", "3.0600", "+0.0600", "")
    # 0.06 of 0.15
    assert table[1] == ("text-general", "all", "sft-without-text", "3.0000", "3.1500", "+0.1500", "0.40")
    assert {row[0] for row in table} == {"text-general", "text-finance"}
    assert [row[0] for row in table] == sorted((row[0] for row in table), reverse=True)  # general first
    assert table[7] == (
        "text-finance",
        "all",
        "sft-without-text",
        "2.8000",
        "2.7700",
        "-0.0300",
        "its loss did not rise",
    )
    figure = next(one for one in section(page, "In short").figures if one.label == "Held out: text-general")  # type: ignore[union-attr]
    assert figure.value == "3.060"
    assert figure.remark == "+0.060, before 3.000; 0.40 of the rise of sft-without-text"
    # two rounds of text-general, text-finance; instructions-general, instructions-finance
    learned = (500 + 499 + 500 + 500, 500 + 500 + 500 + 600)
    assert rows(page, "What these runs had learned from")[1] == ("sft-without-text", 60, learned[1], learned[0])
    turned = rows(page_of(plain, [run]), "Forgetting")
    assert [row[-1] for row in turned if row[2] == "sft"] == ["2.50"] * 3 + ["its loss did not rise"] * 3
    alone = rows(page_of(run), "Forgetting")
    assert alone[0] == ("text-general", "all", "sft", "3.0000", "3.0600", "+0.0600")


def test_a_run_that_forgets_nothing_has_no_share_of_a_rise(run: Path, tmp_path: Path) -> None:
    better = write_run(tmp_path / "better", {"text-general": -0.06})
    page = page_of(better, [run])
    assert rows(page, "Forgetting")[1][-1] == "only its loss rose"
    assert "of the rise" not in report.render(page)


def test_runs_that_do_not_compare_are_not_compared(run: Path, plain: Path) -> None:
    records = read_held_out(plain)
    fewer = [
        replace(one, categories=tuple(replace(part, tokens=part.tokens // 2) for part in one.categories))
        for one in records
    ]
    jsonl.write(plain / "held_out.jsonl", fewer)
    page = page_of(run, [plain])
    assert rows(page, "Forgetting")[1][-1] == "does not compare"
    assert "sft-without-text did not begin at the same loss" in section(page, "Forgetting").remark  # type: ignore[union-attr]
    assert "of the rise" not in report.render(page)
    jsonl.write(plain / "held_out.jsonl", [replace(one, categories=one.categories[-1:]) for one in records])
    assert rows(page_of(run, [plain]), "Forgetting")[1][3:] == (None, None, None, "not tested on it")


def test_a_ratio_needs_a_rise_to_be_one_of() -> None:
    def change(before: float, after: float | None) -> forgetting.Change:
        return forgetting.Change(
            stream="text-general", language=None, before=before, after=after, lowest=before, lowest_step=0, tokens=9
        )

    assert forgetting.ratio(change(3.0, 3.1), change(3.0, 3.4)) == pytest.approx(0.25)
    assert forgetting.ratio(change(3.0, 2.9), change(3.0, 3.1)) == pytest.approx(-1.0)
    assert forgetting.ratio(change(3.0, 3.1), change(3.0, 2.9)) is None
    assert forgetting.ratio(change(3.0, None), change(3.0, 3.1)) is None
    assert forgetting.ratio(change(3.0, 3.1), change(3.1, 3.4)) is None


def test_mixture_is_shown_as_it_was_drawn(run: Path) -> None:
    page = page_of(run)
    areas = section(page, "Shares of the mixture")
    assert isinstance(areas, report.Curve)
    assert areas.is_stacked
    series = {one.name: one for one in areas.series}
    assert series["text-general"].x == (0, 20, 40, 60)
    assert series["text-general"].y == (0.25, 0.125, 0.125, 0.125)
    passes = curve(page, "Passes through each stream")["instructions-finance"]
    assert (passes.x, passes.y) == ((0, 20, 40), (0, 0.5, 1.25))
    moves = rows(page, "How the shares moved")
    assert len(moves) == 12
    assert moves[0] == (0, 0, "text-general", "25.0%", None, "the settings' share")
    assert moves[4] == (1, 20, "text-general", "12.5%", "-12.5", "the settings' share")
    assert moves[7][:5] == (1, 20, "instructions-finance", "37.5%", "+12.5")
    drawn = rows(page, "What was drawn")
    # both rounds drew 4,000 tokens: the target is half way between 25 % and 12.5 %
    assert drawn[0] == ("all", "text-general", "18.8%", "18.8%", 14, 1500, 999, "0.75")
    assert drawn[7] == ("0", "instructions-finance", "25.0%", "25.0%", 10, 1000, 500, "0.50")
    assert drawn[11] == ("1", "instructions-finance", "37.5%", "37.5%", 30, 1500, 600, "1.25")
    assert len(drawn) == 12
    assert "Round 2 has not ended" in section(page, "What was drawn").remark  # type: ignore[union-attr]
    packing = {one.label: one.value for one in section(page, "Packing").figures}  # type: ignore[union-attr]
    # 80 rows of 100 tokens, 97.5 % of them
    assert packing == {"Rows": 80, "Filled": "97.50%", "Tokens": 7800, "Left empty": 200}


def test_set_aside_by_rule_adds_up(run: Path) -> None:
    page = page_of(run)
    table = rows(page, "Set aside")
    assert table[0] == ("too-long", 3, "75.0%", "2100 tokens")
    assert sum(row[1] for row in table) == 4  # type: ignore[misc]
    assert len(str(table[1][3])) == SHOWN_REASON
    assert "4 in all" in section(page, "Set aside").remark  # type: ignore[union-attr]


def test_every_number_of_the_tables_stands_on_the_page(run: Path, plain: Path) -> None:
    page = page_of(run, [plain])
    reader = read(report.render(page))
    tables = [one for one in page.sections if isinstance(one, report.Table)]
    assert len(tables) == 6
    for table in tables:
        for cells in table.rows:
            assert re.search(r"\s*".join(re.escape(report.shown(cell)) for cell in cells), reader.text), cells
    assert "svg" in reader.tags


# ------------------------------------------------------------------------------------------------ safe, the same


def test_page_holds_text_harmlessly(run: Path) -> None:
    write_sft_page(run, run / "report.html")
    html = (run / "report.html").read_text(encoding="utf-8")
    reader = read(html)
    assert "script" not in reader.tags
    assert "\x1b" not in html
    assert "://" not in html
    # a move's reason, a rule, and the first reason of that rule
    assert reader.text.count("<script>alert(1)</script>[red]␛[2J") == 3


def test_same_run_elsewhere_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "b" / "sft"
    shutil.copytree(run, elsewhere)
    write_sft_page(run, tmp_path / "a.html")
    write_sft_page(elsewhere, elsewhere / "report.html")
    assert (tmp_path / "a.html").read_bytes() == (elsewhere / "report.html").read_bytes()


# ------------------------------------------------------------------------------------------------ not all there


def test_a_run_that_has_only_begun_says_what_is_not_there(tmp_path: Path, plain: Path) -> None:
    run = tmp_path / "sft"
    run.mkdir()
    runs.write_json(run / "run.json", {"stage": "sft", "status": "running", "settings": {"steps": 400}, "counts": {}})
    page = page_of(run, [plain])
    assert page.subtitle == "sft: 0 of 400 steps"
    told = section(page, "Not there").text  # type: ignore[union-attr]
    for name in ("metrics.jsonl", "held_out.jsonl", "mixture.json", "rejected.jsonl"):
        assert f"sft has no {name}:" in told
    assert "sft-without-text has no" not in told
    assert "No values were recorded" in read(report.render(page)).text


def test_a_run_before_its_first_step(run: Path, plain: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (plain / "held_out.jsonl").unlink()
    jsonl.write(run / "held_out.jsonl", read_held_out(run)[:1])
    mixed = mixture()
    runs.write_json(run / "mixture.json", asdict(replace(mixed, rounds=(replace(mixed.rounds[0], drawn={}),), rows=0)))
    page = page_of(run, [plain])
    first = ("text-general", "all", "3.0000", None, None, None, "3.0000", 0, 3000)
    assert rows(page, "Held-out loss before and after")[0] == first
    assert rows(page, "Forgetting")[0] == ("text-general", "all", "sft", "3.0000", None, None, "")
    assert rows(page, "What these runs had learned from")[0] == ("sft", 0, 0, 0)
    assert rows(page, "What was drawn") == ()
    assert "Shares of the mixture" not in [one.title for one in page.sections]
    assert "sft-without-text has no held_out.jsonl:" in section(page, "Not there").text  # type: ignore[union-attr]
    read(report.render(page))


def test_a_single_round_without_text_and_without_languages(run: Path) -> None:
    names = ("instructions-general", "instructions-finance")
    categories = tuple(
        CategoryLoss(stream=name, language="", loss=2.0, tokens=10, samples=1)  # type: ignore[arg-type]
        for name in names
    )
    jsonl.write(run / "held_out.jsonl", [HeldOutLoss(step=step, categories=categories) for step in (0, 60)])
    drawn = {name: Drawn(samples=1, tokens=50, learned=5, passes=0.1) for name in names}
    halves = dict.fromkeys(names, 0.5)
    only = MixtureRound(number=0, first_step=0, shares=halves, reasons={}, drawn=drawn)
    runs.write_json(run / "mixture.json", asdict(Mixed(rounds=(only,), row_tokens=100, rows=1, filled=1.0)))
    page = page_of(run)
    assert "nothing is known of what was forgotten" in section(page, "Forgetting").text  # type: ignore[union-attr]
    assert [row[:2] for row in rows(page, "Held-out loss before and after")] == [(name, "all") for name in names]
    assert [row[0] for row in rows(page, "What was drawn")] == ["0", "0"]
    areas = curve(page, "Shares of the mixture")
    assert areas["instructions-general"].x == (0, 60)
    assert areas["instructions-general"].y == (0.5, 0.5)
    read(report.render(page))


def test_what_cannot_be_read_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"SFT run not found at .*none"):
        page_of(run, [tmp_path / "none"])
    with pytest.raises(UserError, match="One run is named twice"):
        page_of(run, [run])
    mixed = json.loads((run / "mixture.json").read_text())
    mixed["rounds"][1]["shares"]["text-general"] = 0.5
    runs.write_json(run / "mixture.json", mixed)
    with pytest.raises(UserError, match=r"mixture\.json: not a valid Mixed: the shares of round 1 sum to 1\.375"):
        read_mixture(run)
    (run / "held_out.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(UserError, match=r"held_out\.jsonl:1: not a valid HeldOutLoss"):
        page_of(run)


def test_an_evaluation_that_a_resumed_run_repeats_counts_once(run: Path) -> None:
    again = [evaluation(40, {}), evaluation(20, {}), evaluation(40, {"text-general": 1.0})]
    jsonl.write(run / "held_out.jsonl", again)
    found = read_held_out(run)
    assert [one.step for one in found] == [20, 40]
    assert found[1].of("text-general") == pytest.approx(4.0)


def test_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "second" / "sft", {"text-general": 0.5})
    assert {row[2] for row in rows(page_of(run, [other]), "Forgetting")} == {"runs/sft", "second/sft"}


# ------------------------------------------------------------------------------------------------ the command


def test_command_writes_the_page(
    run: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--runs", "runs", "--others", f"[{plain}]"]
    sft_report.main(config.parse(sft_report.SFTReportSettings, "", flags))
    assert "sft-report: runs/sft/report.html" in capsys.readouterr().out
    assert "sft-without-text" in (run / "report.html").read_text(encoding="utf-8")
    sft_report.main(config.parse(sft_report.SFTReportSettings, "", ["--runs", "runs", "--html", "a/b.html"]))
    assert "Mixed fine-tuning" in Path("a/b.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ piled-up areas


def test_areas_are_piled_up() -> None:
    lower, upper = report.Series("a", (0, 10, 20), (0.25, 0.5, 0.5)), report.Series("b", (0, 10, 20), (0.75, 0.5, 0.5))
    html = report.render(report.Page("p", "", (report.Curve("s", "step", "share", (lower, upper), is_stacked=True),)))
    shapes = re.findall(r'<path d="([^"]*)"[^>]*style="fill: var\(--series-\d\)', html)
    assert len(shapes) == 2
    corners = [[float(number) for number in re.findall(r"-?[\d.]+", shape)] for shape in shapes]
    (low, high) = [(min(one[1::2]), max(one[1::2])) for one in corners]
    whole = low[1] - high[0]  # from the bottom of one to the top of the other, y runs downwards
    assert math.isclose(low[1] - low[0], whole / 2, abs_tol=0.01)  # "a" is half as high as both at its highest
    assert math.isclose(high[1], low[1] - whole / 4, abs_tol=0.01)  # "b" begins where "a" is a quarter
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    with pytest.raises(ValueError, match="piles up series over different x"):
        report.Curve("s", "step", "share", (lower, report.Series("b", (0, 5), (1, 1))), is_stacked=True)


@pytest.mark.browser
def test_a_browser_shows_the_page(run: Path, plain: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    write_sft_page(run, tmp_path / "page.html", [plain])
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(tmp_path / "page.html")]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count("<svg") == 10  # loss, rate, two over all streams, four by language, shares, passes
    assert "<script" not in dom
