"""A process that is signalled to end: when it requeues itself, and how it ends. SLURM's answers are made up here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# a run in small; `{scene}` is what it is at when it is told to end
RUN = """
import ctypes, logging, os, signal, sys, time
from pathlib import Path
from spacer.training import preemption
logging.basicConfig(format="%(message)s")
preemption.LINGER_S = 0.3

def queue_again(signum, frame):  # in the place of submitit's handler
    with open("queued", "a") as file:
        file.write(f"{{signum}} ")
    sys.exit(-1)

def wait():
    while True:
        time.sleep(0.05)

def ready():  # for its signals
    Path("ready").touch()

def told():
    while watch.told is None:
        time.sleep(0.01)

def wait_in_c():  # as in a collective operation whose other processes do not come
    mutex = ctypes.create_string_buffer(256)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

signal.signal(signal.SIGUSR2, queue_again)
watch = preemption.SignalWatcher({delay})
with watch.listening():
    {scene}
"""
TRAINS = "watch.begin_training(); ready(); "


def ends(folder: Path, scene: str, *signals: signal.Signals, delay: float | None = 60, **env: str) -> tuple[int, str]:
    """The exit status of the run that is sent the signals at its scene, and what it has said."""
    folder.joinpath("squeue").write_text(f"#!/bin/sh\n{env.pop('squeue', 'echo RUNNING')}\n")
    folder.joinpath("squeue").chmod(0o755)
    folder.joinpath("ready").unlink(missing_ok=True)
    job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "PATH": f"{folder}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(scene=scene, delay=delay)],
        env=os.environ | job | env,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "ready").exists():
        assert process.poll() is None, process.communicate()[1]
    for signum in signals:
        process.send_signal(signum)
    try:
        said = process.communicate(timeout=20)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, said


def queued(folder: Path) -> list[str]:
    """The signals for which the job was queued again."""
    file = folder / "queued"
    return file.read_text().split() if file.exists() else []


BY_HAND = {"SUBMITIT_EXECUTOR": ""}
USR2, TERM, INT = str(signal.SIGUSR2.value), signal.SIGTERM, signal.SIGINT


def test_in_training_by_hand_it_leaves_after_the_step_with_the_status_of_a_shell(tmp_path: Path) -> None:
    assert ends(tmp_path, TRAINS + "told(); watch.leave()", TERM, **BY_HAND)[0] == 128 + TERM
    assert not queued(tmp_path)


def test_ctrl_c_in_training_lets_the_step_end_and_a_second_one_does_not(tmp_path: Path) -> None:
    again = "told(); Path('told').touch(); time.sleep(1.2); os.kill(os.getpid(), signal.SIGINT); wait()"
    status, said = ends(tmp_path, TRAINS + again, INT, **BY_HAND)
    assert (tmp_path / "told").exists()
    assert status == -INT and "KeyboardInterrupt" in said


def test_signals_that_come_together_are_one(tmp_path: Path) -> None:
    """As `timeout` sends them, to its command and to the group that this is in."""
    scene = TRAINS + "told(); os.kill(os.getpid(), signal.SIGTERM); Path('on').touch(); watch.leave()"
    assert ends(tmp_path, scene, TERM, **BY_HAND)[0] == 128 + TERM
    assert (tmp_path / "on").exists()


def test_after_training_signals_do_what_they_did_before(tmp_path: Path) -> None:
    scene = "watch.begin_training(); watch.end_training(); ready(); wait()"
    assert ends(tmp_path, scene, TERM, **BY_HAND)[0] == -TERM


@pytest.mark.parametrize("scene", ["ready(); wait()", "ready(); wait_in_c()"])
@pytest.mark.parametrize("signum", [signal.SIGUSR2, TERM])
def test_outside_of_training_a_job_is_queued_again_at_once(scene: str, signum: signal.Signals, tmp_path: Path) -> None:
    assert ends(tmp_path, scene, signum)[0] == 128 + signum
    assert queued(tmp_path) == [str(signum.value)]


def test_in_training_a_job_is_queued_again_after_the_step_and_once(tmp_path: Path) -> None:
    scene = TRAINS + "told(); time.sleep(0.5); Path('saved').touch(); watch.leave()"
    status, _ = ends(tmp_path, scene, signal.SIGUSR2, TERM, signal.SIGUSR2)
    assert (tmp_path / "saved").exists()
    assert status == 255 and len(queued(tmp_path)) == 1  # the status of submitit's end


def test_a_step_that_does_not_end_in_time_is_not_waited_for(tmp_path: Path) -> None:
    assert ends(tmp_path, TRAINS + "wait_in_c()", signal.SIGUSR2, delay=15.5)[0] == 128 + signal.SIGUSR2
    assert queued(tmp_path) == [USR2]


def test_processes_but_the_first_leave_the_queueing_to_it(tmp_path: Path) -> None:
    # what ends them is SLURM's SIGTERM, once the job is queued again
    scene = "ready(); told(); os.kill(os.getpid(), 15); wait()"
    assert ends(tmp_path, scene, signal.SIGUSR2, SLURM_PROCID="1")[0] == 128 + TERM
    assert ends(tmp_path, TRAINS + "told(); watch.leave()", signal.SIGUSR2, SLURM_PROCID="1")[0] == 0
    assert not queued(tmp_path)


@pytest.mark.parametrize("scene", ["ready(); wait()", TRAINS + "told(); watch.leave()"])
def test_a_job_that_was_cancelled_is_not_queued_again(scene: str, tmp_path: Path) -> None:
    _, said = ends(tmp_path, scene, TERM, squeue="echo COMPLETING")
    assert "SLURM lists this job as COMPLETING: it is not requeued" in said
    assert not queued(tmp_path)


def test_a_task_of_an_array_asks_for_itself_and_not_for_the_array(tmp_path: Path) -> None:
    """The last task has the array's id as its own, by which squeue tells of all of them."""
    squeue = 'case "$*" in *--jobs=7_2*) echo RUNNING;; *) printf "PENDING\\nRUNNING\\n";; esac'
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    ends(tmp_path, "ready(); wait()", signal.SIGUSR2, squeue=squeue, **array)
    assert queued(tmp_path) == [USR2]


def test_a_controller_that_does_not_answer_keeps_no_job_out_of_the_queue(tmp_path: Path) -> None:
    ends(tmp_path, "ready(); wait()", signal.SIGUSR2, squeue="exit 1")
    assert queued(tmp_path) == [USR2]
