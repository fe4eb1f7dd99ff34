"""Under what conditions answers came about, and that those of one file all came about under the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import spacer
from spacer.errors import UserError
from spacer.files import write_text
from spacer.settings import BenchmarkSettings, ModelSettings

LIBRARIES = ("torch", "transformers", "decord", "pillow")
# settings of a benchmark that change no answer
FREE = ("limit", "tasks", "batch_size", "batch_tokens", "resamples", "workers", "root", "index", "max_missing")
_ANSWERS_DEPEND_ON = (".safetensors", ".json", ".jinja", ".txt", ".model")
_ENDS = 1 << 20  # bytes at each end of a file that tell it from another


def conditions(
    model: ModelSettings, benchmark: BenchmarkSettings, seed: int, precision: str, attention: Mapping[str, str]
) -> dict[str, Any]:
    """All that answers depend on, as JSON: model, prompts, frames, decoding, libraries. Batches are none of it."""
    asked = asdict(benchmark)
    for free in FREE:
        asked.pop(free)
    return {
        "model": {
            "name_or_path": model.name_or_path,
            "weights": weights_digest(Path(model.name_or_path)),
            "revision": model.revision,
            "dtype": model.dtype,
            "positions": str(model.positions),
            "precision": precision,
            "attention": dict(attention),
        },
        "benchmark": asked,
        "seed": seed,
        "libraries": {"spacer": spacer.__version__, **{name: version(name) for name in LIBRARIES}},
    }


def weights_digest(folder: Path) -> str | None:
    """What tells one model folder from another: configuration, tokenizer, templates, size and both ends of weights.

    None where the name is not of a folder, and the revision says which weights they are.
    """
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _ANSWERS_DEPEND_ON):
        size = path.stat().st_size
        with open(path, "rb") as file:
            digest.update(f"{path.name} {size}\n".encode() + file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()[:16]


def hold_to(path: Path, found: Mapping[str, Any]) -> None:
    """Writes the conditions where there are none yet; raises UserError where they differ, with what differs."""
    now = json.loads(json.dumps(found))
    if not path.exists():
        write_text(path, [json.dumps(now, indent=2, ensure_ascii=False), "\n"])
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changes = list(differences("", before, now))
    if changes:
        raise UserError(
            f"{path.parent} holds answers that were given under other conditions:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nGo on with the same ones, or evaluate into another run folder (hydra.run.dir=…)."
        )


def differences(at: str, before: Any, now: Any) -> list[str]:
    """What is other in one JSON value than in another, a line for each, with its path below `at`."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        inner = (differences(f"{at}.{key}" if at else key, before.get(key), now.get(key)) for key in keys)
        return [change for changes in inner for change in changes]
    return [] if before == now else [f"{at}: {before!r} then, {now!r} now"]
