"""What tells one model's weights from another's: digests of all of their bytes.

Two checkpoints of one training may differ in a few tensors in the middle of a file, as where adapters were trained or
the embeddings were frozen, so nothing less will do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from spacer.config.settings import ModelSettings

if TYPE_CHECKING:
    from torch import Tensor

_ANSWERS_DEPEND_ON = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")
_AT_ONCE = 4  # files or tensors: hashlib lets other threads run, and one alone is slower than most disks


def model_digest(model: ModelSettings) -> str | None:
    """The digest of a model's files, those of the cache where it is named by its id on the hub.

    None where they are in neither, and the name and the revision alone say which model it is.
    """
    folder = Path(model.name_or_path)
    if folder.is_dir():
        return weights_digest(folder)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return weights_digest(
            Path(snapshot_download(model.name_or_path, revision=model.revision, local_files_only=True))
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def weights_digest(folder: Path) -> str:
    """The digest of a model folder: every byte of its weights, configuration, tokenizer and templates.

    It takes as long as reading the files. Those that a process has read once it does not read again unless they change.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in _ANSWERS_DEPEND_ON and path.is_file())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = list(pool.map(_file_digest, map(str, paths), map(_version, paths)))
    named = "".join(f"{path.name} {digest}\n" for path, digest in zip(paths, digests, strict=True))
    return _short(named)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """The digest of a state dict: names, types, shapes and values, on whatever device."""
    names = sorted(state)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = list(pool.map(_tensor_digest, (state[name] for name in names)))
    return _short("".join(f"{name} {digest}\n" for name, digest in zip(names, digests, strict=True)))


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=1024)  # several benchmarks of one run ask the same model
def _file_digest(path: str, _version: tuple[int, int]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    import torch

    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(values.numpy().data)
    return digest.hexdigest()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
