"""Loggers resume where a killed run stopped, with each step once; the provenance of metrics that W&B gets."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import wandb
from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import TextColumn

from spacer.config.settings import ModelSettings
from spacer.data.samples import Sample
from spacer.files import read_rows
from spacer.report.dashboard import curves_of, definition, drawn, make_workspace
from spacer.report.history import HistoryLogger, read_history
from spacer.stages.dashboard import added_metrics
from spacer.tracking.lineage import log_outputs, use_inputs
from spacer.tracking.loggers import CsvHistory, TensorBoardHistory, WandbHistory
from spacer.tracking.offline import offline_runs, read_records, repair
from spacer.tracking.provenance import ROOT, flat_config, git_state, index_samples
from spacer.training.callbacks import Progress
from tests.run_folders import training_run, with_controls
from tests.unit.configs import load


def metrics(step: int) -> dict[str, float]:
    """What is logged at a step; a metric comes and goes."""
    return {"train/loss": 1 / (step + 1), "train/prompts_seen": 2.0 * step} | ({"reward/map": 1.0} if step > 2 else {})


def start(folder: Path, steps: range, *more: Any) -> None:
    """One start of a run, which logs some steps."""
    history = HistoryLogger(folder / "history.jsonl")
    for step in steps:
        for logger in (history, *more):
            logger.log_metrics(metrics(step), step)


def test_history_holds_each_step_once(tmp_path: Path) -> None:
    start(tmp_path, range(5))
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 5, "tra')
    start(tmp_path, range(3, 7))
    rows = read_rows(tmp_path / "history.jsonl")
    assert [row["step"] for row in rows] == list(range(7))
    assert all(row["train/loss"] == 1 / (row["step"] + 1) for row in rows)
    start(tmp_path, range(2))
    assert [row["step"] for row in read_history(tmp_path / "history.jsonl")] == [0, 1]


def test_csv_goes_on(tmp_path: Path) -> None:
    start(tmp_path, range(5), CsvHistory(tmp_path, tmp_path / "history.jsonl"))
    with pytest.warns(UserWarning, match="is not empty"):
        start(tmp_path, range(3, 7), CsvHistory(tmp_path, tmp_path / "history.jsonl"))
    with open(tmp_path / "csv" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(7))
    assert [row["reward/map"] for row in rows] == ["", "", "", "1.0", "1.0", "1.0", "1.0"]


def test_tensorboard_goes_on(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in (range(5), range(3, 7)):
        logger = TensorBoardHistory(tmp_path)
        start(tmp_path, steps, logger)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(7))


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def offline(folder: Path, steps: range, last: dict[str, float] | None = None) -> None:
    """An offline start of a W&B run, which ends well."""
    held = repair(folder, "r")
    run = wandb.init(mode="offline", dir=folder, project="p", id="r", resume="allow")
    logger = WandbHistory(run, folder / "history.jsonl", held)
    start(folder, steps, logger)
    if last:
        logger.log_metrics(last)
    run.finish()
    wandb.teardown()  # until which the file may not be whole


def logged(folder: Path) -> list[int]:
    """The steps of all of its parts."""
    records = (record for path in offline_runs(folder, "r") for record, _ in read_records(path))
    return [record.history.step.num for record in records if record.HasField("history")]


@pytest.mark.usefixtures("quiet")
def test_wandb_offline_goes_on_wherever_its_file_was_cut_off(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    offline(whole, range(5))
    (path,) = offline_runs(whole, "r")
    assert logged(whole) == list(range(5))
    ends = [end for _, end in read_records(path)]
    cuts = [7, ends[0] - 1, ends[len(ends) // 2] + 3, ends[-1] - 1]
    for number, cut in enumerate(cuts):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder, symlinks=True)
        with open(folder / path.relative_to(whole), "rb+") as file:
            file.truncate(cut)
        kept = logged(folder)
        assert repair(folder, "r") == (kept[-1] + 1 if kept else 0)
        # a run without a start is gone, any other ends with a whole record
        assert [part.stat().st_size in ends for part in offline_runs(folder, "r")] == ([] if cut < ends[1] else [True])
    folder = tmp_path / "2"
    assert 0 < len(logged(folder)) < 5
    offline(folder, range(3, 7), {"eval/rooms/reward/total": 1.5})
    assert len(offline_runs(folder, "r")) == 2 and logged(folder) == list(range(7))


def by_parts(step: int) -> list[dict[str, float]]:
    """What is logged at a step: an evaluation before it, at every other one, then a table and the step itself."""
    before = [] if step % 2 else [{"eval/during/reward/total": step / 2}]
    return [*before, {"rollout/table": 1.0 * step}, {"train/loss": 1 / (step + 1)}]


def offline_by_parts(folder: Path, begins: int, calls: int | None) -> None:
    """A start that goes on from a step, and fails after so many calls of its logger: W&B is closed as Python ends."""
    held = repair(folder, "r")
    run = wandb.init(mode="offline", dir=folder, project="p", id="r", resume="allow")
    loggers = HistoryLogger(folder / "history.jsonl"), WandbHistory(run, folder / "history.jsonl", held)
    made = [(step, row) for step in range(begins, 6) for row in by_parts(step)]
    for step, row in made[:calls]:
        for logger in loggers:
            logger.log_metrics(row, step)
    if calls is None:
        loggers[1].log_metrics({"eval/during/reward/total": 3.0}, 6)  # of the last step, by itself
        loggers[1].log_metrics({"eval/rooms/reward/total": 1.5})
    run.finish()
    wandb.teardown()


def curves(folder: Path) -> list[dict[str, str]]:
    """The steps in W&B's files, without their times."""
    records = (record for path in offline_runs(folder, "r") for record, _ in read_records(path))
    rows = [{".".join(i.nested_key) or i.key: i.value_json for i in record.history.item} for record in records]
    return [
        {name: value for name, value in row.items() if name not in ("_runtime", "_timestamp")} for row in rows if row
    ]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("calls", "begins"), [(6, 2), (6, 1), (7, 2), (8, 3)])
def test_wandb_has_the_curves_of_a_run_that_never_failed(calls: int, begins: int, tmp_path: Path) -> None:
    """It fails after the evaluation before step 2, after its table, or once it is made."""
    (whole := tmp_path / "whole").mkdir()
    offline_by_parts(whole, 0, None)
    (failed := tmp_path / "failed").mkdir()
    offline_by_parts(failed, 0, calls)
    offline_by_parts(failed, begins, None)
    assert len(offline_runs(failed, "r")) == 2 and curves(failed) == curves(whole)
    assert [row["_step"] for row in curves(whole)] == [str(step) for step in range(7)]


def test_the_configuration_is_flat_and_says_where_metrics_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "runs=[a, b]"])

    def sample(name: str, folder: str) -> Sample:
        return Sample(name, "Why?", "OCR", (), "x", "image", Path(folder) / "a.png", "s", "s", "", None, None)

    index = index_samples([sample("1", "/here"), sample("2", "/here")])
    config = flat_config(load(), index)
    assert not any(isinstance(value, dict) for value in config.values())
    assert config["objective/beta"] == 0.04 and config["reward/length/bonus"] == 0.2
    assert config["data/questions"] == 2 and config["data/digest"] == index.digest
    assert config["run/command"] == "run.py 'runs=[a, b]'"
    assert index_samples([sample("1", "/there"), sample("2", "/there")]).digest == index.digest
    assert index_samples([sample("2", "/here"), sample("1", "/here")]).digest != index.digest
    index.write(tmp_path / "deep" / "questions.parquet")
    assert (tmp_path / "deep" / "questions.parquet").stat().st_size > 0


@pytest.mark.usefixtures("quiet")
def test_lineage_of_a_model_on_the_hub_and_of_weights_that_are_large(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("x" * 3000)
    run = wandb.init(mode="offline", dir=tmp_path, project="p", id="r")
    use_inputs(run, ModelSettings("Qwen/Qwen2.5-VL-7B-Instruct", revision="abc"), None, tmp_path)
    log_outputs(run, tmp_path, upload_mb=0.001)
    run.finish()
    wandb.teardown()
    (path,) = offline_runs(tmp_path, "r")
    base, left = (record.artifact for record, _ in read_records(path) if record.HasField("artifact"))
    assert base.use_after_commit and base.name == "base-model-Qwen-Qwen2.5-VL-7B-Instruct-abc"
    (entry,) = base.manifest.contents
    assert entry.ref == "https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct/tree/abc"
    (entry,) = left.manifest.contents
    assert (left.name, left.use_after_commit) == ("model-r", False) and entry.ref.endswith("model/config.json")


def test_a_checkpoint_goes_with_its_shards(tmp_path: Path) -> None:
    shards = tmp_path / "checkpoints" / "last.parts-0"
    shards.mkdir(parents=True)
    (shards.parent / "last.ckpt").write_text("x" * 10)
    (shards / "a.safetensors").write_text("x" * 2000)
    for name, limit in (("all", 1.0), ("none", 0.001)):
        run = wandb.init(mode="offline", dir=tmp_path / name, project="p", id=name)
        log_outputs(run, tmp_path, upload_mb=limit)
        run.finish()
        wandb.teardown()
    entries = []
    for name in ("all", "none"):
        (path,) = offline_runs(tmp_path / name, name)
        (left,) = (record.artifact for record, _ in read_records(path) if record.HasField("artifact"))
        assert json.loads(left.metadata)["bytes"] == 2010
        entries.append({entry.path: entry.ref for entry in left.manifest.contents})
    assert entries[0] == {"last.ckpt": "", "last.parts-0/a.safetensors": ""}
    (reference,) = entries[1].values()
    assert reference.endswith("checkpoints/last.ckpt")


def test_what_the_video_adds_is_among_the_first_of_the_workspace(tmp_path: Path) -> None:
    run = with_controls(training_run(tmp_path / "run", [True] * 4, [True] * 4), {"grey": 0.1, "none": 0.2})
    adds = added_metrics([str(run)])
    assert adds == ["eval/heldout/reward/answer/over_grey", "eval/heldout/reward/answer/over_none"]
    curves = curves_of(["reward/total", "reward/mine", "rollout/entropy", "train/kl"])
    assert curves["Reward"] == {"reward/total": "Total reward", "reward/mine": "mine"}
    workspace = make_workspace("us", "p", ["eval/rooms/reward/total"], adds, curves)
    names = ["Reward", "What the video adds", "Lengths and entropy", "Evaluation", "Rollouts and maps", "Training"]
    assert [section.name for section in workspace.sections] == names
    assert drawn(definition(workspace))[2:4] == adds


def test_git_state(tmp_path: Path) -> None:
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert git_state(ROOT)["git_commit"] == head.stdout.strip()
        assert git_state(ROOT / "spacer") == {"git_commit": None, "git_dirty": None}  # not the whole of a checkout
    assert git_state(tmp_path) == {"git_commit": None, "git_dirty": None}
    for words in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-mx"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert git_state(tmp_path)["git_dirty"] is False
    (tmp_path / "f").write_text("x")
    subprocess.run(["git", "-C", str(tmp_path), "add", "f"], check=True)
    assert git_state(tmp_path)["git_dirty"] is True


class Stub:
    """What a logger asks of a W&B run."""

    step = 3

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, row: dict[str, float], step: int) -> None:
        self.logged.append((step, row))


def test_a_run_that_goes_on_with_no_step_left_loses_none_of_its_history(tmp_path: Path) -> None:
    """Lightning has loggers save as it begins to fit; and W&B may hold less than the history when a run is killed."""
    history = tmp_path / "history.jsonl"
    history.write_text("".join(f'{{"step": {step}, "train/kl": 0.5}}\n' for step in range(6)))
    first = CsvHistory(tmp_path, history)
    for step in range(6):
        first.log_metrics({"train/kl": 0.5}, step)
    before = (tmp_path / "csv/metrics.csv").read_text()
    again = CsvHistory(tmp_path, history)
    again.save()
    again.finalize("success")
    assert (tmp_path / "csv/metrics.csv").read_text() == before and before.count("0.5") == 6
    stub = Stub()
    logger = WandbHistory(stub, history, held=4)
    logger.log_metrics({"eval/rooms/reward/total": 1.5})
    assert [step for step, _ in stub.logged[:-1]] == [4, 5] and "eval/rooms/reward/total" in stub.logged[-1][1]


@pytest.mark.parametrize("step", [1, 12_345])
def test_the_bar_is_one_line_of_80_columns(step: int) -> None:
    columns = Progress().configure_columns(MagicMock())
    words = "reward: 1.39 map: 0.207 length: 137 kl: 0.000312"
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    with RichProgress(*columns, TextColumn(words), console=console, auto_refresh=False) as bar:
        bar.update(bar.add_task("", total=99_999), completed=step)
        (line,) = console.render_lines(bar.make_tasks_table(bar.tasks))
    assert "0.000312" in "".join(segment.text for segment in line)
