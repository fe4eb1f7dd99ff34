"""Data workers: whatever becomes of one, its caller hears of it; and what they make needs no room in /dev/shm."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spacer.data import workers
from spacer.data.workers import made_by_workers
from spacer.errors import UserError
from spacer.process.failing import WorkerError

ROOT = Path(__file__).resolve().parents[3]
HANGS_S = 300  # a guard; importing torch alone takes a minute where cores are shared


class Units:
    """Squares, but for those numbers that something happens at."""

    def __init__(self, happens: dict[int, Callable[[], Any]] | None = None) -> None:
        self._happens = happens or {}

    def __getitem__(self, number: int) -> Any:
        return self._happens.get(number, lambda: number**2)()


def raises(error: BaseException) -> Callable[[], Any]:
    def happen() -> Any:
        raise error

    return happen


class Odd(Exception):
    """That pickle cannot make again: it wants two arguments and holds a function."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd one")
        self.what = lambda: one + two


@pytest.mark.parametrize("workers", [0, 1, 3, 20])
@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_all_come_in_order(count: int, workers: int) -> None:
    asked = [n * 3 for n in range(count)]
    assert list(made_by_workers(Units(), asked, workers)) == [n**2 for n in asked]


def test_tensors_come_as_they_were() -> None:
    made = {
        "floats": torch.randn(3, 5),
        "turned": torch.arange(12).reshape(3, 4).T,
        "part": torch.arange(1000)[5:9],
        "flags": torch.tensor([True, False]),
        "short": torch.randn(4).bfloat16(),
        "none": torch.zeros(0, 7),
        "one": torch.tensor(3.5),
    }
    twice = torch.ones(2)
    ((found, (first, second)),) = made_by_workers(Units({0: lambda: (made, (twice, twice))}), [0], 1)
    assert found.keys() == made.keys()
    for name, value in made.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    first += 1  # writable, and the same tensor
    assert second.tolist() == [2.0, 2.0]


def hung_up() -> None:
    """As by a terminal that closes; nohup has it ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize("at", [0, 5])
@pytest.mark.parametrize(
    ("happens", "kind", "said"),
    [
        (raises(ValueError("so wrong")), WorkerError, "ValueError: so wrong"),
        (raises(Odd(1, 2)), WorkerError, "odd one"),
        (raises(type("Local", (Exception,), {})("here alone")), WorkerError, "here alone"),
        (raises(StopIteration("ends no epoch")), WorkerError, "StopIteration: ends no epoch"),
        (raises(SystemExit(3)), WorkerError, "SystemExit: 3"),
        (raises(KeyboardInterrupt()), WorkerError, "KeyboardInterrupt"),
        (lambda: lambda: None, WorkerError, "pickle"),  # nothing that could be handed over
        (raises(UserError("set this")), UserError, "set this"),
        (raises(OSError(errno.ENOSPC, "No space", "/a/b")), UserError, "/a/b: no space is left on the disk"),
        (raises(PermissionError(errno.EACCES, "no", "/a/b")), UserError, "/a/b: permission denied"),
        (raises(MemoryError()), UserError, "Memory has run out"),
        (lambda: os._exit(0), UserError, "exited with status 0"),
        (lambda: os._exit(7), UserError, "exited with status 7"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), UserError, "was killed by SIGKILL, probably because memory"),
        (hung_up, UserError, "was killed by SIGHUP:"),
    ],
)
def test_what_ends_a_worker_is_told(happens: Callable[[], Any], kind: type[Exception], said: str, at: int) -> None:
    found = []
    with pytest.raises(kind) as told:
        for value in made_by_workers(Units({at: happens}), range(8), 2):
            found.append(value)
    assert said in str(told.value)
    assert found == [n**2 for n in range(len(found))] and len(found) <= at


def test_a_failure_is_told_although_its_worker_has_ended_before_it_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = set(multiprocessing.active_children())  # of tests before

    def read_late(descriptor: int) -> Any:
        for worker in set(multiprocessing.active_children()) - others:
            worker.join()  # it has sent what it failed by, and is to be asked for more after this
        return read(descriptor)

    read = workers._read
    monkeypatch.setattr(workers, "_read", read_late)
    made = made_by_workers(Units({1: raises(UserError("the disk is full"))}), range(9), 1)
    assert next(made) == 0
    with pytest.raises(UserError, match="the disk is full"):
        next(made)


def test_a_worker_that_is_killed_ends_the_wait_for_another() -> None:
    """The unit that is waited for is another worker's, who never makes it."""
    units = Units({0: lambda: time.sleep(1e6), 1: lambda: os.kill(os.getpid(), signal.SIGKILL)})
    with pytest.raises(UserError, match="SIGKILL"):
        next(made_by_workers(units, range(4), 2))


def test_one_that_is_left_in_the_middle_leaves_no_process() -> None:
    units = Units({0: os.getpid, 3: lambda: time.sleep(1e6)})
    made = made_by_workers(units, range(8), 1)
    process = next(made)
    made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def run(code: str, *before: str) -> subprocess.CompletedProcess[str]:
    words = [*before, sys.executable, "-c", textwrap.dedent(code)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=HANGS_S, check=False)


def test_python_ends_although_a_worker_does_not() -> None:
    """By an error that keeps the loader alive, with workers in native code that hear no SIGTERM."""
    done = run("""
        import time, tempfile
        held = tempfile.TemporaryDirectory()  # something else that ends with Python
        from spacer.data.workers import made_by_workers
        class Units:
            def __getitem__(self, n): time.sleep(n * 1e6)
        loader = made_by_workers(Units(), range(9), 2)
        next(loader)
        raise ValueError("the caller's own")
    """)
    assert done.returncode == 1 and done.stderr.strip().endswith("ValueError: the caller's own")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_meets_a_worker_as_it_begins_is_not_the_main_process_s(signum: signal.Signals) -> None:
    done = run(f"""
        import os, time
        from spacer.data.workers import made_by_workers
        from spacer.process import ending
        ending.PATIENCE_S = 0.5
        class Units:
            def __getitem__(self, n): return n
        os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), {int(signum)}))
        with ending.endable(lambda _: None):
            print(*made_by_workers(Units(), range(5), 2))
            time.sleep(2)
    """)
    assert (done.returncode, done.stdout) == (0, "0 1 2 3 4\n"), done.stderr


def test_large_batches_need_no_room_in_dev_shm() -> None:
    """Of a few pages here; 64 MB in a container. Two batches of 16 frames of 128 * 28 * 28 pixels are beyond that."""
    lays = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    alone = ["unshare", "--mount", "sh", "-c", lays, "sh"]
    try:
        able = subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a small /dev/shm needs `unshare`, which is not here")
    if able.returncode:
        pytest.skip(f"a small /dev/shm needs leave to mount one: {able.stderr.strip()}")
    code = """
        import torch
        from spacer.data.workers import made_by_workers
        PIXELS = 16 * 128 * 28 * 28 * 3
        class Units:
            def __getitem__(self, n): return [torch.full((PIXELS,), float(n)), torch.arange(n)]
        for n, (pixels, rest) in enumerate(made_by_workers(Units(), range(6), 2)):
            assert pixels.shape == (PIXELS,) and bool((pixels == n).all()) and rest.tolist() == list(range(n))
        print("all", n + 1)
    """
    done = run(code, *alone)
    assert done.returncode == 0 and done.stdout == "all 6\n", done.stderr
