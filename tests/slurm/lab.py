"""A real SLURM on this machine, for tests: munge, a controller and two nodes, without systemd, cgroups or accounting.

All that it writes is in one folder; its daemons run in the foreground as children of this process and end with it,
however it ends. A job asks for its nodes as on any cluster; both nodes are this machine.

Partitions: `main`, whose jobs give way to those of `urgent` and are then queued again. As on many clusters, a job that
has to give way is sent its own signal (`--signal`) first, and is ended `GRACE_S` later. There is no `sacct`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NODES = ("n1", "n2")
CPUS = 2  # of each node, whatever the machine has: tasks are scheduled by them, and held to none
GRACE_S = 20  # between the signal to a job that has to give way and its end
KILL_WAIT_S = 10  # between SIGTERM to a job that is ended and SIGKILL
PROGRAMS = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm"}


class LabError(RuntimeError):
    """The lab did not come up, or a job did not do what was waited for."""


def missing() -> str | None:
    """Why no lab can be had here; None where one can."""
    absent = sorted({package for program, package in PROGRAMS.items() if _program(program) is None})
    if absent:
        return f"a SLURM of the tests' own needs {' and '.join(absent)}: apt-get install {' '.join(absent)}"
    if _program("setpriv") is None:
        return "a SLURM of the tests' own needs setpriv (util-linux)"
    if os.geteuid() != 0:
        return "a SLURM of the tests' own is started as root, and this is another user"
    return None


@dataclass(frozen=True)
class Lab:
    """A running SLURM. `environment` is what a command needs to speak to it, beside what it has."""

    folder: Path
    environment: dict[str, str]

    def call(self, *words: str) -> str:
        """What a SLURM command prints."""
        done = subprocess.run(
            words, env=os.environ | self.environment, text=True, capture_output=True, timeout=60, check=False
        )
        if done.returncode:
            raise LabError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """The state of a job, ended or not, such as PENDING, RUNNING or FAILED."""
        return self.call("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").split("\n")[0]

    def shown(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job, by its names, such as Restarts and PreemptTime."""
        return dict(word.partition("=")[::2] for word in self.call("scontrol", "show", "job", job).split())

    def restarts(self, job: str) -> int:
        """How often a job was queued again."""
        return int(self.shown(job)["Restarts"])

    def jobs(self) -> list[str]:
        """The ids of all jobs, ended or not, oldest first."""
        return sorted(set(self.call("squeue", "--noheader", "--states=all", "--format=%i").split()), key=int)

    def wait(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Returns once `holds`; raises LabError that says what was waited for, with the queue, after `seconds`."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise LabError(f"after {seconds:.0f} s still not so: {what}\n" + self.call("squeue", "--states=all"))
            time.sleep(0.2)

    def clear(self) -> None:
        """Ends all jobs, at once."""
        self.call("scancel", "--quiet", "--signal=KILL", "--full", f"--user={os.geteuid()}")
        self.call("scancel", "--quiet", f"--user={os.geteuid()}")
        self.wait(
            "no job is left", lambda: not self.call("squeue", "--noheader", "--states=PD,R,CG,S"), KILL_WAIT_S + 30
        )


@contextmanager
def lab() -> Iterator[Lab]:
    """A SLURM that is there inside, and gone afterwards with all its jobs.

    Raises:
        LabError: it does not come up; with the last lines of its logs.
    """
    with ExitStack() as stack:
        # short, since sockets' names are; and where munge lets its socket be
        folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        for name in ("log", "state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        ports = _free_ports(1 + len(NODES))
        (folder / "slurm.conf").write_text(_configuration(folder, ports))
        running = Lab(
            folder,
            {
                "SLURM_CONF": str(folder / "slurm.conf"),
                "MASTER_ADDR": "127.0.0.1",  # where rank 0 is met: the nodes' names are known to SLURM alone
            },
        )
        files = [f"--{name}={folder / file}" for name, file in (("key-file", key.name), ("socket", "munge.sock"))]
        files += [f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/log/m"]
        stack.callback(_end, _daemon(running, "munged", "--foreground", "--force", *files))
        _until(running, "munge is there", lambda: (folder / "munge.sock").exists())
        stack.callback(_end, _daemon(running, "slurmctld", "-D", "-f", running.environment["SLURM_CONF"]))
        for node in NODES:
            stack.callback(_end, _daemon(running, "slurmd", "-D", "-N", node, "-f", running.environment["SLURM_CONF"]))
        _until(running, "all nodes are idle", lambda: _idle(running) == len(NODES))
        stack.callback(running.clear)
        yield running


def _configuration(folder: Path, ports: list[int]) -> str:
    host = socket.gethostname().partition(".")[0]
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    nodes = "".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} Boards=1 SocketsPerBoard=1 "
        f"CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory={megabytes * 9 // 10 // len(NODES)} State=UNKNOWN\n"
        for node, port in zip(NODES, ports[1:], strict=True)
    )
    return f"""\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a job that is queued again waits until its credentials are void, by default two minutes
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd.%n
PlugStackConfig=/dev/null
CommunicationParameters=NoCtldInAddrAny
# Lightning makes a port of a job's number: other numbers than an earlier lab's, whose ports may not be free yet,
# and than those of another worker of the same tests
FirstJobId={(int(time.time()) + 97 * os.getpid()) % 60_000_000 + 1}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,requeue_setup_env_fail
ReturnToService=2
SlurmdParameters=config_overrides
KillWait={KILL_WAIT_S}
OverTimeLimit=0
MinJobAge=3600
InactiveLimit=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{nodes}\
PartitionName=main Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE \
GraceTime={GRACE_S}
PartitionName=urgent Nodes=ALL DefaultTime=10 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _daemon(running: Lab, program: str, *words: str) -> subprocess.Popen[bytes]:
    """Starts a daemon that is killed when this process ends."""
    found = _program(program)
    assert found is not None  # see `missing`
    with open(running.folder / "log" / "printed", "ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", found, *words],
            env=os.environ | running.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C at the tests is not meant for it
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _idle(running: Lab) -> int:
    try:
        found = running.call("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split()
    except LabError:  # the controller does not answer yet
        return 0
    return len(set(found))  # which are named once for each partition


def _until(running: Lab, what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            logs = sorted((running.folder / "log").iterdir())
            tails = (f"{path.name}:\n" + "\n".join(path.read_text().splitlines()[-20:]) for path in logs)
            raise LabError(f"after 60 s still not so: {what}\n" + "\n".join(tails))
        time.sleep(0.1)
