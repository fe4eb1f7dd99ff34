"""The location of conf/, experiments/ and sweeps/: the top of a checkout, or the package if installed."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
ROOT = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent


def export_paths() -> None:
    """Sets the variables that conf/ uses for paths: SPACER_ROOT, unless already set, and SPACER_ASSETS."""
    os.environ.setdefault("SPACER_ROOT", str(ROOT))
    os.environ["SPACER_ASSETS"] = str(_PACKAGE / "assets")
