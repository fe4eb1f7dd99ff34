"""A run that is signalled to end does so, whatever its main thread is doing, and records it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.forks import ROOT

RUN = """
import ctypes, signal, sys, time
from pathlib import Path
from spacer.process import ending
from spacer.training.preemption import SignalWatcher

ending.PATIENCE_S = 1.5

def in_c():
    "Holds the main thread in a lock of C's, which no signal's handler of Python's interrupts."
    mutex = ctypes.create_string_buffer(64)
    ready()
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def in_python():
    ready()
    while True:
        time.sleep(0.01)

def ready():
    Path("ready").touch()

with ending.endable(lambda signum: Path("word").write_text(signum.name)):
    {scene}
"""
TRAINS = "watch = SignalWatcher(None); watch.begin_training(); "


def ends(folder: Path, scene: str, *signals: signal.Signals) -> tuple[int, str]:
    """The exit status of a run that is sent the signals, and what it said; it hangs for no longer than the guard."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(scene=scene)], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    while not (folder / "ready").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    for number, signum in enumerate(signals):
        time.sleep(1.2 if number else 0.1)  # what comes at once is one
        process.send_signal(signum)
    try:
        return process.returncode or process.wait(30), process.communicate()[1]
    finally:
        process.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_in_native_code_it_ends_and_says_so(signum: signal.Signals, tmp_path: Path) -> None:
    status, said = ends(tmp_path, "in_c()", signum)
    assert status == 128 + signum and said.startswith(f"{signum.name}: the process was ended")
    assert (tmp_path / "word").read_text() == signum.name


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_in_python_it_ends_by_itself(signum: signal.Signals, status: int, tmp_path: Path) -> None:
    assert ends(tmp_path, "in_python()", signum)[0] == status
    assert not (tmp_path / "word").exists()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_in_a_step_that_does_not_end_the_second_signal_ends_it(second: signal.Signals, tmp_path: Path) -> None:
    status, said = ends(tmp_path, TRAINS + "in_c()", signal.SIGINT, second)
    assert status == 128 + second and "stopping after this step" in said
    assert (tmp_path / "word").read_text() == second.name


def test_one_signal_lets_a_step_end_however_long_it_takes(tmp_path: Path) -> None:
    scene = TRAINS + "ready(); time.sleep(3.5); Path('stepped').touch(); watch.leave()"
    assert ends(tmp_path, scene, signal.SIGTERM)[0] == 143
    assert (tmp_path / "stepped").exists() and not (tmp_path / "word").exists()


def test_afterwards_signals_do_what_they_did_before() -> None:
    code = "from spacer.process import ending\nwith ending.endable(print): pass\nimport os; os.kill(os.getpid(), 15)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGTERM
