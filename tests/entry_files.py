"""The files that are run, found by what stands at their end, and the settings of each."""

import importlib
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = ("alignment", "annotation", "finlm", "reward", "selfqa")
MAIN = ROOT / "finlm" / "__main__.py"
ENTRIES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8") and path != MAIN
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def module_of(path: Path) -> str:
    return name_of(path).replace("/", ".")


def settings_of(module: str) -> Any:
    """The dataclass that an entry is parsed with, as its last line says."""
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    (name,) = re.findall(r"^    (?:config\.)?run\(main, (\w+),", source, re.MULTILINE)
    return getattr(importlib.import_module(module), name)
