"""Training interrupted by Ctrl-C or `kill` ends after the step and resumes from there, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Command, succeeds, wait_for
from tests.cli.forks import Forks
from tests.cli.test_train import rows
from tests.slurm.runs import STEPS, TRAINING, assert_as_in

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def peace(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was left in peace."""
    folder = tmp_path_factory.mktemp("peace")
    succeeds(command(*TRAINING, f"hydra.run.dir={folder}"))
    return folder


def interrupted(overrides: Sequence[str], forks: Forks, folder: Path, send: Callable[[int], None]) -> tuple[int, str]:
    """The exit status of a run that is sent a signal after its second step, and what it said."""
    history = folder / "history.jsonl"

    def interrupt(pid: int) -> None:
        wait_for(lambda: history.exists() and history.read_text().count("\n") >= 2, pid)
        send(pid)

    done = forks.call(overrides, meanwhile=interrupt)
    return done.returncode, done.stdout + done.stderr


# Ctrl-C reaches the data workers, too; a job that SLURM starts again need not be told to go on, wherever it began
@pytest.mark.parametrize(
    ("signum", "send", "again"),
    [(signal.SIGINT, os.killpg, {}), (signal.SIGTERM, os.kill, {"SLURM_RESTART_COUNT": "1"})],
)
def test_it_ends_after_the_step_and_goes_on(
    signum: signal.Signals, send, again: dict[str, str], peace: Path, forks: Forks, tmp_path: Path
) -> None:
    overrides, history = (*TRAINING, "logger=wandb", f"hydra.run.dir={tmp_path}"), tmp_path / "history.jsonl"
    status, said = interrupted(overrides, forks, tmp_path, lambda pid: send(pid, signum))
    assert status == 128 + signum and "Traceback" not in said, said
    done = len(rows(history))
    assert 2 <= done < STEPS
    assert (
        f"stopped after step {done}; go on with the same settings and ckpt_path=last hydra.run.dir={tmp_path}" in said
    )

    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    words = [*overrides, *([] if again else ["ckpt_path=last"])]
    said = succeeds(forks.call(words, variables=again))
    assert f"resuming after step {done}" in said
    assert_as_in(peace, tmp_path)
    assert len(rows(history)) == STEPS
    starts = [path.name for path in tmp_path.glob("wandb/offline-run-*")]
    assert len(starts) == 2 and len({name.split("-", 3)[-1] for name in starts}) == 1  # one W&B run


def test_of_several_processes_the_first_tells_how_all_ended(forks: Forks, tmp_path: Path) -> None:
    """Lightning kills the first where another that it has started ends otherwise than well."""
    devices = ("cluster=ddp", "cluster.accelerator=cpu", "cluster.devices=2")
    overrides = (*TRAINING, *devices, "logger=wandb", f"hydra.run.dir={tmp_path}")
    status, said = interrupted(overrides, forks, tmp_path, lambda pid: os.kill(pid, signal.SIGTERM))
    assert status == 128 + signal.SIGTERM and "Traceback" not in said, said
    assert said.count("stopped after step") == 1
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "killed"
    assert (tmp_path / "checkpoints/last.ckpt").exists()
