"""Creates and closes a run's loggers: the history file always; W&B, TensorBoard or a CSV file on request."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from spacer.config.derived import trains
from spacer.config.settings import Settings
from spacer.files import write_text
from spacer.report.history import HistoryLogger, read_history
from spacer.report.labels import STEP_AXIS
from spacer.terminal.masking import masked
from spacer.tracking.loggers import CsvHistory, TensorBoardHistory, WandbHistory
from spacer.tracking.provenance import QuestionIndex, flat_config, options_chosen

log = logging.getLogger(__name__)
Index = Callable[[], QuestionIndex]  # called only if needed
_CURVES = ("train", "reward", "rollout", "speed", "eval")  # groups of a training's metrics, drawn over the step axis
_TAG = 64  # characters that W&B takes


def make_loggers(settings: Settings, folder: Path, index: Index | None = None) -> list[Logger]:
    """The loggers of a run that writes to `folder`; `index` gives its questions, if it has any."""
    history = folder / "history.jsonl"
    loggers: list[Logger] = [HistoryLogger(history)]
    if settings.logger.kind == "csv":
        loggers.append(CsvHistory(folder, history))
    elif settings.logger.kind == "tensorboard":
        loggers.append(TensorBoardHistory(folder))
    elif settings.logger.kind == "wandb":
        # other ranks have the logger without a run, and Lightning logs from rank 0 alone
        first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # which Lightning sets
        run, held = _wandb_run(settings, folder, index) if first else (None, 0)
        loggers.append(WandbHistory(run, history, held))
    return loggers


def _wandb_run(settings: Settings, folder: Path, index: Index | None) -> tuple[Any, int]:
    """Starts or resumes the W&B run of a folder; returns it and the first step that it does not hold."""
    # its banners would break the progress bar; the run's location is printed at the end
    os.environ.setdefault("WANDB_SILENT", "true")
    # pictures of tables are kept beside the run until they are synced, not in the home folder
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb"))
    import wandb

    from spacer.tracking.lineage import use_inputs
    from spacer.tracking.offline import repair, wandb_mode

    questions = None if index is None else index()
    mode = wandb_mode()
    held = repair(folder, _run_id(folder)) if mode in ("offline", "dryrun") else 0
    run = wandb.init(
        project=settings.logger.project,
        entity=settings.logger.entity,
        group=masked(settings.logger.group or "") or None,
        name=masked(settings.logger.name or run_name(folder, settings.stage.name, options_chosen())),
        tags=run_tags(options_chosen(), settings.logger.group, trains(settings)),
        job_type=settings.stage.name,
        id=_run_id(folder),
        resume="allow",
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]  # W&B says which there are
        config=flat_config(settings, questions),
        # W&B stores the command line with facts about the machine: not if it contains a secret
        settings={
            "silent": True,
            "console": "off",
            "x_disable_meta": masked(command := shlex.join([*sys.argv, *sys.orig_argv])) != command,
        },
    )
    held = max(held, run.step)
    if held and trains(settings) and settings.ckpt_path is None:
        log.warning("W&B run %s holds steps up to %d already, which stay: begin in another run folder", run.id, held)
    run.define_metric(STEP_AXIS)
    for group in _CURVES if trains(settings) else ():  # others see no prompts
        run.define_metric(f"{group}/*", step_metric=STEP_AXIS, step_sync=True)
    use_inputs(run, settings.model, questions, folder)
    return run, held


def run_name(folder: Path, stage: str, chosen: Mapping[str, str | None]) -> str:
    """A run's name in W&B: its folder's, as a user or a sweep named it, or what it does where that is a time.

    `chosen` are the options of the groups.

    >>> chosen = {"model": "qwen7b", "dataset": "jsonl", "reward": "grpo", "objective": "dapo", "experiments": None}
    >>> run_name(Path("outputs/2026-11-22/21-50-00"), "train", chosen)
    'train qwen7b jsonl grpo dapo 11-22 21:50:00'
    >>> run_name(Path("outputs/2026-11-22/21-50-00"), "train", chosen | {"experiments": "spacer_7b"})
    'train spacer_7b 11-22 21:50:00'
    """
    if not re.fullmatch(r"\d\d-\d\d-\d\d", folder.name):
        return folder.name
    groups = {"train": ("model", "dataset", "reward", "objective"), "evaluate": ("model", "benchmark")}
    named = chosen.get("experiments")
    said = [named] if named else [chosen.get(group) for group in groups.get(stage, ("model", "dataset"))]
    day = folder.parent.name.partition("-")[2]
    return " ".join(part for part in (stage, *said, day, folder.name.replace("-", ":")) if part)


def run_tags(chosen: Mapping[str, str | None], group: str | None, trained: bool) -> list[str]:
    """A run's tags in W&B, to filter by: its model, its data, the reward where it `trained`, and its sweep.

    `chosen` are the options of the groups.

    >>> chosen = {"model": "tiny", "dataset": "rooms", "reward": "grpo", "benchmark": None}
    >>> run_tags(chosen, "reward_ablation", trained=True), run_tags(chosen | {"benchmark": "vsi_bench"}, None, False)
    (['tiny', 'rooms', 'grpo', 'reward_ablation'], ['tiny', 'vsi_bench'])
    """
    data = chosen.get("benchmark") or chosen.get("dataset")
    tags = (chosen.get("model"), data, chosen.get("reward") if trained else None, masked(group or ""))
    return list(dict.fromkeys(tag[:_TAG] for tag in tags if tag))


def _run_id(folder: Path) -> str:
    """The same id for every start of a run in the same folder, so that a resumed run continues its curves.

    It is drawn at the first start and kept in `wandb_id`: sweep folders have the same names on every machine, and W&B
    would mistake their runs for one.
    """
    file = folder / "wandb_id"
    if not file.exists():
        name = re.sub(r"[^\w.=-]+", "-", folder.resolve().name, flags=re.ASCII)[:48]
        write_text(file, [f"{name}-{secrets.token_hex(4)}\n"])
    return file.read_text(encoding="utf-8").strip()


def close_until_resumed(loggers: list[Logger]) -> None:
    """Flushes pending data to W&B, and marks the run there as one that will resume."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.mark_preempting()
            logger.experiment.finish(exit_code=1)  # 0 would mark it as finished


def finish(
    settings: Settings,
    folder: Path,
    loggers: Sequence[Logger],
    scores: Mapping[str, float],
    pictures: Mapping[str, Path],
    summary: Mapping[str, Any] | None = None,
) -> str | None:
    """Logs the final metrics, pictures, rollouts and files, and closes the loggers.

    Args:
        scores: metrics shown beside those of other runs, as `eval/…`.
        pictures: for W&B only, by name.
        summary: values for W&B to hold beside them, without a panel of their own.

    Returns:
        The command that uploads the run, where W&B ran offline.
    """
    sync = None
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            from spacer.report.rollouts import last_rows, read_rollouts, rollout_table
            from spacer.tracking.lineage import log_outputs

            run = logger.experiment
            rows = read_rollouts(folder)
            media: dict[str, Any] = {name: wandb.Image(str(path)) for name, path in pictures.items()}
            if rows:
                media["rollout/table"] = rollout_table(last_rows(rows), folder)
            logger.log_metrics({**scores, **media})
            run.summary.update(dict(summary or {}))
            log_outputs(run, folder, settings.logger.upload_mb)
            if run.offline:
                sync = f"wandb sync {shlex.quote(str(folder / 'wandb'))}"
            run.finish()
        elif isinstance(logger, TensorBoardHistory):
            history = read_history(folder / "history.jsonl")
            for name, value in scores.items():
                logger.experiment.add_scalar(name, value, history[-1]["step"] if history else 0)
            logger.finalize("success")
    return sync
