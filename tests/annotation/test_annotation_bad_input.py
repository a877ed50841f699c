"""What others write into a project, and addresses that are none: one line each, nothing forgotten."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from annotation_helpers import Person, Relay, Served, command, listening, prompt, response, result
from rich.console import Console

from annotation.delivery import deliver
from annotation.eventlog import EventLog
from annotation.export import export
from annotation.page import labelling_page, read_guidelines, shipped_guidelines
from annotation.pairing import Comparison
from annotation.pulling import pull
from annotation.vocabulary import page_hash
from finlm.errors import UserError

MOOD = {"from_name": "mood", "to_name": "prompt", "type": "choices", "value": {"choices": ["x"]}}
ODD: dict[str, list[dict[str, Any]]] = {
    "expected 1": [],
    "its level is 'A9'": result("A9"),
    "which is not on the page": [MOOD],
    "its flag 'rude' is not on the page": result("A1", flags=["rude"]),
    "it has 2 levels": result("A1") + result("B1"),
}


def test_odd_annotations_are_listed_and_kept(label_studio: Served, anna: Person, bo: Person, tmp_path: Path) -> None:
    """Unknown labels and choices, nothing at all, a task of somebody else, a page that changes under way."""
    project = label_studio.project("Odd")
    made = [Comparison(prompt=prompt(f"Q{n}"), first=response("one"), second=response("two")) for n in range(6)]
    with EventLog(tmp_path / "log.sqlite") as log, label_studio.client() as client:
        log.add_pairs(made)
        deliver(client, project, log, [one.id for one in made], Console(quiet=True))
        tasks = sorted(label_studio.tasks(project), key=lambda task: task.id)
        anna.annotate(tasks[5].id, "A2")
        pull(client, project, log)
        changed = labelling_page("pairs", "en", read_guidelines(shipped_guidelines("en", "pairs")))
        client.set_label_config(project.id, changed)
        bo.annotate(tasks[5].id, "A2")
        ids = {}
        for task, (told, regions) in zip(tasks, ODD.items(), strict=False):
            ids[anna.send(task.id, regions)] = (told, regions)
        foreign = {name: text for name, text in tasks[0].data.items() if name != "pair_id"}
        client.import_tasks(project.id, [foreign])
        stray = max(task.id for task in label_studio.tasks(project))
        ids[anna.annotate(stray, "A2")] = ("names pair ''", result("A2"))
        pull(client, project, log)
        done = export(log.pairs(), list(log.deliveries(project.key)), log.annotations(project.key))
        reasons = {one.record_id: one.reason for one in done.removals}
        for number, (told, regions) in ids.items():
            assert told in reasons[f"annotation:{number}"]
            ((kind, raw),) = log.history(project.key, number)
            assert (kind, json.loads(raw)["result"]) == ("annotation", regions)
        assert done.removed == {"malformed": 5, "unknown-pair": 1}
        (pair,) = done.preferences
        now = client.project(project.id).label_config  # the server stores a changed page without its outer blanks
        assert [vote.page for vote in pair.votes] == [page_hash(project.label_config), page_hash(now)]
        assert now != project.label_config


@contextmanager
def website(content: bytes) -> Iterator[str]:
    """Something else that listens: it answers everything with the same page."""

    class Handler(Relay):
        def do_GET(self) -> None:
            self.reply(200, content)

    with listening(Handler) as url:
        yield url


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"<html>Welcome</html>", "does not answer in JSON"), (b'{"status": "up"}', "does not say whose token this is")],
)
def test_an_address_of_something_else(tmp_path: Path, content: bytes, complaint: str) -> None:
    with website(content) as url:
        done = command("pull", "--url", url, cwd=tmp_path, LABEL_STUDIO_API_KEY="0" * 40)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert complaint in done.stderr
    assert "is this address a Label Studio?" in done.stderr


def test_a_changed_page_that_would_lose_labels_is_refused_in_one_line(label_studio: Served, anna: Person) -> None:
    project = label_studio.project("Odd page")
    with label_studio.client() as client:
        client.import_tasks(project.id, [{"pair_id": "1", "prompt_html": "Q", "a_html": "a", "b_html": "b"}])
        (task,) = label_studio.tasks(project)
        anna.annotate(task.id, "A2")
        choice = '<Choices name="c" toName="t"><Choice value="x"/></Choices>'
        other = f'<View><Text name="t" value="$prompt_html"/>{choice}</View>'
        with pytest.raises(UserError, match=r"/api/projects/\d+/ answers 400: ") as raised:
            client.set_label_config(project.id, other)
    assert len(str(raised.value).splitlines()) == 1
