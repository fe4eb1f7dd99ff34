"""Running `python run.py …` as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "dataset.train_scenes=10",
    "dataset.heldout_scenes=4",
    "dataset.workers=1",
    "benchmark.resamples=200",
    "model.prompts_per_rollout=2",
    "objective.group_size=4",
    "trainer.checkpoint_every_n_steps=1",
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
def command(environment: dict[str, str]) -> Command:
    """Calls run.py with overrides, by default in the repository, and returns what it said."""

    def call(*overrides: str, timeout: float = 300, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(ROOT / "run.py"), *overrides]
        return subprocess.run(
            words, env=environment, cwd=cwd, text=True, capture_output=True, timeout=timeout, check=False
        )

    return call
