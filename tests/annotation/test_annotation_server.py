"""Secrets, ports, addresses and the commands' complaints, without Label Studio."""

import os
import socket
from pathlib import Path

import pytest
from annotation_helpers import command, prompt, response
from rich.console import Console

from annotation import server, server_folder
from annotation.api import LabelStudio
from annotation.environment import VERSION, ensure
from finlm import jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import Candidates, PreferencePair, Provenance


def test_secrets_are_drawn_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    drawn = server_folder.open_secrets(folder)
    assert server_folder.open_secrets(folder) == drawn
    assert server_folder.open_secrets(tmp_path / "other") != drawn
    assert (folder / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(drawn.token) == 40
    assert drawn.token not in repr(drawn)
    assert drawn.password not in repr(drawn)
    (folder / "secrets.json").chmod(0o644)
    with pytest.raises(UserError, match="others can read it"):
        server_folder.open_secrets(folder)


def test_a_taken_port_names_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port} of 127.0.0.1 cannot be used.*choose another --port"):
            server.require_free_port(port)
    server.require_free_port(port)
    with pytest.raises(UserError, match="--port 70000"):
        server.require_free_port(70000)


def test_another_process_with_the_same_number_is_not_ours(tmp_path: Path) -> None:
    assert server.running(tmp_path) is None
    server_folder.note_address(tmp_path, server_folder.Address(url="http://127.0.0.1:1", pid=os.getpid(), started=1.0))
    assert server.running(tmp_path) is None


def test_a_server_that_ends_at_once_is_named(tmp_path: Path) -> None:
    failing = tmp_path / "label-studio"
    failing.write_text("#!/bin/sh\necho loading\necho 'no space left' >&2\nexit 3\n")
    failing.chmod(0o755)
    child = server.start(failing, tmp_path / "server", 1)
    with pytest.raises(UserError, match=r"ended with exit code 3: no space left; see .*label-studio\.log"):
        server.wait_until_healthy(child, tmp_path / "server", 30, Console(quiet=True))
    server.stop_child(child)  # ending what has ended is nothing


def test_a_server_gets_no_keys_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-yours")
    telling = tmp_path / "label-studio"
    telling.write_text("#!/bin/sh\nenv\numask\n")
    telling.chmod(0o755)
    server.start(telling, tmp_path / "server", 1).wait()
    told = (tmp_path / "server" / "label-studio.log").read_text().splitlines()
    assert not any("not-yours" in line for line in told)
    assert told[-1] == "0077"
    assert {"LABEL_STUDIO_COLLECT_ANALYTICS=false", "LABEL_STUDIO_SENTRY_DSN="} <= set(told)
    assert {"LABEL_STUDIO_FRONTEND_SENTRY_DSN=", "LABEL_STUDIO_LATEST_VERSION_CHECK=false"} <= set(told)


def test_no_server_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="finlm annotate serve"):
        server_folder.read_address(tmp_path)


def test_an_unreachable_server_is_named() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        LabelStudio(f"http://127.0.0.1:{port}", "0" * 40) as client,
        pytest.raises(UserError, match="cannot be reached"),
    ):
        client.whoami()
    with pytest.raises(UserError, match="no address of a server"):
        LabelStudio("localhost:8080", "x")


def test_a_foreign_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is a folder but no venv"):
        ensure(tmp_path / "folder", Console(quiet=True))
    other = tmp_path / "venv" / "lib" / "python3.11" / "site-packages" / "label_studio-1.20.0.dist-info"
    other.mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    with pytest.raises(UserError, match=rf"holds Label Studio 1\.20\.0, this project works with {VERSION}"):
        ensure(tmp_path / "venv", Console(quiet=True))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("push",), "Candidates not found at runs/candidates.jsonl; make it with: finlm respond"),
        (("pull",), "No annotation server is known in runs/annotation/server"),
        (("pull", "--url", "http://127.0.0.1:9"), "LABEL_STUDIO_API_KEY"),
        (("pull", "--projekt", "x"), "Unknown setting 'projekt'; perhaps you meant 'project'"),
        (("serve", "--project", "P"), "a title has 3 to 50"),
        (("serve", "--guidelines", "none.md"), "--guidelines none.md: no such file"),
        (("serve", "--annotators", "0"), "--annotators 0 must be 1 or more"),
        (("push", "--limit", "-1"), "--limit -1 must be 0 (all) or more"),
    ],
)
def test_complaints_are_one_sentence(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    done = command(*arguments, cwd=tmp_path, LABEL_STUDIO_API_KEY="")
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_of_candidates(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    done = command("push", "--candidates", "none.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.jsonl has no records" in done.stderr


def test_push_without_a_server_writes_nothing(tmp_path: Path) -> None:
    one = Candidates(prompt=prompt("Q"), responses=(response("a"), response("b")))
    jsonl.write(tmp_path / "runs" / "candidates.jsonl", [one])
    done = command("push", cwd=tmp_path)
    assert done.returncode == 2
    assert "finlm annotate serve" in done.stderr
    assert not (tmp_path / "runs" / "annotation").exists()


def test_pull_leaves_preferences_from_elsewhere_alone(tmp_path: Path) -> None:
    rule = Provenance(maker="rule:figures")
    pair = PreferencePair(
        prompt=prompt("Q"), chosen="a", rejected="b", strength=3, source="rule:figures", provenance=rule
    )
    jsonl.write(tmp_path / "runs" / "preferences.jsonl", [pair])
    done = command("pull", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds preferences from 'rule:figures'" in done.stderr
    assert list(jsonl.read(tmp_path / "runs" / "preferences.jsonl", PreferencePair)) == [pair]
