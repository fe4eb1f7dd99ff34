"""The provenance of a run's results: flattened settings, code and command, the questions and their digest."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hydra.core.hydra_config import HydraConfig

from spacer.benchmarks.question import Question
from spacer.config.settings import Settings
from spacer.data.samples import Sample
from spacer.terminal.masking import masked_values

ROOT = Path(__file__).resolve().parents[2]
_COLUMNS = ("id", "type", "question", "options", "solution", "media")


@dataclass(frozen=True)
class QuestionIndex:
    """The questions that a run trains on or evaluates, one row each, and a digest that identifies them.

    `digest` covers ids, texts, options, solutions and media names, in order; the location of the data does not
    change it.
    """

    rows: tuple[Mapping[str, str], ...]
    digest: str

    def write(self, path: Path) -> None:
        """Writes the rows as Parquet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
        pq.write_table(pa.Table.from_pylist([dict(row) for row in self.rows], schema), path, compression="zstd")


def index_samples(samples: Iterable[Sample]) -> QuestionIndex:
    """The index of a data set's questions."""
    return _index(
        (
            *(item.id, item.question_type or item.problem_type, item.problem, item.options, item.solution),
            " ".join(file.path.name for file in item.files),
        )
        for item in samples
    )


def index_questions(questions: Iterable[Question]) -> QuestionIndex:
    """The index of a benchmark's questions."""
    return _index((item.id, item.task, item.text, item.options, item.truth, item.cluster) for item in questions)


def _index(entries: Iterable[tuple[Any, ...]]) -> QuestionIndex:
    texts = ([value if isinstance(value, str) else json.dumps(value) for value in entry] for entry in entries)
    rows = tuple(dict(zip(_COLUMNS, entry, strict=True)) for entry in texts)
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return QuestionIndex(rows, digest.hexdigest()[:16])


def flat_config(settings: Settings, index: QuestionIndex | None = None) -> dict[str, Any]:
    """A run's configuration with flat names, such as `objective/beta`, and its provenance.

    `choice/reward` is the option chosen for a group, `run/…` the command, the folder and the code, `data/…` the
    questions. Secrets are masked.
    """
    config = _flat(asdict(settings), "")
    config |= {f"choice/{name}": option for name, option in options_chosen().items()}
    config |= {"run/command": shlex.join(sys.argv), "run/folder": str(Path(settings.output_dir).resolve())}
    config |= {f"run/{name}": value for name, value in git_state(ROOT).items()}
    if index is not None:
        config |= {"data/digest": index.digest, "data/questions": len(index.rows)}
    return {name: masked_values(value) for name, value in config.items()}


def options_chosen() -> dict[str, str | None]:
    """Group → the option that was chosen for it; empty for settings that Hydra did not compose."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {name: choices[name] for name in choices if not name.startswith("hydra/")}


def git_state(root: Path) -> dict[str, str | bool | None]:
    """The commit of the code at `root` and whether the working tree is dirty; None where it is no git checkout."""
    unknown: dict[str, str | bool | None] = {"git_commit": None, "git_dirty": None}
    try:
        # an installed package may lie inside an unrelated checkout
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return unknown
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
        return {"git_commit": _git(root, "rev-parse", "HEAD"), "git_dirty": bool(changes)}
    except (FileNotFoundError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return unknown


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """
    >>> _flat({"objective": {"beta": 0.1}, "seed": 0, "runs": ("a",)}, "")
    {'objective/beta': 0.1, 'seed': 0, 'runs': ['a']}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, Enum):
            found[f"{prefix}{name}"] = value.value
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found
