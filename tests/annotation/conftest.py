"""A real Label Studio, started once for all tests that need one, and two people who use it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotation_helpers import ROOT, Person, Served, command, free_port, started_before, visiting

from annotation.server_folder import open_secrets, read_address


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Install Label Studio where FINLM_LABEL_STUDIO_ENV says (beside .venv by default), start it, end it."""
    folder = tmp_path_factory.mktemp("annotation")
    environment = os.environ.get("FINLM_LABEL_STUDIO_ENV") or str(ROOT / ".venv-label-studio")
    server = folder / "runs" / "annotation" / "server"
    started_before(Path(environment), server)
    flags = (
        "--environment",
        environment,
        "--port",
        str(free_port()),
        "--detach",
        "true",
        "--hints",
        "true",
        "--start_seconds",
        "600",
    )
    done = command("serve", *flags, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    yield Served(folder=folder, url=read_address(server).url, token=open_secrets(server).token, output=done.stdout)
    ended = command("serve", "--stop", "true", cwd=folder)
    assert "The server has ended" in ended.stdout, ended.stdout + ended.stderr


@pytest.fixture(scope="session")
def anna(label_studio: Served) -> Person:
    return label_studio.sign_up("anna@example.com")


@pytest.fixture(scope="session")
def bo(label_studio: Served) -> Person:
    return label_studio.sign_up("bo@example.com")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser; without one a test skips, unless REQUIRE_BROWSER=1."""
    found = os.environ.get("FINLM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        reason = "no Chromium; install Debian's packages chromium and fonts-noto-cjk, or set FINLM_CHROMIUM"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def visit(label_studio: Served, anna: Person, chromium: str) -> Iterator[Any]:
    """A browser's context in which Anna has logged in; one a file, since two drivers cannot be nested."""
    with visiting(chromium, label_studio, anna) as context:
        yield context
