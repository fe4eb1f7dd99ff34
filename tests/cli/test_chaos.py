"""Whatever happens to a run, it ends in a right result after a restart, or in a sentence that says what is wrong.

`SPACER_CHAOS_SEEDS` says how many seeds are tried, `SPACER_CHAOS_FIRST` the first of them.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.chaos import (
    DISTURBANCES,
    Disturbed,
    can_run,
    damages_a_file,
    fills_the_disk,
    kills_a_process_of_the_run,
    kills_the_run,
    revokes_a_permission,
    without_capabilities,
)
from tests.cli.conftest import BRIEF, ROOT, Command, succeeds
from tests.cli.forks import Forks, forking
from tests.cli.test_train import rows
from tests.disks import small_disk

pytestmark = pytest.mark.long

FIRST, COUNT = (int(os.environ.get(f"SPACER_CHAOS_{name}", default)) for name, default in (("FIRST", 0), ("SEEDS", 3)))
DISK_BYTES = 256 << 20
STEPS = 3
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)  # by the kernel, or by itself on being told
UNTIMED = ("seconds", "data_wait_share")
# Python prints and drops an exception raised in a destructor; the thread of spacer.process.ending then ends the run
IN_A_DESTRUCTOR = re.compile(
    r"Exception ignored (?:in|while)[^\n]*\n(?:Traceback[^\n]*\n(?:[ \t][^\n]*\n)+)?SystemExit: \d+\n"
)


@pytest.fixture(scope="module")
def held(environment: dict[str, str]) -> Iterator[Forks]:
    """What calls run.py so that permissions hold for it."""
    under = without_capabilities()
    if under and not can_run(*under, "true"):
        pytest.skip("root needs `setpriv` to be held to permissions")
    with forking(environment, under) as forks:
        yield forks


@pytest.fixture(scope="module")
def peace(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a run that was left in peace, and that of its data."""
    work = tmp_path_factory.mktemp("peace")
    succeeds(command(*BRIEF, f"dataset.root={work / 'data'}", f"hydra.run.dir={work / 'out'}"))
    return work / "out", work / "data"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_a_disturbed_run_ends_right_or_says_why(
    seed: int, peace: tuple[Path, Path], held: Forks, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    disturb = DISTURBANCES[seed % len(DISTURBANCES)]
    with _disk(tmp_path / "disk", to_be_full=disturb is fills_the_disk) as disk:
        to = Disturbed(rng, disk, disk / "out", disk / "data")
        if disturb is not damages_a_file and rng.random() < 0.3:
            to.tells("rooms are still to be rendered")
        else:
            shutil.copytree(peace[1], to.data)
        try:
            _disturbed_and_started_again(to, disturb, peace[0], held)
        finally:
            print(f"chaos seed {seed}: {'; '.join(to.told)}")
            to.mend()


@contextmanager
def _disk(path: Path, to_be_full: bool) -> Iterator[Path]:
    """A disk of its own where it is to be full, for which the right to mount one is needed."""
    if to_be_full:
        with small_disk(path, DISK_BYTES) as disk:
            yield disk
    else:
        path.mkdir()
        yield path


def _disturbed_and_started_again(to: Disturbed, disturb: Any, peace: Path, held: Forks) -> None:
    words = (*BRIEF, f"dataset.root={to.data}", f"hydra.run.dir={to.out}")
    done = held.call(words, ROOT, lambda pid: disturb(to, pid))
    to.tells(f"exit {done.returncode}")
    killed = disturb in (kills_the_run, damages_a_file)
    if _is_right_or_says_why(to, done, peace, killed=killed):
        return
    again = (*words, "ckpt_path=last")
    if disturb in (fills_the_disk, kills_the_run, kills_a_process_of_the_run):
        to.mend()
    elif _is_right_or_says_why(to, _started_again(to, held, again), peace):
        return  # what is still wrong was in nobody's way
    if disturb in (revokes_a_permission, damages_a_file):
        to.mend()
    if not to.lost:
        done = _started_again(to, held, again)
        assert done.returncode == 0, (to.told, done.stdout + done.stderr)
        _assert_right(to, peace)


def _started_again(to: Disturbed, held: Forks, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    done = held.call(words, ROOT)
    to.tells(f"again: exit {done.returncode}{'' if done.returncode == 0 else f' ({_sentence(done)})'}")
    return done


def _is_right_or_says_why(
    to: Disturbed, done: subprocess.CompletedProcess[str], peace: Path, killed: bool = False
) -> bool:
    """Whether the run has ended well, which then is held against the one that was left in peace."""
    said = done.stdout + done.stderr
    assert "Traceback" not in IN_A_DESTRUCTOR.sub("", said), (to.told, said)
    if done.returncode == 0:
        if to.of_data and json.loads((to.out / "summary.json").read_text())["faults"]:
            assert any(_squeezed(name) in _squeezed(said) for name in to.named), (to.told, said)
            to.tells("counted as a fault")
        else:
            _assert_right(to, peace)
        return True
    if not (killed and done.returncode in KILLED):
        sentence = _sentence(done)
        to.tells(sentence)
        assert any(_squeezed(name) in _squeezed(said) for name in to.named), (to.told, said)
    return False


def _squeezed(text: str) -> str:
    """Without what wrapping to a terminal's width puts into it."""
    return "".join(text.split())


def _sentence(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split())[-400:]


def _assert_right(to: Disturbed, peace: Path) -> None:
    expected, found = (load_file(folder / "model/model.safetensors") for folder in (peace, to.out))
    assert expected.keys() == found.keys(), to.told
    assert all(torch.equal(expected[name], found[name]) for name in expected), to.told
    ours = (to.out / "predictions/after.jsonl").read_text().replace(str(to.data), str(peace.parent / "data"))
    assert ours == (peace / "predictions/after.jsonl").read_text(), to.told
    assert _summary(to.out) == _summary(peace), to.told
    assert {row["step"] for row in rows(to.out / "history.jsonl")} == set(range(STEPS)), to.told
    assert json.loads((to.out / "run.json").read_text())["status"] == "done", to.told


def _summary(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "summary.json").read_text())
    return {name: value for name, value in values.items() if name not in UNTIMED}
