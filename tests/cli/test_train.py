"""The main job through the command line: what it leaves, and that a killed run ends as one never killed."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spacer.tracking.offline import offline_runs, read_records
from tests.cli.conftest import ROOT, SMALL, Command, Kill
from tests.pages import page

STEPS = 5


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wandb_records(folder: Path) -> list:
    """The records of the W&B run of a folder, in all of its offline parts."""
    (run_id,) = {path.stem.removeprefix("run-") for path in folder.glob("wandb/offline-run-*/*.wandb")}
    return [record for path in offline_runs(folder, run_id) for record, _ in read_records(path)]


def wandb_history(records: list) -> list[dict]:
    items = [record.history.item for record in records if record.HasField("history")]
    return [{"/".join(item.nested_key[:1]) or item.key: json.loads(item.value_json) for item in row} for row in items]


def told_metrics() -> set[str]:
    """The names in the site's table of metrics, but for those of stage=vision."""
    found: set[str] = set()
    for line in page("reports").splitlines():
        names = (
            re.findall(r"`((?:train|reward|rollout|speed)/[a-z_]+)`", line.split("|")[1])
            if line[:3] == "| `" and "stage=vision" not in line
            else []
        )
        found |= set(names)
    return found


@pytest.fixture(scope="module")
def finished(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run that was left in peace."""
    folder = tmp_path_factory.mktemp("finished")
    done = command(*SMALL, f"trainer.max_steps={STEPS}", "logger.rollouts_every_n_steps=2", f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said.txt").write_text(done.stdout + done.stderr)
    return folder, done.stdout


def test_leaves_what_the_site_promises(finished: tuple[Path, str]) -> None:
    folder, output = finished
    summary = json.loads((folder / "summary.json").read_text())
    total = summary["metrics"]["reward/total"]
    assert total["delta"] == pytest.approx(total["after"] - total["before"])
    assert (total["delta_low"], total["delta_high"]) == (None, None)  # of four scenes
    assert "< 10 scenes" in output
    assert set(summary["seconds"]) >= {"evaluate before", "train", "evaluate after"}
    before, after = rows(folder / "predictions/before.jsonl"), rows(folder / "predictions/after.jsonl")
    assert [row["id"] for row in before] == [row["id"] for row in after]
    assert len({row["scene"] for row in before}) == 4
    mean = sum(row["reward"]["total"] for row in after) / len(after)
    assert total["after"] == pytest.approx(mean)
    for name in ("model/config.json", "model/model.safetensors", "figures/reward_curves.png", ".hydra/config.yaml"):
        assert (folder / name).stat().st_size > 0
    assert len(rows(folder / "history.jsonl")) == STEPS
    assert "total" in output and "95 % interval" in output and f"{folder}/model" in output
    assert f"wandb sync {folder}/wandb" in output
    assert all(len(line) <= 80 for line in output.splitlines() if "[" not in line and str(folder) not in line)
    assert f"report: {folder}/report.html" in output
    report = (folder / "report.html").read_text()
    rollouts = {(row["id"], row["frames"]) for row in rows(folder / "rollouts.jsonl")}
    assert "Content-Security-Policy" in report and report.count("data:video/mp4") == 4
    assert report.count("data:image/jpeg") == 4 + len(rollouts)


def test_a_log_file_holds_lines_and_no_control_codes(finished: tuple[Path, str]) -> None:
    said = (finished[0] / "said.txt").read_text()
    assert not [character for character in said if ord(character) < 32 and character != "\n"]
    assert "\x7f" not in said and "\x9b" not in said
    asked = len(rows(finished[0] / "predictions/after.jsonl"))
    for words in (f"evaluate: {asked} of {asked} questions", "frames for the report: 4 of 4"):
        assert words in said
    ours = [line for line in said.splitlines() if line[2:3] == ":" or " of " in line]
    assert all(len(line) <= 80 for line in ours if str(finished[0]) not in line)


def test_wandb_offline_holds_every_metric_of_the_site(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    records = wandb_records(folder)
    history = wandb_history(records)
    logged = {name for row in history for name in row if not name.startswith("_")}
    absent = {"reward/temporal", "rollout/std_temporal"}  # which `reward=sg_rlvr` does not give
    named = told_metrics() - absent
    assert named | {"figures/curves", "figures/question_types", "figures/map_1"} <= logged
    curves = {name for name in logged if name.split("/")[0] in ("train", "reward", "rollout", "speed")}
    assert curves == named
    assert curves - {"rollout/table"} == {name for row in rows(folder / "history.jsonl") for name in row} - {"step"}
    assert {f"eval/rooms/reward/{name}" for name in ("total", "answer", "map", "format")} <= logged
    assert [row["_step"] for row in history] == list(range(STEPS))
    assert [row["train/prompts_seen"] for row in history] == [2 * (step + 1) for step in range(STEPS)]
    drawn_over = {entry.metric.glob_name: entry.metric.step_metric for entry in records if entry.HasField("metric")}
    assert all(
        drawn_over[f"{group}/*"] == "train/prompts_seen" for group in ("train", "reward", "rollout", "speed", "eval")
    )
    summary = json.loads((folder / "summary.json").read_text())["metrics"]["reward/total"]
    assert history[-1]["eval/rooms/reward/total"] == pytest.approx(summary["after"])
    last = {item.key: json.loads(item.value_json) for record in records for item in record.summary.update}
    assert last["eval/rooms/reward/total/delta"] == pytest.approx(summary["delta"])
    assert "eval/rooms/reward/total/delta_low" not in last  # four scenes have no interval


def test_wandb_offline_says_where_its_metrics_come_from(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    records = wandb_records(folder)
    config = {
        item.key: json.loads(item.value_json)
        for record in records
        if record.HasField("run")
        for item in record.run.config.update
    }
    (tags,) = {tuple(record.run.tags) for record in records if record.HasField("run")}
    assert tags == ("tiny", "rooms", "sg_rlvr")
    assert config["objective/group_size"] == 4 and config["choice/reward"] == "sg_rlvr"
    assert f"trainer.max_steps={STEPS}" in config["run/command"] and {"run/git_commit", "run/git_dirty"} <= set(config)
    assert not any(isinstance(value, dict) for name, value in config.items() if name != "_wandb")
    made = {record.artifact.name: record.artifact for record in records if record.HasField("artifact")}
    begun_from = {artifact.type for artifact in made.values() if artifact.use_after_commit}
    assert begun_from == {"dataset", "model"}
    questions = made[f"questions-{config['data/digest']}"]
    assert json.loads(questions.metadata)["questions"] == config["data/questions"] > 0
    base = next(artifact for name, artifact in made.items() if name.startswith("base-model-"))
    assert all(entry.ref.startswith("file://") for entry in base.manifest.contents)
    left = {artifact.type: artifact for artifact in made.values() if not artifact.use_after_commit}
    assert set(left) == {"run_table", "predictions", "checkpoint", "model"}
    assert {entry.path for entry in left["predictions"].manifest.contents} >= {
        "predictions/before.jsonl",
        "predictions/after.jsonl",
        "rollouts.jsonl",
    }
    for artifact in made.values():
        assert all(entry.ref or Path(entry.local_path).stat().st_size for entry in artifact.manifest.contents)


def test_rollouts_are_shown_with_the_same_held_out_prompts(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    shown = rows(folder / "rollouts.jsonl")
    heldout: dict[int, list[str]] = {}
    for row in shown:
        assert (folder / row["frames"]).stat().st_size > 0 and (folder / row["map"]).stat().st_size > 0
        if row["split"] == "heldout":
            heldout.setdefault(row["step"], []).append(row["id"])
    assert list(heldout) == [0, 2, 4] and len(heldout[0]) == 4
    assert heldout[0] == heldout[2] == heldout[4]
    assert sorted({row["step"] for row in shown if row["split"] == "train"}) == [1, 2, 4]
    group = [row for row in shown if row["split"] == "train" and row["step"] == 2 and row["id"] == shown[-1]["id"]]
    tables = [json.loads(path.read_text()) for path in folder.glob("wandb/offline-run-*/files/media/table/rollout/*")]
    assert len(tables) == 4 and max(len(table["data"]) for table in tables) == len(shown)
    assert {"frames", "completion", "thinking", "maps", "reward/map", "advantage"} <= set(tables[0]["columns"])
    assert all(row["advantage"] is not None for row in group)


def test_the_sync_command_takes_the_folder(finished: tuple[Path, str], environment: dict[str, str]) -> None:
    words = ["wandb", "sync", "--dry-run", str(finished[0] / "wandb")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert "Would sync 1 run(s)" in done.stdout + done.stderr


def test_the_dashboard_draws_what_runs_log(
    finished: tuple[Path, str], command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    from spacer.report.dashboard import drawn

    said = command("stage=dashboard", f"runs=[{finished[0]}]", f"hydra.run.dir={tmp_path}")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "not published" in said.stdout
    records = wandb_records(finished[0])
    logged = {name for row in wandb_history(records) for name in row}
    logged |= {item.key for record in records for item in record.summary.update}  # of which bars are made
    workspace, report = (
        json.loads((tmp_path / f"dashboard/{name}.json").read_text()) for name in ("workspace", "report")
    )
    assert set(drawn(report)) <= set(drawn(workspace)) <= logged
    assert {"reward/total", "reward/map", "eval/rooms/reward/total"} <= set(drawn(report))
    assert "reward/temporal" not in drawn(workspace)
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections][:3] == ["Reward", "What the video adds", "Lengths and entropy"]
    (runset,) = workspace["spec"]["section"]["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "choice/reward.value"}]
    panels = [
        panel for section in workspace["spec"]["section"]["panelBankConfig"]["sections"] for panel in section["panels"]
    ]
    curves = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert curves and all(curve["xAxis"] == "train/prompts_seen" for curve in curves)
    assert "rollout/table" in json.dumps(workspace) and "rollout/table" in json.dumps(report)
    table = next(block for block in report["spec"]["blocks"] if "95 % interval" in json.dumps(block))
    total = json.loads((finished[0] / "summary.json").read_text())["metrics"]["reward/total"]
    assert f"{total['delta']:.3f} | none |" in json.dumps(table)


def test_saved_model_is_an_ordinary_hugging_face_folder(finished: tuple[Path, str]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = finished[0] / "model"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(AutoProcessor.from_pretrained(folder)).__name__ == "Qwen2_5_VLProcessor"


@pytest.mark.long
def test_killed_and_resumed_ends_with_the_same_weights(
    finished: tuple[Path, str], command: Command, kill: Kill, tmp_path: Path
) -> None:
    overrides = [*SMALL, f"trainer.max_steps={STEPS}", "logger.rollouts_every_n_steps=2", f"hydra.run.dir={tmp_path}"]
    history = tmp_path / "history.jsonl"
    kill(overrides, lambda: history.exists() and history.read_text().count("\n") >= 3)
    assert not (tmp_path / "summary.json").exists()

    resumed = command(*overrides, "ckpt_path=last")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    untouched, mended = (load_file(folder / "model/model.safetensors") for folder in (finished[0], tmp_path))
    assert untouched.keys() == mended.keys()
    assert all(torch.equal(untouched[name], mended[name]) for name in untouched)
    start = load_file(ROOT / "spacer/assets/tiny/model.safetensors")
    assert any(not torch.equal(start[name].float(), mended[name].float()) for name in start)
    answers = [(folder / "predictions/after.jsonl").read_text() for folder in (finished[0], tmp_path)]
    assert answers[0] == answers[1]

    histories = [rows(folder / "history.jsonl") for folder in (finished[0], tmp_path)]
    assert [row["step"] for row in histories[1]] == list(range(STEPS))
    timeless = [[{k: v for k, v in row.items() if not k.startswith("speed/")} for row in found] for found in histories]
    assert timeless[0] == timeless[1]
    tracked = wandb_history(wandb_records(tmp_path))
    assert [row["_step"] for row in tracked] == list(range(STEPS))
    assert [row["train/prompts_seen"] for row in tracked] == [row["train/prompts_seen"] for row in histories[0]]
    assert rows(finished[0] / "rollouts.jsonl") == rows(tmp_path / "rollouts.jsonl")


@pytest.mark.long
def test_killed_and_resumed_csv_goes_on(
    finished: tuple[Path, str], command: Command, kill: Kill, tmp_path: Path
) -> None:
    words = [*SMALL, f"trainer.max_steps={STEPS}", "logger=csv", f"hydra.run.dir={tmp_path}"]
    words += ["stage.evaluate_before=false", "stage.evaluate_after=false", "logger.rollouts_every_n_steps=0"]
    path = tmp_path / "csv/metrics.csv"
    kill(words, lambda: path.exists() and path.read_text().count("\n") >= 3)
    assert command(*words, "ckpt_path=last").returncode == 0
    with open(path, newline="") as file:
        found = list(csv.DictReader(file))
    assert [int(row["step"]) for row in found] == list(range(STEPS))
    assert all(value for row in found for value in row.values())
    # nor is training any other for the rollouts that the finished run has shown
    rewards = [[row["reward/total"] for row in rows(place / "history.jsonl")] for place in (finished[0], tmp_path)]
    assert rewards[0] == rewards[1] == [float(row["reward/total"]) for row in found]
    assert not (tmp_path / "rollouts.jsonl").exists()
