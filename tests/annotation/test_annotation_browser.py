"""The labelling page in a real browser."""

from pathlib import Path
from typing import Any

import pytest
from annotation_helpers import PASSWORD, Person, Served, command, prompt, response

from finlm import jsonl
from finlm.records import Candidates

pytestmark = pytest.mark.browser

WIDTH, HEIGHT = 1366, 768
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# nothing but this machine can be reached, and what is asked for elsewhere is noted
FLAGS += ["--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
TABLE = "| 项目 | 2023年 | 2024年 |\n|---|---|---|\n| 营业收入 | 384.2 | 412.6 |\n"
ATTACK = '约 10%。<script>document.title="pwned"</script><img src=x onerror="document.title=\'pwned\'"> 若 a<b 且 b>c'


def inside(box: Any) -> bool:
    """Whether an element lies on the screen, above the bar at the bottom."""
    return bool(box) and box["x"] >= 0 and box["x"] + box["width"] <= WIDTH and box["y"] + box["height"] <= HEIGHT - 50


def test_page_is_seen_and_answered(label_studio: Served, anna: Person, chromium: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    project = label_studio.project("Browser", "--language", "zh")
    answers = (
        response(f"同比增长率约为 **7.4%**。\n\n{TABLE}\n1. 先求差\n2. 再相除" + "\n\n补充说明。" * 30),
        response(ATTACK),
    )
    asked = [
        Candidates(prompt=prompt(f"第{n}题：营业收入同比增长多少？\n\n{TABLE}"), responses=answers) for n in "一二"
    ]
    jsonl.write(tmp_path / "candidates.jsonl", asked)
    flags = ("--project", "Browser", "--server", str(label_studio.server), "--candidates", "candidates.jsonl")
    assert command("push", *flags, cwd=tmp_path).returncode == 0
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, locale="zh-CN")
        requested: list[str] = []
        dialogs: list[str] = []
        context.on("request", lambda request: requested.append(request.url))
        page = context.new_page()
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(f"{label_studio.url}/user/login/")
        page.fill("input[name=email]", anna.email)
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/login" not in url)
        page.goto(f"{label_studio.url}/projects/{project.id}/data?labeling=1")
        page.wait_for_selector(".fa-levels label", timeout=60_000)
        page.wait_for_selector(".fa-right .fa-text", timeout=60_000)

        # all that is needed stands on the screen at once
        assert inside(page.locator(".fa-prompt").bounding_box())
        for side, name in ((".fa-left", "回答 A"), (".fa-right", "回答 B")):
            assert inside(page.locator(side).bounding_box())
            assert name in page.locator(side).inner_text()
        levels = page.locator(".fa-levels label")
        assert levels.count() == 8
        assert all(inside(levels.nth(number).bounding_box()) for number in range(8))
        flags_shown = page.locator(".fa-flags label")
        assert flags_shown.count() == 6
        assert all(inside(flags_shown.nth(number).bounding_box()) for number in range(6))
        assert "标注规范 1.0" in page.locator(".fa").inner_text()

        # a table is a table, and a model's HTML is text
        shown = page.locator(".fa-answers").inner_text()
        assert "<script>" in shown
        assert 'onerror="' in shown
        assert "a<b 且 b>c" in shown
        assert page.locator(".fa-answers table").count() == 1
        assert page.locator(".fa-answers img, .fa-answers script").count() == 0

        # nothing can be submitted before a level is chosen
        page.keyboard.press("Control+Enter")
        page.screenshot(path=tmp_path / "open.png")
        page.keyboard.press("7")
        page.wait_for_selector(".fa-levels .ant-radio-wrapper-checked")
        assert "较好" in page.locator(".fa-levels .ant-radio-wrapper-checked").inner_text()
        page.keyboard.press("q")
        page.wait_for_selector(".fa-flags .ant-checkbox-wrapper-checked")
        page.fill("textarea, input[name=reason]", "数字更准确")
        page.screenshot(path=tmp_path / "chosen.png")
        with page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            page.get_by_test_id("bottombar-submit-button").click()
        title = page.title()
        browser.close()
    assert "pwned" not in title
    assert dialogs == []
    assert [url for url in requested if not url.startswith((label_studio.url, "data:", "blob:"))] == []

    annotations = [one for task in label_studio.tasks(project) for one in task.annotations]
    assert len(annotations) == 1
    assert annotations[0]["completed_by"] == anna.id
    stored = {region["from_name"]: region["value"] for region in annotations[0]["result"]}
    assert stored["preference"]["choices"] == ["B2"]
    assert stored["flags"]["choices"] == ["factual_a"]
    assert stored["reason"]["text"] == ["数字更准确"]
