"""A worker's error as text, since its exception may not be picklable."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from spacer.errors import UserError, of_the_machine


class WorkerError(RuntimeError):
    """An unexpected error in a worker, with the worker's traceback."""


@dataclass(frozen=True)
class Failure:
    """A worker's error: a message for the user (if `users` is true) or a traceback."""

    said: str
    users: bool

    def error(self) -> Exception:
        """The exception to raise in the main process."""
        return UserError(self.said) if self.users else WorkerError(self.said)


def failure(error: BaseException, worker: str) -> Failure:
    """Converts an exception to a `Failure`; `worker` names the kind of worker in the message."""
    known = error if isinstance(error, UserError) else of_the_machine(error)
    if known is not None:
        return Failure(str(known), users=True)
    return Failure(f"in a {worker}:\n" + "".join(traceback.format_exception(error)).rstrip(), users=False)
