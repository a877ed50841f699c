"""The shipped configurations of the three commands."""

from pathlib import Path

import pytest

from annotation.pulling import PullSettings
from annotation.push import PushSettings
from annotation.serve import ServeSettings
from finlm.config import parse

SETTINGS = {"serve": ServeSettings, "push": PushSettings, "pull": PullSettings}


@pytest.mark.parametrize("size", ["demo", "6b"])
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_configuration_loads(name: str, size: str) -> None:
    settings = parse(SETTINGS[name], "", ["--config", f"annotate_{name}_{size}", "--runs", "elsewhere"])  # type: ignore[type-var]
    assert settings.runs == "elsewhere"  # type: ignore[attr-defined]
    assert settings.project == "Preferences"  # type: ignore[attr-defined]


def test_all_of_them_are_tested(root: Path) -> None:
    shipped = {path.stem for path in (root / "configs").glob("annotate_*.yaml")}
    assert shipped == {f"annotate_{name}_{size}" for name in SETTINGS for size in ("demo", "6b")}
