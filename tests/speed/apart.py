"""A system in a process of its own: what others allocate and import is not in its way, nor in its numbers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType

from tests.speed.measure import peak, quiet, timed
from tests.speed.systems import System


class Apart:
    """Measures steps of what `make` makes, one at a time: it waits while others are measured. A context manager."""

    def __init__(self, make: Callable[[], System]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make), daemon=True)
        self._process.start()
        there.close()  # so that a process that dies is an EOFError here

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()
        self._process.join()

    def peak(self) -> int:
        """Bytes that a step adds to the process."""
        self._connection.send("peak")
        bytes_added: int = self._connection.recv()
        return bytes_added

    def timed(self) -> tuple[float, float]:
        """CPU seconds and seconds on the clock, per question."""
        self._connection.send("timed")
        cpu, wall = self._connection.recv()
        return cpu, wall


def _serve(connection: Connection, make: Callable[[], System]) -> None:
    quiet()
    system = make()
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        step = system.prepared()
        if asked == "peak":
            connection.send(peak(step))
        else:
            cpu, wall = timed(step)
            connection.send((cpu / system.questions, wall / system.questions))
