"""What happens when a run folder is used again: resumed, refused, or started over with `overwrite=true`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spacer.config.choices import BENCHMARKS
from spacer.config.derived import sections
from spacer.config.settings import JsonlSettings, Settings
from spacer.errors import UserError

log = logging.getLogger(__name__)
# what stages write into a run's folder besides its record and log, as patterns; nothing else is ever removed
WRITTEN = (
    *("failures.jsonl", "faults.jsonl", "history.jsonl", "rollouts.jsonl", "per_question.jsonl"),
    *("generated.jsonl", "generated.*.part.jsonl", "generated.keys", "generated.*.keys", "generated.conditions.json"),
    *("summary.json", "scores.json", "comparison.json", "plan.json", "report.html", "wandb_id"),
    *(
        "predictions/*.jsonl",
        "predictions/during/*.jsonl",
        "predictions/*.conditions.json",
        "predictions/*.keys",
        "checkpoints/*.ckpt",
        "checkpoints/.*.tmp",
        "checkpoints/*.parts-*/*.safetensors",
    ),
    *("model/*.safetensors", "model/*.json", "model/*.jinja", "model/*.txt", "model/*.model", "model/README.md"),
    *("figures/*.png", "figures/*.pdf", "rollouts/*.png", "rollouts/*.jpg", "dashboard/*.json"),
    *("csv/*", "tensorboard/*", "wandb/**/*"),
)
_RESULTS = (
    *("predictions", "checkpoints", "model", "history.jsonl", "summary.json", "scores.json", "per_question.jsonl"),
    "generated.conditions.json",
)
_ASKS = ("evaluate", "generate")  # stages whose answers are stored with their conditions


@dataclass(frozen=True)
class Earlier:
    """The run that a folder holds: its stage, whether it finished, and descriptions of how its settings differ from
    this run's, ignoring those that change no result."""

    stage: str
    done: bool
    other: Sequence[str]


def settle(settings: Settings, folder: Path, earlier: Earlier) -> None:
    """Checks that a run may write into an earlier run's folder; with `overwrite`, removes what that run wrote.

    Raises:
        UserError: the folder holds a finished run, one with other settings, one with a checkpoint that is not
            resumed, or files that this run is to read.
    """
    if settings.overwrite:
        _remove(settings, folder)
        return
    then, now = earlier.stage, settings.stage.name
    if then not in ("train", "sft", "vision", *_ASKS) or not any((folder / name).exists() for name in _RESULTS):
        return
    if then == now and (now in _ASKS or settings.ckpt_path == "last"):
        return  # answers are stored with their conditions, and training resumes from its checkpoint
    remedies = "choose another folder, hydra.run.dir=…, or begin anew with overwrite=true, which removes what it wrote"
    if then != now:
        raise UserError(f"run folder {folder} holds a run of stage={then}, and this one is of stage={now}: {remedies}")
    if earlier.done:
        more = "; to train longer, ckpt_path=last and a larger trainer.max_steps or max_epochs"
        raise UserError(f"run folder {folder} holds a finished run of stage={then}: {remedies}{more}")
    if earlier.other:
        raise UserError(
            f"run folder {folder} holds a run with other settings that has not finished ({'; '.join(earlier.other)}): "
            f"go on with those, {remedies}"
        )
    if (checkpoint := folder / "checkpoints/last.ckpt").exists() and not _goes_on_from(settings, checkpoint):
        raise UserError(
            f"run folder {folder} holds a run of stage={then} that has not finished, and would begin again at step 0: "
            f"go on from its checkpoint with ckpt_path=last, {remedies}"
        )


def _goes_on_from(settings: Settings, checkpoint: Path) -> bool:
    return settings.ckpt_path is not None and Path(settings.ckpt_path).expanduser().resolve() == checkpoint.resolve()


def _remove(settings: Settings, folder: Path) -> None:
    found = sorted(set(written(folder)))
    real = {path.resolve() for path in found}
    for name, read_from in _read(settings):
        place = Path(read_from).expanduser().resolve()
        if place in real or any(path.is_relative_to(place) or place.is_relative_to(path) for path in real):
            raise UserError(
                f"overwrite=true would remove {name}={read_from}, which this run reads: choose another folder, "
                "hydra.run.dir=…, or move it away"
            )
    for path in found:
        path.unlink()
    # deepest first, and only empty folders: files from elsewhere stay, and their folder with them
    for place in sorted({above for path in found for above in path.parents if folder in above.parents}, reverse=True):
        if not any(place.iterdir()):
            place.rmdir()
    if found:
        log.info("overwrite=true: removed %d files of the run before from %s", len(found), folder)


def written(folder: Path) -> Iterator[Path]:
    """The files that a run wrote into its folder, including per-benchmark subfolders; links count as files."""
    for place in (folder, *(folder / name for name in BENCHMARKS)):
        for pattern in WRITTEN:
            yield from (path for path in place.glob(pattern) if path.is_symlink() or not path.is_dir())


def _read(s: Settings) -> Iterator[tuple[str, str]]:
    """The paths that a run reads, by setting name."""
    yield "model.name_or_path", s.model.name_or_path
    yield from (("runs", run) for run in s.runs)
    yield from ((name, value) for name, value in (("ckpt_path", s.ckpt_path), ("predictions", s.predictions)) if value)
    for name, benchmark in {"benchmark": s.benchmark, **s.benchmarks}.items():
        if benchmark is not None and benchmark.root is not None:
            yield f"{name}.root", benchmark.root
    if s.dataset.generated is not None:
        yield "dataset.generated", s.dataset.generated
    for at, dataset in sections(s):
        if root := getattr(dataset, "root", ""):
            yield f"{at}.root", root
        if isinstance(dataset, JsonlSettings):
            yield from ((f"{at}.exclude", name) for name in dataset.exclude)
            yield from ((f"{at}.guard.{name}", root) for name, root in dataset.guard.items())
