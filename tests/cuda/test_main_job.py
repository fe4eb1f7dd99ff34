"""The main job on a CUDA device, as a user starts it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import BRIEF
from tests.cli.forks import ROOT

# the batches of a whole rollout, the self-check, a summary; W&B has tests of its own
SMALL = (*(word for word in BRIEF if not word.startswith(("trainer.self_check", "logger"))), "logger=csv")


def train(folder: Path, *overrides: str) -> tuple[str, list[dict[str, float]]]:
    """What a run logs, and its history."""
    done = subprocess.run(
        [sys.executable, "run.py", *SMALL, *overrides, f"hydra.run.dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "SPACER_CACHE": str(folder.parent / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return (folder / "run.log").read_text(), rows


@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer.precision=32-true",),
        ("trainer.precision=bf16-mixed",),
        ("trainer.precision=bf16-mixed", "model.gradient_checkpointing=all", "objective=ppo_clip"),
        ("trainer.precision=bf16-mixed", "model.lora={rank: 4, alpha: 8, dropout: 0.1}"),
        ("trainer.precision=bf16-mixed", "model.attn_implementation=sdpa", "model.gradient_checkpointing=vision"),
    ],
    ids=lambda words: " ".join(words),
)
def test_it_trains(overrides: tuple[str, ...], tmp_path: Path) -> None:
    log, rows = train(tmp_path / "run", *overrides)
    assert "attention on cuda" in log and "self-check" in log
    assert all(math.isfinite(row["train/gradient_norm"]) for row in rows) and rows
    assert (tmp_path / "run" / "summary.json").exists()


def test_its_first_step_is_that_of_a_cpu(tmp_path: Path) -> None:
    more = ("objective.group_size=8", "model.prompts_per_rollout=2")
    once = (*more, "trainer.max_steps=1", "stage.evaluate_after=false")
    steps = [train(tmp_path / kind, *once, f"cluster.accelerator={kind}")[1][0] for kind in ("cpu", "cuda")]
    assert steps[0]["reward/total"] > 0
    for name in ("reward/total", "train/loss", "train/gradient_norm", "rollout/length"):
        assert steps[0][name] == pytest.approx(steps[1][name], rel=1e-3, abs=1e-5), name
