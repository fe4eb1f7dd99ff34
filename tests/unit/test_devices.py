"""A run computes where it can or says why not; an unwritable home folder costs nothing."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spacer.config.settings import ClusterSettings, RoomsSettings, SlurmSettings
from spacer.data.scenes import rooms
from spacer.distributed.strategies import Place, place_of
from spacer.errors import UserError
from tests.cli.forks import ROOT

NOBODY = 65534


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, and neither srun nor torchrun."""
    if torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_", "WORLD_SIZE", "RANK"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "cluster",
    [
        ClusterSettings(accelerator="gpu"),
        ClusterSettings(accelerator="cuda", devices="auto", strategy="ddp"),
        ClusterSettings(devices=2),
        ClusterSettings(devices=8, strategy="fsdp"),
        SlurmSettings(gpus_per_node=1),
        SlurmSettings(gres="gpu:a100:1"),
    ],
)
def test_devices_that_are_not_there_are_refused(cluster: ClusterSettings) -> None:
    with pytest.raises(UserError) as refused:
        place_of(cluster)
    said = str(refused.value)
    assert "cluster." in said and ("no GPU here" in said or "cannot be had on this machine" in said)
    assert "set " in said or "choose " in said or "take " in said, said  # the remedy


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_cpu_in_place_of_all_gpus_is_told_loudly(strategy: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert place_of(ClusterSettings(devices="auto", strategy=strategy)) == Place(0, 1)
    assert "NO GPU" in caplog.text and "CPU" in caplog.text


def test_the_cpu_that_was_asked_for_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert place_of(ClusterSettings(accelerator="cpu")) == Place(0, 1)
        assert place_of(ClusterSettings()) == Place(0, 1)
    assert "GPU" not in caplog.text


def srun(monkeypatch: pytest.MonkeyPatch, tasks: int, nodes: int = 1) -> None:
    """The environment of the first of a step's tasks."""
    given = {
        **{"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(tasks)},
        **{"SLURM_NTASKS_PER_NODE": str(tasks // nodes), "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        **{"SLURM_NODEID": "0", "SLURM_NNODES": str(nodes), "SLURM_NODELIST": "n[1-2]"},
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("asked", "started"), [(1, 2), (2, 1), (2, 4), (4, 2)])
def test_fewer_or_more_processes_than_asked_for_are_refused(
    asked: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun(monkeypatch, started)
    with pytest.raises(UserError) as refused:
        place_of(ClusterSettings(accelerator="cpu", devices=asked, strategy="ddp"))
    assert "start one" in str(refused.value) or "was started" in str(refused.value)


def test_as_many_processes_as_asked_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    srun(monkeypatch, 2)
    assert place_of(ClusterSettings(accelerator="cpu", devices=2, strategy="ddp")) == Place(0, 2)


def test_rooms_that_cannot_be_kept_name_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError) as refused:
        rooms.build(RoomsSettings(str(tmp_path / "file/rooms")))
    for words in (f"dataset.root={tmp_path}/file/rooms", "SPACER_CACHE"):
        assert words in str(refused.value)


def as_nobody(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python as a user who may write nowhere but to temporary folders; skips where that cannot be."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user, by setpriv")
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "MPL", "TRITON"))}
    env = kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def call(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, text], env=env, cwd="/", capture_output=True, text=True, timeout=300)

    if call("import matplotlib, hydra, spacer").returncode:
        pytest.skip("the packages cannot be read by another user")
    return call(code)


def test_a_home_folder_without_permission_costs_nothing(tmp_path: Path) -> None:
    code = """
import os
from spacer.process.home import keep_caches
keep_caches()
import matplotlib
from matplotlib import font_manager
places = [os.environ[name] for name in ("MPLCONFIGDIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "TRITON_CACHE_DIR")]
assert all(not place.startswith(os.environ["HOME"]) for place in places)
assert os.access(matplotlib.get_cachedir(), os.W_OK)
print("went well")
"""
    done = as_nobody(code, tmp_path)  # which is root's alone
    assert done.returncode == 0 and done.stdout == "went well\n" and "Traceback" not in done.stderr


def test_rooms_in_a_home_folder_without_permission_name_the_settings(tmp_path: Path) -> None:
    code = """
from spacer.config.settings import RoomsSettings
from spacer.data.scenes import rooms
from spacer.errors import UserError
try:
    rooms.build(RoomsSettings("~/.cache/spacer/rooms"))
except UserError as error:
    print(error)
"""
    done = as_nobody(code, tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("dataset.root=", "Permission denied", "SPACER_CACHE"):
        assert words in done.stdout
