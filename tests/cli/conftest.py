"""Running `python run.py …` as a user does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.forks import ROOT, TIMEOUT_S, forking
from tests.distributed import Folder, distribute

SMALL = (
    "dataset.train_scenes=10",
    "dataset.heldout_scenes=4",
    "dataset.workers=1",
    "benchmark.resamples=200",
    "model.prompts_per_rollout=2",
    "objective.group_size=4",
    "trainer.checkpoint_every_n_steps=1",
)
# a run of three steps that writes and answers little, for what is started several times
BRIEF = (
    *("dataset.train_scenes=4", "dataset.heldout_scenes=2", "dataset.workers=1", "benchmark.resamples=200"),
    *("benchmark.limit=8", "model.prompts_per_rollout=1", "objective.group_size=2", "model.completion.max_tokens=16"),
    *("model.completion.bonus_min=4", "model.completion.bonus_max=16", "trainer.checkpoint_every_n_steps=1"),
    *("trainer.max_steps=3", "trainer.self_check=false", "stage.evaluate_before=false", "logger=none"),
)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No account, no network, caches of our own."""
    cache = tmp_path_factory.mktemp("cache")
    dropped = ("WANDB_API_KEY", "WANDB_MODE", "SPACER_ROOT", "HYDRA_FULL_ERROR")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"SPACER_CACHE": str(cache), "HOME": str(cache), "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Iterator[Command]:
    """Calls run.py with overrides, by default in the repository, and returns what it said."""
    with forking(environment) as forks:
        yield lambda *overrides, cwd=ROOT: forks.call(overrides, cwd)


@pytest.fixture
def without_torch(environment: dict[str, str], tmp_path: Path) -> Command:
    """As `command`, where an import of torch, or of what needs it or an account, ends the process."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name in ("torch", "transformers", "pytorch_lightning", "wandb"):
        (stubs / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    without = environment | {"PYTHONPATH": f"{stubs}:{ROOT}"}

    def call(*overrides: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(ROOT / "run.py"), *overrides]
        return subprocess.run(
            words, env=without, cwd=cwd, text=True, capture_output=True, timeout=TIMEOUT_S, check=False
        )

    return call


def together(command: Command, runs: Sequence[Sequence[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Calls run.py with each of the overrides, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda words: command(*words), runs))


@pytest.fixture(scope="session")
def whole(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, str]:
    """A data set that was prepared in peace, and what was printed."""
    work = tmp_path_factory.mktemp("whole")
    folder = Folder(distribute(work / "source", work, heldout=True), work / "root", work / "out")
    return folder, succeeds(command(*folder.words))


@pytest.fixture
def copied(whole: tuple[Folder, str], tmp_path: Path) -> Folder:
    """The same files, not prepared yet."""
    shutil.copytree(whole[0].source, tmp_path / "source")
    return Folder(tmp_path / "source", tmp_path / "deep/root", tmp_path / "out")


def succeeds(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fails(done: subprocess.CompletedProcess[str], *words: str) -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = " ".join(done.stderr.split())
    for word in words:
        assert word in said, done.stderr
    return done.stderr


def killed(words: list[str], environment: dict[str, str], when: Callable[[], bool]) -> None:
    """Runs a command and kills it, with all its children, once `when` holds."""
    words = [sys.executable, str(ROOT / "run.py"), *words]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    deadline = time.monotonic() + 240
    while not when():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
