"""W&B artifacts of a run: its inputs (the questions and the base model) and its outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import wandb

from spacer.config.settings import ModelSettings
from spacer.distributed.checkpoint_parts import folders_of
from spacer.models.digests import weights_digest
from spacer.tracking.provenance import QuestionIndex

_PREDICTIONS = (
    "predictions/*.jsonl",
    "predictions/*.conditions.json",
    "scores.json",
    "per_question.jsonl",
    "rollouts.jsonl",
)


def use_inputs(run: Any, model: ModelSettings | None, index: QuestionIndex | None, folder: Path) -> None:
    """Declares the questions (as a file) and the base model (by reference) as inputs of the run."""
    if index is not None:
        path = folder / "wandb" / "questions.parquet"
        index.write(path)
        questions = wandb.Artifact(f"questions-{index.digest}", "dataset", metadata={"questions": len(index.rows)})
        questions.add_file(str(path), policy="immutable")
        _use(run, questions)
    if model is None or model.fresh:  # fresh weights have no origin
        return
    folder_of = Path(model.name_or_path)
    digest = weights_digest(folder_of) if folder_of.is_dir() else None
    told = {"name_or_path": model.name_or_path, "revision": model.revision, "digest": digest}
    name = digest or f"{model.name_or_path}-{model.revision or 'main'}"  # in a folder, or on the hub
    base = wandb.Artifact(f"base-model-{_artifact_name(name)}", "model", metadata=told)
    hub = f"https://huggingface.co/{model.name_or_path}/tree/{model.revision or 'main'}"
    base.add_reference(hub if digest is None else folder_of.resolve().as_uri(), checksum=False)
    _use(run, base)


def log_outputs(run: Any, folder: Path, upload_mb: float) -> None:
    """Logs the outputs in the run folder: predictions, the last checkpoint, the exported model.

    Weights larger than `upload_mb` megabytes are not uploaded; the artifact refers to their path.
    """
    name = _artifact_name(run.id)
    files = [path for pattern in _PREDICTIONS for path in sorted(folder.glob(pattern))]
    if files:
        predictions = wandb.Artifact(f"predictions-{name}", "predictions")
        for path in files:
            predictions.add_file(str(path), name=path.relative_to(folder).as_posix(), policy="immutable")
        run.log_artifact(predictions)
    last = folder / "checkpoints" / "last.ckpt"
    for kind, path, shards in (("checkpoint", last, folders_of(last)), ("model", folder / "model", [])):
        if not path.exists():
            continue
        files = [file for place in (path, *shards) for file in (place.rglob("*") if place.is_dir() else [place])]
        size = sum(file.stat().st_size for file in files if file.is_file())
        weights = wandb.Artifact(f"{kind}-{name}", kind, metadata={"path": str(path.resolve()), "bytes": size})
        if size > upload_mb * 1e6:
            weights.add_reference(path.resolve().as_uri(), checksum=False)
        elif path.is_dir():
            weights.add_dir(str(path), policy="immutable")
        else:
            weights.add_file(str(path), policy="immutable")
            for place in shards:
                weights.add_dir(str(place), name=place.name, policy="immutable")
        run.log_artifact(weights)


def _use(run: Any, artifact: wandb.Artifact) -> None:
    if not run.offline:
        run.use_artifact(artifact)
        return
    # private: `use_artifact` refuses offline runs, although what it writes for a new artifact is synced like everything
    # else; this is the call that it makes
    run._log_artifact(artifact, is_user_created=True, use_after_commit=True)


def _artifact_name(name: str) -> str:
    """A valid W&B artifact name.

    >>> _artifact_name("Qwen/Qwen2.5-VL-7B-Instruct")
    'Qwen-Qwen2.5-VL-7B-Instruct'
    """
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", name)[-100:]
