"""The policies that a run keeps besides its last: `<run>/policies/update-00020/`, an adapter or a whole model each."""

import json
import shutil
from pathlib import Path

from finlm import runs
from finlm.model import ADAPTER_CONFIG


def kept_policies(folder: Path) -> dict[int, Path]:
    """Return update -> folder of a run's kept policies, lowest update first."""
    return runs.numbered(folder / "policies", "update-*")


def copy_policy(source: Path, target: Path, *, base: str) -> None:
    """Make a kept policy the exported one, whole or not at all; `base` is the base's path relative to `target`."""
    with runs.whole_folder(target) as aside:
        for path in source.iterdir():
            if path.name != runs.MANIFEST:
                shutil.copy2(path, aside / path.name)
        file = aside / ADAPTER_CONFIG
        if not file.is_file():  # a whole model has no base
            return
        settings = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
        file.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
