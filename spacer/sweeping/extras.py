"""Which of Hydra's plugins a command line needs, and what to install where one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import yaml

# plugin's name in a defaults list → its module, and the extra that installs it
PLUGINS = {
    "optuna": ("hydra_plugins.hydra_optuna_sweeper", "sweeps"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}


def missing_plugin(words: Sequence[str], folders: Sequence[Path]) -> str | None:
    """The message if a command-line option needs a plugin that is not installed; None otherwise.

    Hydra itself only reports a missing file.

    Args:
        words: the command line.
        folders: the config folders, each with `GROUP/OPTION.yaml` beneath it.
    """
    for word in words:
        for folder in folders:
            file = folder / f"{word.replace('=', '/')}.yaml"
            if "=" not in word or not file.is_file():
                continue
            entries = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", [])
            for name in (name for entry in entries if isinstance(entry, dict) for name in entry.values()):
                module, extra = PLUGINS.get(str(name), (None, ""))
                if module is not None and find_spec(module) is None:
                    return f"{word} needs a plugin of Hydra's that is not installed: pip install -e '.[{extra}]'"
    return None
