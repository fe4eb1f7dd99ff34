"""Calls of run.py as forks of a process that has imported already what takes a short run most of its time.

    python -m tests.cli.forks SOCKET

listens at SOCKET until its stdin ends, as it does with the process that started it. A call is a process of its own, at
the head of a process group, with files as stdout and stderr, that runs run.py from its first line and
ends as Python does.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300
# run.py first, which sets what OpenMP looks at when torch is loaded; not wandb, whose folder for temporary files would
# be one for all forks, and gone with the first of them that ends
IMPORTED = (
    *("run", "spacer.stages.lightning", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"),
    *("av", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"),
)


@dataclass(frozen=True)
class Call:
    """Overrides of run.py, the folder it is called in, where what it says goes, and variables of its environment."""

    overrides: tuple[str, ...]
    cwd: str
    stdout: str
    stderr: str
    variables: Mapping[str, str]


class Forks:
    """The client's side; `call` may be called by several threads."""

    def __init__(self, address: Path) -> None:
        self._address = str(address)

    def call(
        self,
        overrides: Sequence[str],
        cwd: Path = ROOT,
        meanwhile: Callable[[int], None] = lambda pid: None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        """As subprocess.run of run.py; `meanwhile` is called with its process id, which is its group's too, once it has
        begun; `variables` are set beside those of the environment that it is forked in.

        Raises:
            TimeoutExpired (subprocess): it took longer than `TIMEOUT_S`, and was killed.
        """
        words = ["run.py", *overrides]
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
            said = [Path(folder) / name for name in ("stdout", "stderr")]
            for file in said:
                file.touch()  # a call may be killed before it opens them
            server.connect(self._address)
            call = Call(tuple(overrides), str(cwd), *map(str, said), dict(variables))
            server.sendall(json.dumps(asdict(call)).encode())
            server.shutdown(socket.SHUT_WR)
            answers = server.makefile()
            pid = int(answers.readline())
            server.settimeout(TIMEOUT_S)
            meanwhile(pid)
            try:
                status = int(answers.readline())
            except TimeoutError as error:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, TIMEOUT_S, *(file.read_bytes() for file in said)) from error
            return subprocess.CompletedProcess(words, status, *(file.read_text() for file in said))


@contextmanager
def forking(environment: dict[str, str], under: Sequence[str] = ()) -> Iterator[Forks]:
    """A process to fork from, in that environment and started by the command `under`; it ends with the context."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's address is to be short
        address = Path(folder) / "forks"
        words = [*under, sys.executable, "-m", __name__, str(address)]
        with subprocess.Popen(words, env=environment, cwd=ROOT, stdin=subprocess.PIPE) as server:
            while not address.exists():
                assert server.poll() is None, "it ended before it listened"
                time.sleep(0.05)
            yield Forks(address)


def _serve(address: Path) -> None:
    """Listens for calls, and in a fork becomes the call that it is for."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert "wandb" not in sys.modules
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # for those that look after a call, whose end concerns nobody
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.new")
        listening.listen()
        Path(f"{address}.new").rename(address)
        while True:
            if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
                return
            connection, _ = listening.accept()
            if not os.fork():
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection:
        call = Call(**json.loads(connection.makefile().read()))
        if pid := os.fork():
            os.setpgid(pid, pid)  # as it does itself, whichever comes first: the group is there once its number is told
            connection.sendall(f"{pid}\n".encode())
            connection.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
            os._exit(0)
    _become(call)


def _become(call: Call) -> None:
    """What a new process is, and then run.py."""
    os.setpgid(0, 0)
    os.chdir(call.cwd)
    os.environ.update(call.variables)
    for path, stream in ((os.devnull, 0), (call.stdout, 1), (call.stderr, 2)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    random.seed()  # else all forks would draw the same names
    sys.argv = [str(ROOT / "run.py"), *call.overrides]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
