"""Data from one's own rollouts: completions are sampled, chosen from and imitated, whatever kills the run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spacer.data.generated import best_targets
from tests.cli.conftest import ROOT, Command, Kill, fails, succeeds
from tests.cli.test_train import rows

pytestmark = pytest.mark.long

DATA = (
    *("dataset.train_scenes=10", "dataset.heldout_scenes=2", "dataset.workers=1", "evaluation.resamples=200"),
    "dataset.balanced=false",  # three questions about each room
)
FEW = (*DATA, "stage.completions=4", "stage.batch_size=3", "logger=none")
TWO = ("cluster.devices=2", "cluster.accelerator=cpu", "cluster.strategy=ddp")
QUESTIONS = 30


def to_generate(out: Path, *more: str) -> list[str]:
    return ["stage=generate", *FEW, f"hydra.run.dir={out}", *more]


@pytest.fixture(scope="module")
def generated(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run that was left in peace, and what it printed."""
    out = tmp_path_factory.mktemp("generated")
    return out, succeeds(command(*to_generate(out)))


def written(folder: Path) -> list[dict]:
    """The whole lines that are on disk, of whichever process."""
    lines = [line for file in folder.glob("generated*.jsonl") for line in file.read_text().splitlines(True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_each_question_has_its_completions_and_the_summary_its_pass_rates(generated: tuple[Path, str]) -> None:
    out, said = generated
    found = rows(out / "generated.jsonl")
    assert len(found) == QUESTIONS and all(len(row["completions"]) == 4 for row in found)
    for row in found:
        right = [each["right"] for each in row["completions"]]
        assert row["pass_rate"] == sum(right) / 4
        assert all(each["right"] == (each["reward"]["answer"] > 0.5) for each in row["completions"])
    assert any(0 < row["pass_rate"] < 1 for row in found)  # else what follows shows nothing
    summary = json.loads((out / "summary.json").read_text())
    total = summary["pass_rates"]["all"]
    assert total["mean"] == pytest.approx(sum(row["pass_rate"] for row in found) / QUESTIONS)
    assert total["never"] == sum(row["pass_rate"] == 0 for row in found)
    teach = sum(len({each["reward"]["total"] for each in row["completions"]}) > 1 for row in found)
    assert 0 < total["teaching"] == teach and total["low"] < total["mean"] < total["high"]
    assert "Teach" in said and f"report: {out / 'report.html'}" in said
    assert '"label":"all questions"' in (out / "report.html").read_text()
    assert summary["questions"] == QUESTIONS and summary["completions"] == 4 * QUESTIONS
    assert set(summary["pass_rates"]) == {"all", *(row["question_type"] for row in found)}
    assert "Pass rates over 4 completions of each question" in said
    assert f"dataset.generated={out}/generated.jsonl dataset.pass_rate=[0.1,0.9]" in said


@pytest.mark.parametrize("more", [(), TWO], ids=["one process", "two processes"])
def test_killed_and_completed_leaves_what_one_never_killed_leaves(
    more: tuple[str, ...], generated: tuple[Path, str], command: Command, kill: Kill, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kill(to_generate(out, "stage.batch_size=2", *more), lambda: len(written(out)) >= 7)
    held = {row["id"]: row for row in written(out)}
    assert 7 <= len(held) < QUESTIONS
    with open(next(out.glob("generated.*.part.jsonl")), "a") as file:
        file.write('{"id": "train_0000')  # what a crash of the machine may leave
    succeeds(command(*to_generate(out, "ckpt_path=last")))
    assert (out / "generated.jsonl").read_bytes() == (generated[0] / "generated.jsonl").read_bytes()
    assert not list(out.glob("generated.*.part.*"))


def test_a_finished_run_asks_nothing_again_and_other_conditions_are_refused(
    generated: tuple[Path, str], command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(generated[0], out)
    before = (out / "generated.jsonl").read_bytes()
    again = command(*to_generate(out))
    assert "Pass rates over 4 completions" in succeeds(again)
    assert "30 questions," not in again.stderr and (out / "generated.jsonl").read_bytes() == before
    fails(command(*to_generate(out, "stage.completions=8")), "other conditions", "completions: 4 then, 8 now")
    fails(command(*to_generate(out, "stage.temperature=0.7")), "decoding.temperature: 1.0 then, 0.7 now")
    succeeds(command(*to_generate(out, "overwrite=true", "stage.completions=2", "stage.limit=2")))
    assert [len(row["completions"]) for row in rows(out / "generated.jsonl")] == [2, 2]


def test_the_right_completions_are_imitated_and_questions_without_left_out(
    generated: tuple[Path, str], command: Command, tmp_path: Path
) -> None:
    file = generated[0] / "generated.jsonl"
    named = [f"dataset.generated={file}", "dataset.pass_rate=[0.2,0.9]", "logger=none", *DATA]
    left = [row for row in rows(file) if 0.2 <= row["pass_rate"] <= 0.9]
    sft = ["stage=sft", "stage.targets=generated", "stage.batch_size=2", "stage.evaluate_after=false"]
    done = command(*sft, *named, f"hydra.run.dir={tmp_path / 'sft'}")
    succeeds(done)
    said = done.stdout + done.stderr
    assert f"of {QUESTIONS} questions to train on" in said and "outside dataset.pass_rate" in said
    fit = [row for row in left if best_targets(row["completions"], 1)]
    assert f"{len(fit)} of {QUESTIONS} questions to train on: " in said
    assert len(rows(tmp_path / "sft/history.jsonl")) == len(fit) // 2
    other = command(*sft, *named, "seed=1", f"hydra.run.dir={tmp_path / 'other'}")
    fails(other, f"dataset.generated={file} is of another data set: it has another question")


def test_the_script_goes_from_rollouts_to_grpo_and_leaves_out_what_is_done(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """As a user calls it, with few questions."""
    out = tmp_path / "out"
    words = ["bash", str(ROOT / "experiments/own_rollouts.sh"), str(out), *DATA, "logger=none"]
    few = ["model.prompts_per_rollout=2", "objective.group_size=4", "trainer.max_steps=2", "evaluation.limit=4"]
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    how = {"env": environment | {"PATH": path}, "text": True, "capture_output": True, "check": False}
    said = succeeds(subprocess.run([*words, *few], **how))
    assert said.count("Pass rates over 8 completions") == 2
    assert (out / "grpo/model/model.safetensors").is_file()
    config = (out / "grpo/.hydra/config.yaml").read_text()
    assert f"name_or_path: {out}/sft/model" in config and f"generated: {out}/again/generated.jsonl" in config
    assert succeeds(subprocess.run([*words, *few], **how)) == ""  # all steps have ended
