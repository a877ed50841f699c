"""What annotators see: harmless text, a valid page, opaque tasks."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from annotation_helpers import prompt

from annotation.page import pair_page, read_guidelines, shipped_guidelines, task_data
from annotation.rendering import ALLOWED_TAGS, prompt_html, text_html
from annotation.vocabulary import FLAG_KEYS, LEVELS, Language
from finlm.errors import UserError
from finlm.records import Message

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "[press](javascript:alert(1))",
    "![picture](https://example.com/track.png)",
    "<https://example.com>",
    "[a]: javascript:alert(1)\n\n[a]",
    "<style>body{display:none}</style><iframe src=//example.com></iframe>",
    '<a href="x" onclick="y">z</a><!-- hidden --><div style="position:fixed">over everything</div>',
    "```html\n<script>alert(1)</script>\n```",
    "| a |\n|---|\n| <b onmouseover=x>cell</b> |",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    '</div></div><div class="fa-levels">',
    r"$$\text{<script>alert(1)</script>}$$",
    r"\(\text{<img src=x onerror=alert(1)>}\)",
    r"\(\href{javascript:alert(1)}{x}\)",
    r"$\class{fa-levels}{x}$ $\style{position:fixed}{x^2}$",
    "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>",
]


class Tags(HTMLParser):
    """Collects what a browser would make elements of, and the text it would show."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_becomes_live(attack: str) -> None:
    tags = Tags(text_html(f"before {attack} after"))
    wrapper, *inner = tags.found
    assert wrapper == ("div", [("class", "fa-text")])
    assert all(tag in ALLOWED_TAGS for tag, _ in inner)
    assert all(attributes == [] for tag, attributes in inner if tag != "math")
    assert all(set(dict(attributes)) <= {"display"} for tag, attributes in inner if tag == "math")


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "if a<b and b>c", "AT&T &amp; <T>", "[x](javascript:y)"])
def test_the_text_itself_is_shown(text: str) -> None:
    shown = text.replace("&amp;", "&")  # an entity is Markdown for its character
    assert shown in Tags(text_html(f"a {text} z")).text


def test_markdown_is_rendered() -> None:
    html = text_html("**7.4%**\nnext line\n\n| x | y |\n|---|--:|\n| 1 | 2 |\n\n- one\n- two")
    assert "<strong>7.4%</strong><br>" in html
    assert re.sub(r"\s", "", html).count("<td>") == 2
    assert html.count("<li>") == 2


@pytest.mark.parametrize("text", [r"\(\frac{a}{b}\)", r"$\frac{a}{b}$", "\\[\\frac{a}\n{b}\\]", "$$\\frac{a}{b}$$"])
def test_formulas_are_drawn(text: str) -> None:
    html = text_html(f"It is {text} by definition")
    # MathML Core: the first child is the numerator, the second the denominator
    found = re.search(r"<mfrac>(.*?)</mfrac>", html)
    assert found is not None
    assert re.sub(r"</?mrow>", "", found.group(1)) == "<mi>a</mi><mi>b</mi>"
    assert ('display="block"' in html) == (text[:2] in {"\\[", "$$"})


@pytest.mark.parametrize(
    "text",
    [
        "Revenue rose from $384.2 million to $412.6 million, or US$0.5 a share",
        "costs $5_a, then 6$7",
        "a price of $ 5^2 $ or so",
        r"\(\frac{\)",
        r"$\frac{$",
        "$$ $$",
        "$" + "x^" * 1500 + "$",
    ],
)
def test_money_and_what_cannot_be_read_is_no_formula(text: str) -> None:
    tags = Tags(text_html(text))
    assert [tag for tag, _ in tags.found if tag.startswith("m")] == []
    assert tags.text.strip() == text


def test_code_is_no_formula() -> None:
    assert text_html("`$x^2$`") == '<div class="fa-text"><p><code>$x^2$</code></p>\n</div>'


def test_turns_are_told_apart() -> None:
    turns = [Message(role="system", content="Be brief."), Message(role="user", content="One <b>?")]
    tags = Tags(prompt_html(turns))
    assert [attributes for tag, attributes in tags.found if tag == "div"][1:] == [
        [("class", "fa-turn fa-system")],
        [("class", "fa-turn fa-user")],
    ]
    assert "One <b>?" in tags.text


def test_a_task_tells_nothing_of_models() -> None:
    data = task_data("9f", prompt("Q", source="selfqa", group="Acme"), ["a", "b"])
    assert sorted(data) == ["a_html", "b_html", "pair_id", "prompt_html"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_has_all_levels_flags_and_the_version(language: Language) -> None:
    guidelines = read_guidelines(shipped_guidelines(language))
    root = ElementTree.fromstring(pair_page(language, guidelines))
    levels = root.findall(".//Choices[@name='preference']/Choice")
    assert [(one.get("alias"), one.get("hotkey")) for one in levels] == [
        (level, str(number)) for number, level in enumerate(LEVELS, 1)
    ]
    flags = root.findall(".//Choices[@name='flags']/Choice")
    assert {one.get("alias"): one.get("hotkey") for one in flags} == FLAG_KEYS
    # what is shown must differ, or a radio button could not be told from another
    assert len({one.get("value") for one in levels}) == 8
    assert guidelines.version in (root.find(".//Panel").get("value") or "")  # type: ignore[union-attr]
    markdown = root.find(".//Panel/View/Markdown")  # directly in a Panel the browser refuses it
    assert markdown is not None
    assert markdown.get("value") == guidelines.text  # line breaks and all
    # the server drops a style rule with a child combinator
    assert ">" not in (root.findtext(".//Style") or "")


def test_languages_store_the_same() -> None:
    stored = []
    for language in ("en", "zh"):
        root = ElementTree.fromstring(pair_page(language, read_guidelines(shipped_guidelines(language))))
        stored.append([(one.get("name"), one.get("alias")) for one in root.iter() if one.tag in {"Choices", "Choice"}])
    assert stored[0] == stored[1]


def test_guidelines_cannot_break_the_page(tmp_path: Path) -> None:
    path = tmp_path / "own.md"
    path.write_text('Version 2-b\n\n"A" & <B> {{ levels }}\n\n"/></View>', encoding="utf-8")
    guidelines = read_guidelines(path)
    root = ElementTree.fromstring(pair_page("en", guidelines))
    markdown = root.find(".//Markdown")
    assert markdown is not None
    assert markdown.get("value") == '"A" & <B> {{ levels }}\n\n"/></View>'


@pytest.mark.parametrize("text", ["No version here\n\nText", "Version 1.0\n\n", "", "Version one point zero\n\nText"])
def test_guidelines_need_a_version_and_a_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="first line must be like"):
        read_guidelines(path)


def test_guidelines_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_guidelines(tmp_path / "none.md")
    (tmp_path / "gbk.md").write_bytes("版本 1.0\n\n规范".encode("gbk"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_guidelines(tmp_path / "gbk.md")
