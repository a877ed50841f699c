"""Label Studio on PostgreSQL by one setting."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotation_helpers import ROOT, Served, command, prompt, response

from annotation.database import read_database
from annotation.server_folder import open_secrets, read_address
from finlm import jsonl
from finlm.errors import UserError
from finlm.records import Candidates, PreferencePair


def test_one_setting_names_a_database() -> None:
    assert read_database("") is None
    found = read_database("postgresql://finlm@db.example.com/label_studio")
    assert found is not None
    assert found.url == "postgresql://finlm@db.example.com:5432/label_studio"
    assert found.server_environment()["POSTGRE_HOST"] == "db.example.com"


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("mysql://finlm@localhost/ls", "expected postgresql://user@host:port/name"),
        ("postgresql://localhost/ls", "expected postgresql://user@host:port/name"),
        ("postgresql://finlm@localhost", "expected postgresql://user@host:port/name"),
        ("postgresql://finlm@localhost:none/ls", "expected postgresql://user@host:port/name"),
        ("postgresql://finlm:secret@localhost/ls", "put it in PGPASSWORD"),
    ],
)
def test_what_is_no_database(setting: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        read_database(setting)
    assert "secret" not in str(raised.value)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A PostgreSQL of our own, which asks for a password; skips where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL; install Debian's package postgresql")
    # not pytest's folder, which only its owner may enter
    programs, data = found[-1].parent, Path(tempfile.mkdtemp(prefix="finlm-postgresql-"))
    secret = data / "password"
    secret.write_text("pass-42")
    as_user: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        for path in (data, secret):
            shutil.chown(path, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    port = free_port()
    made = [str(programs / "initdb"), "-D", str(data / "db"), "-U", "finlm", "--auth=scram-sha-256", "-E", "UTF8"]
    subprocess.run([*as_user, *made, f"--pwfile={secret}"], check=True, capture_output=True)
    serving = [str(programs / "pg_ctl"), "-D", str(data / "db"), "-l", str(data / "log"), "-w"]
    options = f"-h 127.0.0.1 -p {port} -k {data}"
    subprocess.run([*as_user, *serving, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
    environment = {**os.environ, "PGPASSWORD": "pass-42"}
    createdb = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", port, "-U", "finlm", "label_studio"]
    subprocess.run(createdb, check=True, env=environment)
    yield f"postgresql://finlm@127.0.0.1:{port}/label_studio"
    subprocess.run([*as_user, *serving, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(data)


@pytest.mark.slow
def test_the_round_trip_on_postgresql(postgresql: str, tmp_path: Path) -> None:
    environment = os.environ.get("FINLM_LABEL_STUDIO_ENV") or str(ROOT / ".venv-label-studio")
    place = tmp_path / "work"
    place.mkdir()
    flags = ("--environment", environment, "--port", free_port(), "--detach", "true")
    wrong = command("serve", *flags, "--database", postgresql, cwd=place, PGPASSWORD="not-it")
    assert wrong.returncode == 2, wrong.stdout
    assert "password authentication failed" in wrong.stderr
    done = command("serve", *flags, "--database", postgresql, cwd=place, PGPASSWORD="pass-42")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = place / "runs" / "annotation" / "server"
    try:
        assert not (folder / "data" / "label_studio.sqlite3").exists()
        assert not any(b"pass-42" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
        served = Served(
            folder=place, url=read_address(folder).url, token=open_secrets(folder).token, output=done.stdout
        )
        answers = (response("one"), response("two"))
        jsonl.write(place / "runs" / "candidates.jsonl", [Candidates(prompt=prompt("Q?"), responses=answers)])
        assert command("push", cwd=place).returncode == 0
        with served.client() as client:
            project = client.find_project("Preferences")
        assert project is not None
        (task,) = served.tasks(project)
        person = served.sign_up("eve@example.com")
        number = person.annotate(task.id, "A2")
        assert command("pull", cwd=place).returncode == 0
        (pair,) = jsonl.read(place / "runs" / "preferences.jsonl", PreferencePair)
        assert pair.votes[0].annotation_id == str(number)
        saved = command("backup", "--output", "saved", cwd=place, PGPASSWORD="pass-42")
        assert saved.returncode == 0, saved.stderr
        listed = ["pg_restore", "--data-only", "--table=task_completion", "-f", "-", "saved/server/label_studio.dump"]
        dumped = subprocess.run(listed, cwd=place, check=True, capture_output=True, text=True).stdout
        assert '"A2"' in dumped
        refused = command("backup", "--output", "more", cwd=place, PGPASSWORD="not-it")
        assert (refused.returncode, "pg_dump failed" in refused.stderr) == (2, True)
        absent = command("backup", "--output", "more", cwd=place, PATH=str(tmp_path))
        assert (absent.returncode, "pg_dump was not found" in absent.stderr) == (2, True)
    finally:
        command("serve", "--stop", "true", cwd=place)
    other = command("serve", *flags, cwd=place)
    assert other.returncode == 2
    assert f"give --database {postgresql}, or choose another --server" in other.stderr
