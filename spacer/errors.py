"""Errors that users can fix themselves, and failures of the machine, with messages that name the remedy."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

_DISK = (
    "free some space, or choose a folder on another disk, and run the same command again (training with "
    "ckpt_path=last): it resumes from what is written"
)
# errno → its meaning and the remedy
_SYSTEM = {
    errno.ENOSPC: f"no space is left on the disk: {_DISK}",
    errno.EDQUOT: f"the disk quota is used up: {_DISK}",
    errno.EFBIG: f"the file is larger than this file system or `ulimit -f` allows: {_DISK}",
    errno.EROFS: "the file system is read-only: choose a folder on another one",
    errno.EACCES: "permission denied: give this user access to it, or choose another path",
    errno.EPERM: "permission denied: give this user access to it, or choose another path",
    errno.EIO: "the disk failed to read or write it: check the system log, and choose another disk",
    errno.ESTALE: "the network file system has lost it: remount it, then run the same command again",
    errno.EMFILE: "too many files are open: raise the limit with `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine: raise the limit fs.file-max, or end other programs",
    errno.ENOMEM: "memory has run out: end other programs, or use a smaller batch or fewer dataset.workers",
    errno.ENAMETOOLONG: "the name is too long for this file system: choose a shorter path",
}
# errors of a path without a file: a mistake in the path, not a failure of the machine
_OF_A_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_OF_FOLDERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# libraries written in Rust and C++ report system errors only in their messages
_TOLD = re.compile(r"os error (\d+)\b|\bcode: (\d+)\b")
_FULL = re.compile(r"No space left on device|unexpected pos \d+ vs \d+|file write failed|Disk quota exceeded", re.I)
# messages of Gloo and NCCL when another process has died
_GONE = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|remote process exited|communicator was aborted", re.I
)


class UserError(ValueError):
    """Ends a run with only its message, without a traceback; the message names the value, the rule and the remedy."""


class SampleError(ValueError):
    """A fault of a single sample: it is counted, and the run continues."""


class MediaError(SampleError):
    """A media file is missing or malformed; the message names it and the reason."""


def of_the_machine(error: BaseException, place: str | None = None) -> UserError | None:
    """A `UserError` if the error, or one in its chain, is about the disk, permissions or memory, or means that another
    process has died.

    None for all others, which are bugs and need their traceback. `place` is named in the message if the error has no
    file name.
    """
    if isinstance(error, UserError):
        return None
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, MemoryError):
            return UserError(_SYSTEM[errno.ENOMEM].capitalize())
        if isinstance(cause, RuntimeError) and _GONE.search(str(cause)):
            return UserError(
                "another process of this run has died: see its own message, or the system log if it was killed, most "
                "likely because memory ran out; run the same command again (training with ckpt_path=last)"
            )
        number = _number(cause)
        if number in _SYSTEM and (number not in (errno.EPERM, errno.EACCES) or _place(cause)):
            place = _place(cause) or (place if number in _OF_FOLDERS else None)
            return UserError(f"{place}: {_SYSTEM[number]}" if place else _SYSTEM[number].capitalize())
    return None


def refused(error: OSError, path: Path) -> UserError | None:
    """A `UserError` if the system fails to read an existing file, so that others would fail too; None if the path does
    not lead to a file."""
    if error.errno in _OF_A_PATH:
        return None
    meant = f"{error.strerror or error}: check that its file system is mounted and healthy, then run the command again"
    return UserError(f"{path}: {_SYSTEM.get(error.errno or 0, meant)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and the chain of its causes and contexts."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError":
        if told := _TOLD.search(str(error)):
            return int(told[1] or told[2])
        if _FULL.search(str(error)):
            return errno.ENOSPC
    return None


def _place(error: BaseException) -> str | None:
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    return None if name is None or isinstance(name, int) else str(name)
