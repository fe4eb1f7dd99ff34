"""Calls a function in worker processes, without hanging if one of them dies.

`multiprocessing.Pool` waits forever for the result of a killed worker, and `concurrent.futures` does if a worker is
killed while the next one starts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from spacer.errors import UserError
from spacer.process.failing import Failure, failure

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


@contextmanager
def in_workers(
    function: Callable[[T], R], items: Sequence[T], workers: int, ordered: bool = True
) -> Iterator[Iterator[R]]:
    """Yields an iterator over the function's results: in the order of the items if `ordered`, else as they come.

    Raises:
        UserError: a worker raised one, hit a limit of the machine, or was killed.
        WorkerError: a worker raised another error.
    """
    pool: list[_Worker] = []
    try:
        for _ in range(min(workers, len(items))):
            try:
                pool.append(_start(function))
            except BrokenPipeError:
                raise _death() from None
        made = _made(pool, items)
        yield _in_order(made) if ordered else (value for _, value in made)
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            _end(worker)


def aside(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R | None]:
    """Yields the function's result for each item, in order, computed in a separate process. If that process dies, the
    result is None, and the next item starts a new process.

    Raises:
        UserError: the function raised one, or hit a limit of the machine.
        WorkerError: the function raised another error.
    """
    worker: _Worker | None = None
    try:
        for item in items:
            try:
                worker = worker or _start(function)
                value = _answer(worker, item)
            except (EOFError, ConnectionError):
                if worker is not None:
                    _end(worker)
                worker = None
                yield None
                continue
            if isinstance(value, Failure):
                raise value.error()
            yield value
    finally:
        if worker is not None:
            _end(worker)


def _answer(worker: _Worker, item: Any) -> Any:
    """The worker's result for the item. Raises EOFError or ConnectionError if the worker has ended."""
    worker.pipe.send((0, item))
    if worker.pipe not in wait([worker.pipe, worker.process.sentinel]):
        raise EOFError
    return _receive(worker)[1]


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _start(function: Callable[[Any], Any]) -> _Worker:
    """Starts a worker. Raises BrokenPipeError if it is killed before it has read its function."""
    context = multiprocessing.get_context("spawn")  # not fork: the caller may have threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the worker holds the only copy, and its exit closes the connection
    return _Worker(process, ours)


def _made(pool: Sequence[_Worker], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Yields (item's index, result) as they come; each worker has one item at a time."""
    left = iter(enumerate(items))
    for worker in pool:
        _ask(worker, left)
    sentinels = [worker.process.sentinel for worker in pool]
    count = 0
    while count < len(items):
        ready = wait([*(worker.pipe for worker in pool), *sentinels])
        answering = [worker for worker in pool if worker.pipe in ready]
        if not answering:
            raise _death()
        for worker in answering:
            try:
                number, value = _receive(worker)
            except EOFError:
                raise _death() from None
            if isinstance(value, Failure):
                raise value.error()
            _ask(worker, left)
            count += 1
            yield number, value


def _receive(worker: _Worker) -> Any:
    """Receives a message. Raises EOFError if the worker has ended, even in the middle of the message."""
    try:
        return worker.pipe.recv()
    except OSError:
        raise EOFError from None


def _ask(worker: _Worker, left: Iterator[tuple[int, Any]]) -> None:
    if (item := next(left, None)) is not None:
        try:
            worker.pipe.send(item)
        except ConnectionError:
            raise _death() from None


def _in_order(made: Iterator[tuple[int, R]]) -> Iterator[R]:
    waiting: dict[int, R] = {}
    turn = 0
    for number, value in made:
        waiting[number] = value
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def _death() -> UserError:
    return UserError(
        "a worker process was killed, most likely because memory ran out; run the same command again with more free "
        "memory"
    )


# ---- in the worker


def _work(function: Callable[[Any], Any], main: Connection) -> None:
    # Ctrl-C and SLURM's signals reach all processes; the main one ends its workers
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    end_with_parent()
    while True:
        number, item = main.recv()
        try:
            made = function(item)
        except BaseException as error:  # re-raised in the main process
            made = failure(error, "worker process")
        main.send((number, made))


def end_with_parent() -> None:
    """From now on this process exits when its parent ends, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
