"""Work in processes of their own: everything once, and no waiting for one that was killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from spacer.errors import UserError
from spacer.process.failing import WorkerError
from spacer.process.pool import aside, in_workers


def test_everything_comes_once_and_in_order() -> None:
    with in_workers(abs, range(-5, 5), 2) as made:
        assert list(made) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    with in_workers(abs, range(-5, 5), 2, ordered=False) as made:
        assert sorted(made) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_killed_worker_is_told_of_and_not_waited_for(ordered: bool) -> None:
    with (
        pytest.raises(UserError, match=r"a worker process was killed.*again"),
        in_workers(_dies_at_three, range(6), 2, ordered) as made,
    ):
        list(made)


def test_what_a_worker_raises_is_raised_here() -> None:
    with pytest.raises(WorkerError, match="ZeroDivisionError"), in_workers(_divides, [1, 0], 1) as made:
        list(made)


def test_a_worker_that_is_killed_while_the_next_is_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started, found = SpawnProcess.start, list[SpawnProcess](), list[BaseException]()

    def starts(process: SpawnProcess) -> None:
        start(process)
        started.append(process)
        if len(started) == 2:
            started[0].kill()
            started[0].join()
            time.sleep(0.5)  # in which its death may be noticed

    def works() -> None:
        try:
            with in_workers(abs, range(100), 4) as made:
                list(made)
        except UserError as error:
            found.append(error)

    monkeypatch.setattr(SpawnProcess, "start", starts)
    thread = threading.Thread(target=works, daemon=True)
    thread.start()
    thread.join(120)
    assert found and "was killed" in str(found[0])
    assert not any(process.is_alive() for process in started)


def test_aside_only_what_a_process_ends_in_is_lost() -> None:
    before = multiprocessing.active_children()
    assert list(aside(_dies_at_three, range(6))) == [0, 1, 2, None, 4, 5]
    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        list(aside(_divides, [1, 0]))
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_aside_a_process_that_is_killed_as_it_starts_is_not_waited_for(
    late: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = SpawnProcess.start, list[SpawnProcess]()

    def starts(process: SpawnProcess) -> None:
        start(process)
        started.append(process)
        if len(started) == 1:
            time.sleep(late)
            process.kill()

    monkeypatch.setattr(SpawnProcess, "start", starts)
    found: list[int | None] = []
    thread = threading.Thread(target=lambda: found.extend(aside(abs, range(3))), daemon=True)
    thread.start()
    thread.join(120)
    assert found == [None, 1, 2]


def test_a_process_that_is_killed_while_it_hands_over_is_not_waited_for() -> None:
    assert list(aside(_dies_while_it_hands_over, range(2))) == [None, None]
    with (
        pytest.raises(UserError, match="a worker process was killed"),
        in_workers(_dies_while_it_hands_over, range(2), 1) as made,
    ):
        list(made)


def test_aside_a_process_that_cannot_be_started_is_no_fault_of_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(process: SpawnProcess) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(SpawnProcess, "start", refuses)
    with pytest.raises(OSError, match="no more processes"):
        list(aside(abs, range(3)))


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = (
        "import os, signal, time\n"
        "from spacer.process.pool import in_workers\n"
        "if __name__ == '__main__':\n"
        "    with in_workers(abs, [1, 2], 2) as made:\n"
        "        list(made)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    script = tmp_path / "killed.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    # its workers hold its output open, and with it this call, for as long as they live
    done = subprocess.run([sys.executable, str(script)], env=environment, timeout=60, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def _dies_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _dies_while_it_hands_over(number: int) -> bytes:
    def sends_half(pipe: Connection, content: bytes) -> None:
        os.write(pipe.fileno(), content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = sends_half  # type: ignore[attr-defined]
    return bytes(number)


def _divides(number: int) -> float:
    return 1 / number
