"""Cache folders of libraries: in the home folder, or in a temporary one if that is not writable."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# environment variables that override the libraries' folders in the home folder; Hugging Face's cache is left alone
_CACHES = {
    "MPLCONFIGDIR": "matplotlib",
    "TRITON_CACHE_DIR": "triton",
    "WANDB_CACHE_DIR": "wandb",
    "WANDB_CONFIG_DIR": "wandb",
}


def keep_caches() -> None:
    """Points libraries to a temporary folder, removed at exit, if the home folder is not writable.

    Variables that are already set are kept. Call this before importing these libraries.
    """
    if os.access(os.path.expanduser("~"), os.W_OK | os.X_OK):
        return
    folder = Path(tempfile.mkdtemp(prefix="spacer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable, name in _CACHES.items():
        os.environ.setdefault(variable, str(folder / name))
