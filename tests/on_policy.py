"""A run root with a filing, for rounds on the tiny model, and a runner that starts a round's stages warm."""

import contextlib
import dataclasses
import importlib
import io
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from chain import Chain
from tiny import Tiny, conversations, settings
from warm import Warm

from finlm import config, jsonl, stages
from finlm.errors import UserError
from finlm.records import Conversation, Document, Provenance


def begin(chain: Chain, tiny: Tiny, folder: Path) -> Path:
    """Make a folder with a fine-tuned model, a filing, the questions asked of it, and each stage's settings."""
    (folder / "runs").mkdir(parents=True)
    shutil.copytree(chain.runs / "sft", folder / "runs" / "sft")
    document, asked = filing()
    jsonl.write(folder / "runs" / "selfqa" / "documents.jsonl", [document])
    jsonl.write(folder / "runs" / "selfqa" / "instructions.jsonl", asked)
    (folder / "settings").mkdir()
    own = {name: its | {"instructions": ["{runs}/selfqa/instructions.jsonl"]} if "instructions" in its else its
           for name, its in settings(tiny).items()}  # fmt: skip
    own |= {"annotate_serve": {"language": "en"}, "annotate_push": {"limit": 0}, "annotate_pull": {"overwrite": False}}
    for name, values in own.items():
        (folder / "settings" / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def filing() -> tuple[Document, list[Conversation]]:
    """One document of all companies' sentences, a line each, and the questions whose evidence stands there."""
    rows = [one for one in conversations() if one.form == "open-book" and one.provenance is not None]
    passages = list(dict.fromkeys(one.messages[0].content.partition("\n\n")[0] for one in rows))
    document = Document(text="\n".join(passages), source="annual-report.txt", sha256="ab", language="en", entity="All")
    asked = []
    for row in rows:
        passage = row.messages[0].content.partition("\n\n")[0]
        start = document.text.index(passage)
        place = Provenance(maker="rule:test", document_id=document.id, start=start, end=start + len(passage))
        asked.append(dataclasses.replace(row, provenance=place))
    return document, asked


class Runner:
    """Types `finlm round` in a folder; its stages run in processes of the warm server.

    Attributes:
        kill_at: Stage -> number of the operation before which it is killed.
        started: The stages that were started, in their order.
        commands: Stage -> the flags that it was last started with.
        said: What the last stage said.
    """

    def __init__(self, warm: Warm, folder: Path) -> None:
        self.warm, self.folder = warm, folder
        self.kill_at: dict[str, int] = {}
        self.started: list[str] = []
        self.commands: dict[str, Sequence[str]] = {}
        self.said = ""
        self.module: Any = importlib.import_module("finlm.round")

    def round(self, *flags: str) -> str:
        """Run the command and return what it printed itself."""
        words = ["--configs", "settings/{stage}.yaml", *flags]
        printed = io.StringIO()
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with mock.patch.object(stages, "run", self._run), contextlib.redirect_stdout(printed):
                self.module.main(config.parse(self.module.OnPolicySettings, "", words, "finlm round", folder="folder"))
        finally:
            os.chdir(before)
        return printed.getvalue()

    def _run(self, name: str, command: Sequence[str], *, accepted: Collection[int] = (0,), **_: Any) -> int:
        self.started.append(name)
        _, entry, *flags = command
        self.commands[name] = flags
        done = self.warm.run(entry, *flags, cwd=self.folder, kill_at=self.kill_at.get(name, 0))
        self.said = done.said
        if done.returncode not in accepted:
            raise UserError(f"The stage {name!r} ended with exit code {done.returncode}: {done.said[-800:]}")
        return done.returncode
