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

from tests.cli.chaos import is_alive
from tests.cli.forks import ROOT, TIMEOUT_S, Forks, forking
from tests.distributed import Folder, distribute

SMALL = (
    "dataset.train_scenes=10",
    "dataset.heldout_scenes=4",
    "dataset.workers=1",
    "evaluation.resamples=200",
    "model.prompts_per_rollout=2",
    "objective.group_size=4",
    "trainer.checkpoint_every_n_steps=1",
)
# a run of three steps that writes and answers little, for what is started several times; its completions end
BRIEF = (
    *("dataset.train_scenes=4", "dataset.heldout_scenes=2", "dataset.workers=1", "evaluation.resamples=200"),
    *("evaluation.limit=8", "model.prompts_per_rollout=1", "objective.group_size=2", "model.completion.max_tokens=96"),
    *("model.completion.bonus_min=4", "model.completion.bonus_max=96", "trainer.checkpoint_every_n_steps=1"),
    *("trainer.max_steps=3", "trainer.self_check=false", "stage.evaluate_before=false", "logger=none"),
)

Command = Callable[..., subprocess.CompletedProcess[str]]
Kill = Callable[[Sequence[str], Callable[[], bool]], None]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No account, no network, a home of our own, and rooms that the session's processes make once for all of them."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    cache.mkdir(exist_ok=True)
    dropped = ("WANDB_API_KEY", "WANDB_MODE", "SPACER_ROOT", "HYDRA_FULL_ERROR")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    home = str(tmp_path_factory.mktemp("home"))
    return kept | {"SPACER_CACHE": str(cache), "HOME": home, "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}


@pytest.fixture(scope="session")
def forks(environment: dict[str, str]) -> Iterator[Forks]:
    """What calls run.py."""
    with forking(environment) as forks:
        yield forks


@pytest.fixture(scope="session")
def command(forks: Forks) -> Command:
    """Calls run.py with overrides, by default in the repository, and returns what it said."""
    return lambda *overrides, cwd=ROOT: forks.call(overrides, cwd)


@pytest.fixture(scope="session")
def kill(forks: Forks) -> Kill:
    """Calls run.py with overrides and kills it, with all its children, once something holds."""

    def call(overrides: Sequence[str], when: Callable[[], bool]) -> None:
        def end(pid: int) -> None:
            wait_for(when, pid)
            os.killpg(pid, signal.SIGKILL)

        assert forks.call(overrides, meanwhile=end).returncode == -signal.SIGKILL

    return call


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


def wait_for(holds: Callable[[], bool], pid: int) -> None:
    """Returns once something holds, which is to be so while a process is alive."""
    deadline = time.monotonic() + 240
    while not holds():
        assert is_alive(pid) and time.monotonic() < deadline
        time.sleep(0.005)
