"""`spacer`, from a wheel and away from the repository, does what `python run.py` does."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, SMALL

Spacer = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as pip would lay them out."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def spacer(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Spacer:
    """Calls the wheel's `spacer` in an empty folder, with what it is asked for."""
    (info,) = installed.glob("*.dist-info")
    distribution: Distribution = PathDistribution(info)
    (entry,) = distribution.entry_points.select(group="console_scripts", name="spacer")
    script = tmp_path_factory.mktemp("bin") / "spacer"  # as pip writes it
    script.write_text(f"from {entry.module} import {entry.attr}\nif __name__ == '__main__':\n    {entry.attr}()\n")
    dropped = ("SPACER_ROOT", "SPACER_ASSETS", "WANDB_API_KEY", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    away = tmp_path_factory.mktemp("away")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", str(script), *words],
            env=kept | {"PYTHONPATH": str(installed)},
            cwd=away,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )

    return call


def test_every_group_and_named_run_travels(spacer: Spacer, installed: Path) -> None:
    done = spacer("experiments=spacer_7b", "--cfg", "job", "--resolve")
    assert done.returncode == 0 and "name_or_path: Qwen" in done.stdout, done.stderr
    for folder in ("conf", "experiments", "sweeps"):
        written = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.yaml")}
        travelled = {path.relative_to(installed / "spacer") for path in (installed / "spacer" / folder).rglob("*.yaml")}
        assert written == travelled


@pytest.mark.long
def test_a_run_and_a_sweep_from_a_wheel(spacer: Spacer, installed: Path, tmp_path: Path) -> None:
    without = ("stage.evaluate_before=false", "stage.evaluate_after=false", "logger=none")
    small = (*SMALL, *without, "logger.rollouts_every_n_steps=0", "trainer.max_steps=1")
    done = spacer(*small, f"hydra.run.dir={tmp_path}/once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(installed) in (tmp_path / "once/.hydra/hydra.yaml").read_text()
    swept = spacer("-m", *small, "seed=0,1", f"hydra.sweep.dir={tmp_path}/swept")
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert len(list(tmp_path.glob("*/model/model.safetensors"))) == 1
    assert len(list(tmp_path.glob("swept/*/model/model.safetensors"))) == 2
