"""Training that is told to end, by Ctrl-C or `kill`, ends after the step and goes on from there, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command, succeeds
from tests.cli.test_train import rows
from tests.slurm.runs import STEPS, TRAINING, assert_as_in


@pytest.fixture(scope="module")
def peace(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was left in peace."""
    folder = tmp_path_factory.mktemp("peace")
    succeeds(command(*TRAINING, f"hydra.run.dir={folder}"))
    return folder


# Ctrl-C reaches the data workers, too
@pytest.mark.parametrize(("signum", "send"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)])
def test_it_ends_after_the_step_and_goes_on(
    signum: signal.Signals, send, peace: Path, command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    overrides = (*TRAINING, "logger=wandb", f"hydra.run.dir={tmp_path}")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *overrides],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    history = tmp_path / "history.jsonl"
    deadline = time.monotonic() + 240
    while not (history.exists() and history.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    send(process.pid, signum)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 128 + signum, said
    assert "Traceback" not in said
    done = len(rows(history))
    assert 2 <= done < STEPS
    assert (
        f"stopped after step {done}; go on with the same settings and ckpt_path=last hydra.run.dir={tmp_path}" in said
    )

    said = succeeds(command(*overrides, "ckpt_path=last"))
    assert f"going on after step {done}" in said
    assert_as_in(peace, tmp_path)
    assert len(rows(history)) == STEPS
    starts = [path.name for path in tmp_path.glob("wandb/offline-run-*")]
    assert len(starts) == 2 and len({name.split("-", 3)[-1] for name in starts}) == 1  # one W&B run
