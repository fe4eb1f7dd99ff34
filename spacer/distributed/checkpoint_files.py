"""Checkpoints as files: read as data, and whole, or refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from spacer.errors import UserError

REMEDY = (
    "name a whole checkpoint that stage=train or stage=sft wrote, such as ckpt_path=RUN/checkpoints/last.ckpt, or "
    "train anew, in another folder and with ckpt_path=null"
)


def read(path: Path, **options: Any) -> dict[str, Any]:
    """A checkpoint, read as data and never unpickled; `options` as of `torch.load`.

    Raises:
        UserError: it cannot be read, is cut short or otherwise damaged, or is none of this project's.
    """
    try:
        with zipfile.ZipFile(path) as file:  # whose checksums torch does not look at
            damaged = file.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} differs from its checksum")
        found = torch.load(path, **{"map_location": "cpu"} | options, weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, RuntimeError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as a checkpoint ({reason}): {REMEDY}") from error
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise UserError(f"{path} holds no weights of a policy: {REMEDY}")
    return found
