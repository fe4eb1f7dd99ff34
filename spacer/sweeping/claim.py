"""Exclusive use of a run folder: one run at a time, and never over another run's results unless told to overwrite.

The first process of a run holds `.claim` while it lives, by a lock that ends with it. Not every shared file system
shows the locks of other machines, so the file also names its holder, which renews the file's mtime while it
lives. The run's other processes wait until the first one holds the folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from spacer.errors import UserError

FILE = ".claim"
CLAIMED = "SPACER_CLAIMED"  # environment variable for processes that a run starts itself: the folder that it holds
RENEWED_S = 15.0  # how often a live process renews its claim …
STALE_S = 90.0  # … and the age at which a claim counts as dead, if its machine cannot be checked
PATIENCE_S = 300.0  # how long the run's other processes wait
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclass(frozen=True)
class Claim:
    """The holder of a folder. `launch` is shared by all processes that a launcher started together;
    `job` is SLURM's job id, which stays the same when SLURM requeues a job."""

    host: str
    boot: str
    pid: int
    since: str
    launch: str | None = None
    job: str | None = None


@contextmanager
def claimed(folder: Path, settle: Callable[[], None]) -> Iterator[None]:
    """Holds the folder for this process, the first of its run, until the end of the block.

    `settle` is called when no other run holds the folder, before the other processes of this run are let in.

    Raises:
        UserError: another live process holds it; the message names that process.
    """
    descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    ended = threading.Event()
    try:
        _take(descriptor, folder)
        settle()
        mine = _claim()
        _write(descriptor, json.dumps(asdict(mine)))
        os.environ[CLAIMED] = str(folder.resolve())
        threading.Thread(target=_renew, args=(descriptor, ended), name="claim", daemon=True).start()
        yield
        _write(descriptor, "")  # a killed run leaves its name here, but its lock is released all the same
    finally:
        ended.set()
        os.environ.pop(CLAIMED, None)
        os.close(descriptor)


def await_claim(folder: Path) -> None:
    """Waits, in a process that is not the run's first, until the first one holds the folder.

    Raises:
        UserError: it does not happen in time.
    """
    if os.environ.get(CLAIMED) == str(folder.resolve()) or (launch := _launch()) is None:
        return
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        holder = _read(folder)
        if holder is not None and holder.launch == launch and _lives(holder) is not False:
            return
        time.sleep(0.1)
    raise UserError(
        f"the run's first process has not claimed {folder} for {PATIENCE_S:.0f} s: its own message says why; if there "
        "is none, the processes do not see the same folder: put hydra.run.dir on a file system that they share"
    )


def _take(descriptor: int, folder: Path) -> None:
    """Locks the file; raises UserError naming the holder if that fails."""
    locked = True
    try:
        # POSIX's lock, not flock's: it belongs to this process alone, and forked data workers do not inherit it
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise UserError(_in_use(folder, _read(folder))) from None
        if error.errno not in _NO_LOCKS:
            raise
        locked = False
    holder = _read(folder, descriptor)
    if holder is None or (holder.job is not None and holder.job == _job()):
        return  # SLURM requeues a job after ending it, possibly on another machine
    lives = _lives(holder)
    if locked and (lives is not None or holder.boot == _boot() != ""):
        return  # a process of this machine, in a container too, that lost the lock is gone, even if its pid exists
    if lives or (lives is None and (age := _age(descriptor)) < STALE_S):
        wait = "" if lives else f", which was alive {age:.0f} s ago; should it be gone, try again in {STALE_S:.0f} s"
        raise UserError(_in_use(folder, holder, wait))


def _in_use(folder: Path, holder: Claim | None, more: str = "") -> str:
    who = "another process" if holder is None else f"process {holder.pid} on {holder.host} since {holder.since}"
    return f"run folder {folder} is in use by {who}{more}: wait for its end, or choose another folder, hydra.run.dir=…"


def _lives(holder: Claim) -> bool | None:
    """Whether a claim's process is alive; None if it is on another machine, which cannot be checked."""
    if holder.host != socket.gethostname():
        return None
    if holder.boot != _boot():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True


def _claim() -> Claim:
    since = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"
    return Claim(socket.gethostname(), _boot(), os.getpid(), since, _launch(), _job())


def _boot() -> str:
    """Identifies this boot of the machine; empty if the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _launch() -> str | None:
    """An id shared by the processes that one srun or torchrun started; None if neither did."""
    found = os.environ
    names: tuple[str, ...]
    if "TORCHELASTIC_RUN_ID" in found:
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    elif "SLURM_PROCID" in found and int(found.get("SLURM_NTASKS", "1")) > 1:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    else:
        return None
    return " ".join(f"{name}={found.get(name, '')}" for name in names)


def _job() -> str | None:
    return os.environ.get("SLURM_JOB_ID") if "SLURM_PROCID" in os.environ else None


def _read(folder: Path, descriptor: int | None = None) -> Claim | None:
    """The claim in a folder; None if there is none, or if it is still being written.

    The lock holder reads by its own descriptor: closing another one of the file would release the lock.
    """
    try:
        text = (folder / FILE).read_bytes() if descriptor is None else os.pread(descriptor, 1 << 16, 0)
        values: dict[str, Any] = json.loads(text)
        return Claim(**values)
    except (OSError, ValueError, TypeError):
        return None


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
    os.fsync(descriptor)


def _age(descriptor: int) -> float:
    """Seconds since the file was modified, by the file system's clock."""
    before = os.fstat(descriptor)
    os.utime(descriptor)
    now = os.fstat(descriptor).st_mtime_ns
    os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))  # checking is no sign of life of the holder
    return (now - before.st_mtime_ns) / 1e9


def _renew(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_S):
        try:
            os.utime(descriptor)
        except OSError:  # the folder is gone, or its disk: the run itself will report it
            return
