"""The report page: safe, self-contained, deterministic, and honest about what is missing."""

import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from finlm.report import (
    Answer,
    Browser,
    Curve,
    Entry,
    EntryGroup,
    Figure,
    Figures,
    Funnel,
    Notes,
    Order,
    Page,
    Sample,
    Samples,
    Series,
    Step,
    Table,
    render,
    shown,
    write,
)

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'> {{ 7 * 7 }}"


def whole_page(text: str = "Revenue was $412.6 million.") -> Page:
    return Page(
        f"Demo {text}",
        text,
        (
            Figures("At a glance", (Figure("Reward", 0.74, "score", text), Figure(text, None)), text),
            Curve("Reward", "update", "score", (Series("PPO", (1, 2, 3), (-0.3, 0.1, 0.7)),), text, band=(0.0, 1.0)),
            Curve(f"KL {text}", text, text, (Series(text, (1, 2), (0.1, 0.2)),)),
            Table(f"Evaluation {text}", ("Model", "Right"), ((text, 0.5), ("PPO", None)), text),
            Funnel("Self-QA", (Step("candidates", 200), Step(text, 50, text)), text),
            Samples(
                "Answers",
                ("SFT", text),
                (Sample(text, (Answer(text, 0.5, True, False), Answer("", None, False, True)), text),),
                text,
            ),
            Browser(
                f"Browse {text}",
                (f"score {text}", "tokens"),
                (Order("highest", 0), Order(text, 1, descending=False)),
                (
                    EntryGroup(
                        text, (Entry(f"{text}\n\n{text}", text, (0.5, 3)), Entry("?", "", (1.5, 7), False)), text
                    ),
                ),
                text,
            ),
            Notes("How to read", text),
        ),
    )


class Reader(HTMLParser):
    """What a browser would make of the page: its elements and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: Page) -> Reader:
    reader = Reader()
    reader.feed(render(page))
    return reader


def test_text_never_becomes_live_html() -> None:
    reader = parsed(whole_page(ATTACK))
    assert "script" not in reader.tags
    assert "img" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    # head 3, figures 3, curves 5, table 3, funnel 3, samples 5, notes 1, browser 11 (title, order, group 2, measure 2,
    # the prompt's ending and the whole 3, answer, remark): what went in stands there unchanged
    assert reader.text.count(ATTACK) == 34


def test_the_same_page_gives_the_same_bytes(tmp_path: Path) -> None:
    write(whole_page(), tmp_path / "a.html")
    write(whole_page(), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_the_page_needs_nothing_from_outside() -> None:
    html = render(whole_page())
    assert "://" not in html
    assert "<script" not in html
    assert "@import" not in html
    addresses = [value for name, value in parsed(whole_page()).attributes if name in ("src", "href", "xlink:href")]
    assert addresses, "tick marks are used by reference"
    assert all(value is not None and value.startswith("#") for value in addresses)
    assert not re.findall(r"url\((?!#)", html)


def test_ids_are_unique_and_references_resolve() -> None:
    html = render(whole_page())
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_every_curve_is_drawn_with_its_series() -> None:
    curves = tuple(
        Curve(f"curve {number}", "step", "loss", (Series(f"series {number}", (0, 1), (number, number + 1)),))
        for number in range(5)
    )
    reader = parsed(Page("p", "", (*curves[:3], Notes("between", "text"), *curves[3:])))
    assert reader.tags.count("svg") == 5
    for number in range(5):
        assert f"curve {number}" in reader.text
        assert f"series {number} last {number + 1}" in reader.text


def test_no_drawing_keeps_a_colour_of_its_own() -> None:
    html = render(whole_page())
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawings))
    assert {colour for colour in colours if not colour.startswith("var(--")} <= {"none"}


def test_more_series_than_colours_are_dashed() -> None:
    many = tuple(Series(f"s{number}", (0, 1), (0, number)) for number in range(8))
    html = render(Page("p", "", (Curve("many", "x", "y", many),)))
    assert html.count('class="dashed"') == 2
    assert html.count("stroke-dasharray") == 2


@pytest.mark.parametrize("series", [(), (Series("PPO", (), ()),), (Series("PPO", (1, 2), (math.nan, math.inf)),)])
def test_an_empty_curve_says_so(series: tuple[Series, ...]) -> None:
    reader = parsed(Page("p", "", (Curve("Reward", "update", "score", series),)))
    assert "svg" not in reader.tags
    assert "No values were recorded" in reader.text


def test_gaps_are_counted() -> None:
    curve = Curve("KL", "update", "nats", (Series("PPO", (1, 2, 3), (0.5, math.nan, 0.7)),))
    reader = parsed(Page("p", "", (curve,)))
    assert "1 value is not finite and leaves a gap." in reader.text
    assert "last 0.7" in reader.text


def test_a_long_prompt_is_folded_and_shows_its_question() -> None:
    passage = "Net sales rose. " * 60 + "\n\nWhat were net sales in 2024?"
    reader = parsed(Page("p", "", (Samples("Answers", ("SFT",), (Sample(passage, (Answer("$1 million"),)),)),)))
    assert "details" in reader.tags
    assert reader.text.count("What were net sales in 2024?") == 2
    assert passage in reader.text
    short = parsed(Page("p", "", (Samples("Answers", ("SFT",), (Sample("Why?", (Answer("$1"),)),)),)))
    assert "details" not in short.tags


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ValueError, match="'PPO' has 2 x and 1 y"):
        Series("PPO", (1, 2), (1,))
    with pytest.raises(ValueError, match="row 2 has 1 cells, 2 wanted"):
        Table("t", ("a", "b"), ((1, 2), (3,)))
    with pytest.raises(ValueError, match="1 answers to 'Why"):
        Samples("s", ("SFT", "PPO"), (Sample("Why?", (Answer("x"),)),))


def test_numbers_are_readable() -> None:
    cells = [1234567, 0.123456, 12345.6, None, "x", True, 0, -1.5, 1e-7]
    assert [shown(cell) for cell in cells] == ["1,234,567", "0.123", "12,346", "–", "x", "yes", "0", "-1.5", "1e-07"]


def test_a_funnel_is_in_proportion() -> None:
    funnel = Funnel("Self-QA", (Step("in", 200), Step("kept", 50), Step("none", 0)))
    assert [funnel.share(step) for step in funnel.steps] == [100, 25, 0]
    assert Funnel("empty", (Step("in", 0),)).share(Step("in", 0)) == 0


@pytest.mark.browser
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    write(whole_page("净利润增长7.4%"), tmp_path / "page.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(tmp_path / "page.html")]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count("<svg") == 2
    assert "净利润增长7.4%" in dom


# ------------------------------------------------------------------------------------------------ browsing


def test_a_browser_ranks_each_group_in_every_order() -> None:
    entries = tuple(Entry("?", "", numbers) for numbers in ((0.5, 30), (2.0, 10), (-1.0, 20)))
    group = EntryGroup("g", entries)
    browser = Browser("b", ("score", "tokens"), (Order("high", 0), Order("short", 1, descending=False)), (group,))
    assert browser.ranks(group) == [[1, 2], [0, 0], [2, 1]]
    assert [browser.level(entry) for entry in entries] == [50.0, 100.0, 0.0]
    alike = Browser("b", ("score",), (), (EntryGroup("g", (Entry("?", "", (1.0,)),)),))
    assert alike.level(alike.groups[0].entries[0]) == 50.0


def test_a_browser_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="1 numbers for '\\?', 2 wanted"):
        Browser("b", ("score", "tokens"), (), (EntryGroup("g", (Entry("?", "", (1.0,)),)),))
    with pytest.raises(ValueError, match="7 orders, 6 at most"):
        Browser("b", ("score",), tuple(Order(str(number), 0) for number in range(7)), ())


def test_a_question_is_shown_and_its_passage_folded() -> None:
    assert Entry("Passage.\n\nWhy?", "", ()).is_folded
    assert Entry("Passage.\n\nWhy?", "", ()).ending == "Why?"
    assert not Entry("Why?", "", ()).is_folded
