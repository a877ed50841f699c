"""Both pages, in both languages, as they look: on a laptop and on a phone, light and dark."""

from pathlib import Path
from typing import Any, get_args

import pytest
from annotation_helpers import Served, open_stream, prompt

from annotation.page import labelling_page, read_guidelines, shipped_guidelines, task_data
from annotation.vocabulary import FAULT_KEYS, PLACES, RANK_KEYS, SET_FLAG_KEYS, Language, PageKind
from finlm.records import Message, Prompt

pytestmark = pytest.mark.browser

LAPTOP, PHONE = (1366, 768), (390, 844)
READABLE = 4.5
"""Contrast of text to its background, WCAG 2.2, level AA."""
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
TABLE = "\n\n| 项目 | 2023年 | 2024年 |\n|---|---|---|\n| 营业收入 | 384.2 | 412.6 |\n"
ANSWERS = (
    f"Growth was **7.4%**.{TABLE}\n1. one\n2. two\n\n`x = 412.6 / 384.2 - 1`\n\n> p. 12" + "\n\nMore." * 30,
    "12345678901234567890" * 20,  # no place to break a line
    "毛利率下降了两个百分点。",
    r"- a \(\sqrt{x^2}\)" + "\n- b",
)
TURNS = tuple(Message(role=role, content=f"{role}?{TABLE}") for role in ("system", "user", "assistant", "user"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "language"),
    [
        ("pairs", "en"),
        ("ranks", "zh"),
        pytest.param("pairs", "zh", marks=pytest.mark.slow),
        pytest.param("ranks", "en", marks=pytest.mark.slow),
    ],
)
def test_pages_fit_and_are_readable(
    kind: PageKind, language: Language, label_studio: Served, visit: Any, tmp_path: Path
) -> None:
    page_config = labelling_page(kind, language, read_guidelines(shipped_guidelines(language, kind)))
    answers = ANSWERS[: 2 if kind == "pairs" else 4]
    with label_studio.client() as client:
        project = client.create_project(f"Look {kind} {language}", page_config, annotators=1)
        client.import_tasks(project.id, [task_data("look", Prompt(messages=TURNS), answers)])
    with visit.new_page() as page:
        open_stream(page, label_studio, project)
        if kind == "ranks":
            press_all_keys(page)
        page.keyboard.press("1")
        page.wait_for_selector(".fa .ant-radio-wrapper-checked")
        page.locator(".fa .ant-collapse-header").click()
        page.wait_for_selector(".fa .ant-collapse-content-active")
        for theme in ("light", "dark"):
            while page.evaluate("document.documentElement.getAttribute('data-color-scheme')") != theme:
                page.locator("button[class*=themeToggle]").click()
            for width, height in (LAPTOP, PHONE):
                page.set_viewport_size({"width": width, "height": height})
                page.wait_for_timeout(300)  # colours and places move for a moment
                page.screenshot(path=tmp_path / f"{theme}{width}.png")
                assert overflow(page, width) == []
                lines: list[tuple[str, float]] = page.evaluate(CONTRAST, ".fa")
                assert len(lines) > 30
                assert [line for line in lines if line[1] < READABLE] == []


def press_all_keys(page: Any) -> None:
    """Every key of the page of ranks does what its label says: none is taken by Label Studio itself."""
    for place in PLACES:
        for group, keys in ((".fa-ranks", RANK_KEYS[place]), (".fa-flags", FAULT_KEYS[place].values())):
            for number, key in enumerate(keys, 1):
                page.keyboard.press(key)
                page.wait_for_selector(f".fa-place-{place} {group} .lsf-choice:nth-child({number}) [class*=-checked]")
    for number, key in enumerate(SET_FLAG_KEYS.values(), 1):
        page.keyboard.press(key)
        page.wait_for_selector(f".fa-foot .lsf-choice:nth-child({number}) [class*=-checked]")


def overflow(page: Any, width: int) -> list[str]:
    """What reaches beyond the screen's right edge: the page itself, or anything of ours that cannot be scrolled to."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('.lsf-main-content').scrollWidth") <= width
    found: list[str] = page.evaluate(
        """width => [...document.querySelectorAll(
               '.fa-box, .fa label, .fa-text, .fa textarea, .lsf-bottombar, .lsf-bottombar button')]
           .filter(one => one.checkVisibility() && one.getBoundingClientRect().right > width)
           .map(one => one.className)""",
        width,
    )
    return found


@pytest.mark.parametrize("kind", get_args(PageKind))
def test_hostile_and_long_answers_are_text(kind: PageKind, label_studio: Served, visit: Any) -> None:
    run = "document.title='pwned'"
    attacks = (
        f'<script>{run}</script><img src=x onerror="{run}">',
        f'</div></View><svg onload="{run}"></svg><iframe srcdoc="<script>parent.{run}</script>"></iframe>',
        "{{ 7 * 7 }} <b onclick=alert(1)>$prompt_html</b> <style>.fa{display:none}</style><a href=javascript:x>x</a>",
    )
    long = "长" * 99_990 + "end of all"
    answers = (attacks[0], long) if kind == "pairs" else (*attacks, long)
    page_config = labelling_page(kind, "en", read_guidelines(shipped_guidelines("en", kind)))
    with label_studio.client() as client:
        project = client.create_project(f"Hostile {kind}", page_config, annotators=1)
        client.import_tasks(project.id, [task_data("hostile", prompt(" ".join(attacks)), answers)])
    with visit.new_page() as page:
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        open_stream(page, label_studio, project)
        shown = [text.inner_text().strip() for text in page.locator(".fa-answers .fa-text").all()]
        assert shown == list(answers)
        assert page.locator(".fa-prompt .fa-text").inner_text().strip() == " ".join(attacks)
        live = ".fa-text script, .fa-text img, .fa-text svg, .fa-text iframe, .fa-text a, .fa-text style, .fa-text b"
        assert page.locator(live).count() == 0
        for key in "1" if kind == "pairs" else "1qaz":
            page.keyboard.press(key)
        needed = 1 if kind == "pairs" else 4
        page.wait_for_function(
            "count => document.querySelectorAll('.fa .ant-radio-wrapper-checked').length == count", arg=needed
        )
        with page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            page.keyboard.press("Control+Enter")
        assert "pwned" not in page.title()
    assert dialogs == []
    assert [url for url in requested if not url.startswith((label_studio.url, "data:", "blob:"))] == []
    stored = [region["value"]["choices"] for region in label_studio.tasks(project)[0].annotations[0]["result"]]
    assert stored == ([["A3"]] if kind == "pairs" else [["1"]] * 4)
