"""Worker processes that prefetch batches, and that cannot hang the main process.

`torch.utils.data.DataLoader` passes tensors through /dev/shm, which in a container is 64 MB by default: two batches of
videos fill that, and a worker that writes beyond it dies of SIGBUS. It also waits forever for what a worker cannot
pickle, such as some exceptions, and for a worker that ignores SIGTERM, as ours do.

Here a worker writes each result to an anonymous in-memory file (memfd) and sends its descriptor through a socket. The
main process maps the file: nothing is copied, and /dev/shm is not used.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import IO, Any, Protocol

import torch

from spacer.errors import UserError
from spacer.process.failing import Failure, failure
from spacer.process.pool import end_with_parent

_AHEAD = 2  # units prefetched per worker
_ALIGNED = 64  # bytes: alignment of tensors
# Ctrl-C and SLURM's signals reach all processes, and the main one still needs its workers to finish a step
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
_POLL_S = 1.0  # interval of checks whether the workers are alive
_WORD = 8  # bytes of an integer in messages


class Units(Protocol):
    """What workers evaluate: a mapping from items to units of work."""

    def __getitem__(self, asked: Any, /) -> Any:
        """The unit of an item."""


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    socket: socket.socket  # sends item numbers, receives file descriptors


def made_by_workers(units: Units, asked: Sequence[Any], workers: int) -> Iterator[Any]:
    """Yields `units[item]` for each item of `asked`, in order, each computed by one worker; with `workers` 0, by this
    process.

    Raises:
        UserError: a worker raised one, hit a limit of the machine, or was killed.
        WorkerError: a worker raised another error.
    """
    if not workers:
        yield from (units[one] for one in asked)
        return
    pool: list[_Worker] = []
    # an exception may keep this generator alive until exit, when Python would join workers that ignore its SIGTERM
    kill = partial(_kill, pool)
    atexit.register(kill)
    try:
        for _ in range(min(workers, len(asked))):
            pool.append(_start(units, asked))
        for number in range(min(_AHEAD * len(pool), len(asked))):
            _ask(pool[number % len(pool)], number)
        for number in range(len(asked)):
            worker = pool[number % len(pool)]
            made = _answer(worker, pool)
            if number + _AHEAD * len(pool) < len(asked):
                _ask(worker, number + _AHEAD * len(pool))
            yield made
    finally:
        atexit.unregister(kill)
        kill()


def _start(units: Units, asked: Sequence[Any]) -> _Worker:
    ours, theirs = socket.socketpair()
    process = multiprocessing.Process(target=_work, args=(units, asked, theirs), daemon=True)
    # a worker inherits this process's handlers, which must not run in it before it has set its own
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that the worker holds the only copy, and its exit closes the connection
    return _Worker(process, ours)


def _ask(worker: _Worker, number: int) -> None:
    # a worker that has exited is reported in _answer, where its last message may give the reason
    with contextlib.suppress(ConnectionError):
        worker.socket.sendall(number.to_bytes(_WORD, "big"))


def _answer(worker: _Worker, pool: Sequence[_Worker]) -> Any:
    """Waits for a worker's next unit. Raises UserError if any worker was killed."""
    while True:
        living = [one.process.sentinel for one in pool if one.process.exitcode is None]
        if worker.socket in wait([worker.socket, *living], _POLL_S):
            break
        for one in pool:
            if one.process.exitcode:  # a worker that has sent its error exits with 0
                raise _death(one)
    try:
        word, descriptors, *_ = socket.recv_fds(worker.socket, 1, 1)
    except ConnectionError:
        word, descriptors = b"", []
    if not word:
        raise _death(worker)
    if not descriptors:  # dropped by the kernel when this process has too many open files
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    made = _read(descriptors[0])
    if isinstance(made, Failure):
        raise made.error()
    return made


def _death(worker: _Worker) -> UserError:
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
    why = ", probably because memory ran out" if code == -signal.SIGKILL else ""
    return UserError(
        f"a data worker (process {worker.process.pid}) {how}{why}: use fewer workers (dataset.workers, "
        "benchmark.workers), smaller videos (dataset.video, benchmark.video) or a machine with more memory, and run "
        "the same command again (training with ckpt_path=last)"
    )


def _kill(pool: Sequence[_Worker]) -> None:
    for worker in pool:
        worker.process.kill()
    for worker in pool:
        worker.process.join()
        worker.socket.close()


# ---- in the worker


def _work(units: Units, asked: Sequence[Any], main: socket.socket) -> None:
    """The worker's loop: computes requested units until the connection is closed or one fails."""
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)  # the inherited one would write to the main process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    end_with_parent()  # even in the middle of a unit
    torch.set_num_threads(1)
    while word := main.recv(_WORD, socket.MSG_WAITALL):
        try:
            file = _written(units[asked[int.from_bytes(word, "big")]])
        except BaseException as error:
            with _written(failure(error, "data worker")) as file:
                socket.send_fds(main, [b"."], [file.fileno()])
            return
        with file:
            socket.send_fds(main, [b"."], [file.fileno()])


# ---- the file format: a length, that many bytes of pickled objects, and the data of their tensors


class _Pickler(pickle.Pickler):
    """Pickles tensors as NumPy arrays, whose data protocol 5 keeps out of band."""

    def reducer_override(self, obj: Any) -> Any:
        """How to rebuild an object."""
        if isinstance(obj, torch.Tensor) and obj.layout == torch.strided and obj.dtype != torch.bfloat16:
            return torch.from_numpy, (obj.numpy(),)
        return NotImplemented


def _written(made: Any) -> IO[bytes]:
    """An anonymous file with the serialized object."""
    head, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(head, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append).dump(made)
    parts = [buffer.raw() for buffer in buffers]
    whole = pickle.dumps((head.getvalue(), [part.nbytes for part in parts]))
    in_memory = hasattr(os, "memfd_create")  # otherwise on disk
    file = open(os.memfd_create("batch"), "wb") if in_memory else tempfile.TemporaryFile()  # noqa: SIM115  # returned
    file.write(len(whole).to_bytes(_WORD, "big") + whole)
    for part in parts:
        file.seek(_aligned(file.tell()))
        file.write(part)
    file.flush()
    return file


def _read(descriptor: int) -> Any:
    """Deserializes the object in a file that a worker has written, and closes the descriptor.

    Unpickling can run arbitrary code. It is safe here: the file is anonymous and came through a socket that only the
    worker, a child of this process, holds.
    """
    with open(descriptor, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0))
    end = _WORD + int.from_bytes(view[:_WORD], "big")
    head, sizes = pickle.loads(view[_WORD:end])
    parts = []
    for size in sizes:
        start = _aligned(end)
        end = start + size
        parts.append(view[start:end])
    return pickle.loads(head, buffers=parts)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNED) * _ALIGNED
