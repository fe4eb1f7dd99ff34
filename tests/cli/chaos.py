"""What may happen to a run at any moment: a process is killed, the disk fills, a permission goes, a file is damaged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE_S = 240
POLL_S = 0.01
# what a run has come to, by a file that is there then; steps are told from the lines of the history
MOMENTS: Mapping[str, Callable[[Path], bool]] = {
    "before it begins": lambda out: True,
    "run.json": lambda out: (out / "run.json").exists(),
    "step 1": lambda out: _steps(out) >= 1,
    "step 2": lambda out: _steps(out) >= 2,
    "step 3": lambda out: _steps(out) >= 3,
    "model": lambda out: (out / "model").exists(),
    "answers": lambda out: any(out.glob("predictions/after*.jsonl")),
    "summary": lambda out: (out / "summary.json").exists(),
}
BALLAST = ".ballast"


@dataclass
class Disturbed:
    """A run's places, and what has been done to it.

    `disk` holds the run's folder `out` and the folder `data` that it reads; `named` are words of which a message must
    name one, where the run ends with a message. Where `of_data`, what is named is a file of the data: a run may count
    its samples as faults, and say so. `lost` is what `mend` cannot give back.
    """

    rng: random.Random
    disk: Path
    out: Path
    data: Path
    told: list[str] = field(default_factory=list)
    named: tuple[str, ...] = ()
    of_data: bool = False
    lost: bool = False
    mend: Callable[[], None] = lambda: None

    def tells(self, what: str) -> None:
        self.told.append(what)

    def waits(self, pid: int) -> None:
        """Returns at a random moment of the run's life, or when it has ended."""
        moment = self.rng.choice(list(MOMENTS))
        pause = self.rng.uniform(0, 1.5)
        self.tells(f"{pause:.2f} s after {moment!r}")
        deadline = time.monotonic() + PATIENCE_S
        while is_alive(pid) and not MOMENTS[moment](self.out) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        time.sleep(pause)


Disturbance = Callable[[Disturbed, int], None]


def kills_the_run(to: Disturbed, pid: int) -> None:
    """SIGKILL or SIGTERM to the main process."""
    to.waits(pid)
    signum = to.rng.choice([signal.SIGKILL, signal.SIGTERM])
    to.tells(f"{signum.name} to the run")
    to.named = (f"stopped after step {_steps(to.out)}", "go on with", signum.name)
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def kills_a_process_of_the_run(to: Disturbed, pid: int) -> None:
    """SIGKILL or SIGTERM to one that the run has started: a data worker, a renderer, a decoder."""
    to.waits(pid)
    signum = to.rng.choice([signal.SIGKILL, signal.SIGTERM])
    to.named = ("worker", "process", "killed")
    while is_alive(pid):
        # without Python's tracker of semaphores: a new one tells of what it does not know in tracebacks
        if found := sorted(other for other in descendants(pid) if "resource_tracker" not in command_of(other)):
            chosen = to.rng.choice(found)
            to.tells(f"{signum.name} to {command_of(chosen)!r}")
            with suppress(ProcessLookupError):
                os.kill(chosen, signum)
            return
        time.sleep(POLL_S)
    to.tells("there was no such process any more")


def fills_the_disk(to: Disturbed, pid: int) -> None:
    """Leaves some kilobytes at most, until it is mended."""
    to.waits(pid)
    left = to.rng.choice([0, 0, 4096, 65536])
    to.tells(f"{left} bytes are left on the disk")
    to.named = ("no space is left",)
    ballast = to.disk / BALLAST
    with suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    if left:
        os.truncate(ballast, max(0, ballast.stat().st_size - left))
    to.mend = lambda: ballast.unlink(missing_ok=True)


def revokes_a_permission(to: Disturbed, pid: int) -> None:
    """Takes all permissions from a file or folder, or a folder's to be written, until it is mended."""
    to.waits(pid)
    chosen = to.rng.choice([path for path in (*tree(to.out), *tree(to.data)) if path.name != BALLAST] or [to.out])
    with suppress(FileNotFoundError):
        before = chosen.stat().st_mode & 0o777
        after = to.rng.choice([0, 0o500]) if chosen.is_dir() else 0
        to.tells(f"mode {after:o} of {chosen.relative_to(to.disk)}")
        to.named = ("ermission", chosen.name)
        held = os.open(
            chosen, os.O_PATH
        )  # what it is, whatever it is called by then: rooms are renamed when they are whole
        chosen.chmod(after)
        to.mend = lambda: os.chmod(f"/proc/self/fd/{held}", before)


def damages_a_file(to: Disturbed, pid: int) -> None:
    """Kills the run, and cuts one of its files short or writes noise or zeros over a part of it.

    Of the data, which have no checksums, only what every reader must notice: a video that begins with noise or is cut
    short, an index that ends within a line.
    """
    to.waits(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    while is_alive(pid):
        time.sleep(POLL_S)
    files = [path for path in (*tree(to.out), *tree(to.data)) if path.is_file() and path.stat().st_size > 1]
    # each kind as often as the others, of however many files
    kinds = sorted({(path.parent.name, path.suffix) for path in files})
    if not kinds:
        to.tells("there was no file yet")
        return
    kind = to.rng.choice(kinds)
    chosen = to.rng.choice([path for path in files if (path.parent.name, path.suffix) == kind])
    of_data = chosen.is_relative_to(to.data)
    content = bytearray(chosen.read_bytes())
    how = to.rng.choice(["cut", "noise"] if of_data else ["cut", "noise", "zeros", "empty"])
    if how == "cut" or (how == "noise" and of_data and chosen.suffix == ".jsonl"):
        at = to.rng.randrange(1, len(content))
        while content[at - 1 : at] == b"\n" or content[at : at + 1] == b"\n":
            at -= 1
        content = content[:at]
    elif how == "empty":
        content.clear()
    else:
        length = max(1, to.rng.randrange(len(content)) // 2)
        at = 0 if of_data else to.rng.randrange(len(content) - length)
        content[at : at + length] = to.rng.randbytes(length) if how == "noise" else bytes(length)
    chosen.write_bytes(content)
    to.tells(f"SIGKILL, and {chosen.relative_to(to.disk)} is damaged: {how}")
    to.named = (chosen.name,)
    to.of_data = to.lost = of_data
    to.mend = lambda: None if of_data else chosen.unlink(missing_ok=True)


DISTURBANCES: tuple[Disturbance, ...] = (
    kills_the_run,
    kills_a_process_of_the_run,
    damages_a_file,
    fills_the_disk,
    revokes_a_permission,
)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    for found in parents:
        above = parents.get(found, 0)
        while above and above != pid:
            above = parents.get(above, 0)
        if above == pid:
            yield found


def command_of(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]
    return "one that has just ended"


def tree(folder: Path) -> list[Path]:
    """A folder and all that is in it, but for Hydra's records, which nothing reads again."""
    return (
        [folder, *sorted(path for path in folder.rglob("*") if ".hydra" not in path.parts)] if folder.exists() else []
    )


def without_capabilities() -> tuple[str, ...]:
    """The command under which root, too, is held to permissions."""
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def can_run(*words: str) -> bool:
    """Whether a command is there and allowed."""
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _steps(out: Path) -> int:
    try:
        return (out / "history.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0
