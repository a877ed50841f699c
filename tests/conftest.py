"""Fixtures that several tests share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# before anything imports them: nothing here asks a server, and two cores serve several tests
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from chain import STAGES, Chain
from once import once
from warm import Warm

ROOT = Path(__file__).parent.parent
TOGETHER = {"annotation", "selfqa"}
"""Folders whose tests share what is dear to make: one Label Studio, one reading of the real filings."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let the tests of a file, or of such a folder, run in one process where several share the tests.

    Of our own, because pytest 9.2 no longer reads the names that `--dist loadgroup` of pytest-xdist 3.8 gives to tests:
    each process then made everything that a file's tests share.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.removeprefix("tests/").partition("/")[0]
            return folder if folder in TOGETHER else file

    return ByPlace(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; a test that needs it skips without, fails if it was promised."""
    folder = Path(os.environ.get("FINLM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        reason = f"real data not found at {folder}; set FINLM_SHARED_DATA"
        if os.environ.get("REQUIRE_SHARED_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """A model, a tokenizer, a corpus and settings small enough for a whole loop in seconds (tests/tiny.py)."""
    import torch
    from tiny import make

    torch.set_num_threads(1)
    return once(tmp_path_factory, "tiny", make)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Runs entries in processes of their own, without their imports' time (tests/warm.py)."""
    with Warm() as server:
        yield server


@pytest.fixture(scope="session")
def chain(tiny, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Run every stage of the tiny loop."""

    def make(place: Path) -> Chain:
        folder = place / "loop"
        folder.mkdir()
        done = {}
        for stage, module in STAGES.items():
            done[stage] = warm.run(module, "--config", tiny.settings(stage), cwd=folder)
            assert done[stage].returncode == 0, f"{stage}: {done[stage].said}"
        return Chain(folder, done)

    return once(tmp_path_factory, "chain", make)
