"""Jobs of a sweep as processes, with a quick, scripted program instead of run.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spacer.sweeping.processes import run_all
from spacer.sweeping.record import Record, Status, read, write
from spacer.sweeping.sweep import Job

# writes its own record and ends, or as its first word says
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
word, (folder,) = sys.argv[1], [w[15:-1] for w in sys.argv if w.startswith("hydra.run.dir=")]
with open(Path(folder) / "starts", "a") as file:
    print(os.getpid(), file=file)
if word == "wait":
    time.sleep(60)
if word == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if word == "mute":
    sys.exit(3)
(Path(folder) / "run.json").write_text(json.dumps({"status": "done", "score": 1.0}))
"""


class Told:
    """Stands for a Sweep: a job's one word, and what became of each."""

    def words(self, job: Job) -> list[str]:
        return list(job.overrides)

    def begin(self, job: Job) -> None:
        write(job.folder, Record(Status.queued))

    def settle(self, job: Job, status: Status, reason: str) -> None:
        record = read(job.folder)
        if record is not None and record.status == Status.queued:
            write(job.folder, Record(status, reason=reason))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


def made(tmp_path: Path, *words: str) -> list[Job]:
    return [Job(n, (word,), (), tmp_path / str(n), None) for n, word in enumerate(words)]


def run(program: Path, jobs: list[Job]) -> None:
    run_all(Told(), jobs, program, [])  # type: ignore[arg-type]


def statuses(jobs: list[Job]) -> list[tuple[str, str | None]]:
    records = [read(job.folder) for job in jobs]
    return [(record.status.value, record.reason) for record in records if record is not None]


def starts(job: Job) -> list[int]:
    file = job.folder / "starts"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_job_that_is_killed_or_ends_without_a_word_stops_no_other(program: Path, tmp_path: Path):
    jobs = made(tmp_path, "killed", "mute", "fine")
    run(program, jobs)
    killed, mute, fine = statuses(jobs)
    assert killed == ("killed", "SIGKILL") and fine == ("done", None)
    assert mute[0] == "failed" and str(mute[1]).startswith("exit status 3, with no word of why")


@pytest.mark.parametrize(("leaves", "times"), [(Status.done, 0), (Status.killed, 1)])
def test_a_job_that_another_process_runs_comes_last_and_only_if_it_is_left_undone(
    leaves: Status, times: int, program: Path, tmp_path: Path
):
    jobs = made(tmp_path, "fine", "fine")
    (tmp_path / "0").mkdir()
    held = f"import fcntl, sys; f = open({str(tmp_path / '0/.lock')!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
    holder = subprocess.Popen(
        [sys.executable, "-c", held + "print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    threading.Thread(target=_release, args=(holder, jobs, leaves)).start()
    run(program, jobs)
    assert len(starts(jobs[0])) == times and len(starts(jobs[1])) == 1
    assert statuses(jobs) == [("done", None), ("done", None)]


def _release(holder: subprocess.Popen[str], jobs: list[Job], leaves: Status) -> None:
    deadline = time.monotonic() + 30
    while not starts(jobs[1]) and time.monotonic() < deadline:  # the other one did not wait for it
        time.sleep(0.01)
    write(jobs[0].folder, Record(leaves))
    holder.communicate()  # which ends it


def test_sigterm_reaches_the_job_and_ends_the_sweep(program: Path, tmp_path: Path):
    jobs = made(tmp_path, "wait", "fine")

    def tell() -> None:
        deadline = time.monotonic() + 30
        while not starts(jobs[0]) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell).start()
    with pytest.raises(KeyboardInterrupt):
        run(program, jobs)
    assert statuses(jobs) == [("killed", "SIGTERM")]
    with pytest.raises(ProcessLookupError):
        os.kill(starts(jobs[0])[0], 0)
