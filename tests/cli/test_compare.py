"""Runs compared as a user does it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.cli.conftest import Command, succeeds
from tests.unit.outcomes import made_rows, write_run


def test_three_runs_without_torch(without_torch: Command, tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, made_rows(seed, 0.3 + 0.2 * seed)) for seed, name in enumerate("xyz")]
    words = ["stage=compare", f"runs=[{','.join(map(str, folders))}]", "logger=none", "evaluation.resamples=500"]
    printed = succeeds(without_torch(*words, f"hydra.run.dir={tmp_path / 'out'}", cwd=tmp_path))
    for said in ("B against A", "C against A", "overall (questions)", f"A: {folders[0]}", "comparison.json"):
        assert said in printed, printed
    assert all(len(line) <= 80 for line in printed.splitlines() if str(tmp_path) not in line and line[:1] != "[")
    made = json.loads((tmp_path / "out/comparison.json").read_text())
    first, second = (entry["metrics"]["overall"]["delta"] for entry in made["comparisons"])
    assert 0 < first < second
    with Image.open(tmp_path / "out/figures/comparison.png") as picture:
        assert picture.width > 1000


def test_wandb_offline_never_asks(command: Command, tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, made_rows(seed, 0.5)) for seed, name in enumerate("xy")]
    runs = f"runs=[{','.join(map(str, folders))}]"
    done = command("stage=compare", runs, "evaluation.resamples=200", f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wandb sync" in done.stdout
    (written,) = tmp_path.glob("out/wandb/offline-run-*/run-*.wandb")
    assert b"compare/B/task/room_size_estimation/delta" in written.read_bytes()
    assert list(tmp_path.glob("out/wandb/**/comparison_*.png"))


def test_mistakes_are_told_without_a_traceback(command: Command, tmp_path: Path) -> None:
    good = write_run(tmp_path / "good", made_rows(0, 0.5))
    done = command("stage=compare", f"runs=[{good},{tmp_path / 'none'}]", f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode == 1 and "is not an existing folder" in done.stderr and "Traceback" not in done.stderr
    other = write_run(tmp_path / "other", made_rows(1, 0.5), benchmark="sti_bench")
    done = command("stage=compare", f"runs=[{good},{other}]", f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode == 1 and "of different benchmarks" in done.stderr and "Traceback" not in done.stderr
