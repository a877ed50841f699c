"""Four answers in a real browser: pushed, ranked by keys and by clicks, edited, pulled, read by the reward model."""

from pathlib import Path
from typing import Any

import pytest
from annotation_helpers import Person, Served, command, open_stream, response

from finlm import jsonl
from finlm.records import Candidates, Message, Prompt, Ranking, Removal
from reward.rankings import read_pairs

pytestmark = pytest.mark.browser

TEXTS = ("收入增长 **7.4%**。", "约 10%。", "文中没有提到。", "Revenue rose 7.4%.")
TURNS = (
    Message(role="system", content="你是金融助理。"),
    Message(role="user", content="2024年营业收入是多少？"),
    Message(role="assistant", content="412.6 百万元。"),
    Message(role="user", content="同比增长多少？"),
)


def test_four_answers_are_ranked(label_studio: Served, anna: Person, visit: Any, tmp_path: Path) -> None:
    project = label_studio.project("Ranks in a browser", "--language", "zh", "--page", "ranks")
    asked = [
        Candidates(prompt=Prompt(messages=TURNS), responses=tuple(map(response, TEXTS))),
        Candidates(prompt=Prompt(messages=TURNS[1:2]), responses=tuple(map(response, TEXTS[:3]))),
        Candidates(prompt=Prompt(messages=TURNS[1:]), responses=tuple(map(response, TEXTS))),
    ]
    jsonl.write(tmp_path / "candidates.jsonl", asked)
    flags = ("--project", project.title, "--server", str(label_studio.server))
    for sent in ("2 pushed, 0 there already, 1 left out", "0 pushed, 2 there already, 1 left out"):
        pushed = command("push", *flags, "--candidates", "candidates.jsonl", cwd=tmp_path)
        assert sent in pushed.stdout, pushed.stderr
    left_out = list(jsonl.read(tmp_path / "runs/annotation/push/rejected.jsonl", Removal))
    assert [one.rule for one in left_out] == ["fewer-than-four-answers"]
    task = label_studio.tasks(project)[0].data
    assert sorted(task) == ["a_html", "b_html", "c_html", "d_html", "pair_id", "prompt_html"]

    with visit.new_page() as page:
        open_stream(page, label_studio, project)
        # a conversation names its speakers in the page's language
        named = "e => getComputedStyle(e, '::before').content"
        speakers = [turn.evaluate(named).strip('"') for turn in page.locator(".fa-prompt .fa-turn").all()]
        assert speakers == ["系统", "用户", "助手", "用户"]
        assert "标注规范 1.0" in page.locator(".fa").inner_text()
        titles = [f"回答 {place}" for place in "ABCD"]
        shown = [page.locator(".fa-place-" + place).inner_text() for place in "abcd"]
        assert all(title in text for title, text in zip(titles, shown, strict=True))

        # three ranks by keys, ties allowed; the fourth is missing, and the page says which
        page.keyboard.press("2")
        page.keyboard.press("w")
        page.keyboard.press("d")
        page.wait_for_function("document.querySelectorAll('.fa-ranks .ant-radio-wrapper-checked').length == 3")
        page.keyboard.press("Control+Enter")
        page.get_by_text("提交前请给回答 D 选择名次").wait_for()
        page.keyboard.press("Escape")
        assert label_studio.tasks(project)[0].annotations == ()

        # the fourth by a click, a fault by its key, and sent
        page.locator(".fa-place-d .fa-ranks label").first.click()
        page.keyboard.press("g")
        page.wait_for_selector(".fa-place-c .ant-checkbox-wrapper-checked")
        with page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            page.get_by_test_id("bottombar-submit-button").click()
        page.screenshot(path=tmp_path / "sent.png")

        # gone back to, and changed
        page.get_by_test_id("prev-task").click()
        page.wait_for_selector(".fa-place-a .ant-radio-wrapper-checked", timeout=60_000)
        page.locator(".fa-place-a .fa-ranks label").nth(3).click()
        with page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "PATCH"):
            page.get_by_test_id("bottombar-update-button").click()

    annotations = label_studio.tasks(project)[0].annotations
    assert [one["completed_by"] for one in annotations] == [anna.id]
    stored = {region["from_name"]: region["value"]["choices"] for region in annotations[0]["result"]}
    assert stored == {"rank_a": ["4"], "rank_b": ["2"], "rank_c": ["3"], "rank_d": ["1"], "faults_c": ["factual"]}

    pulled = command("pull", *flags, cwd=tmp_path)
    assert pulled.returncode == 0, pulled.stderr
    found = list(jsonl.read(tmp_path / "runs/rankings.jsonl", Ranking))
    ranks = dict(zip(found[0].responses, found[0].ranks, strict=True))
    assert [ranks[_answer(text)] for text in shown] == [4, 2, 3, 1]
    assert (found[0].annotator, found[0].annotation_id) == (f"person:{anna.id}", str(annotations[0]["id"]))
    assert found[0].flags == (f"factual_{1 + found[0].responses.index(_answer(shown[2]))}",)
    assert found[0].guidelines == "1.0"
    assert len(found[0].page) == 16
    assert list(jsonl.read(tmp_path / "runs/rankings.rejected.jsonl", Removal)) == []
    pairs, _ = read_pairs(tmp_path / "runs/rankings.jsonl")
    assert len(pairs) == 6
    assert {(one.chosen, one.rejected): one.strength for one in pairs}[_answer(shown[3]), _answer(shown[0])] == 3


def _answer(shown: str) -> str:
    """The answer that a place shows."""
    return next(text for text in TEXTS if text.replace("**", "") in shown)
