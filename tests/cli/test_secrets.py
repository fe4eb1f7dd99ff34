"""What a sweep on SLURM leaves on the disk for its jobs holds no secret; SLURM's commands are stand-ins here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.forks import ROOT

SECRET, OTHER = "tops3cret-0123456789", "an0ther-s3cret-value"
PROGRAMS = {
    "sbatch": "echo Submitted batch job 7",
    "srun": "exit 1",
    "squeue": "exit 0",
    "scontrol": "echo JobState=CANCELLED ExitCode=0:15",
}


def test_a_sweep_hands_slurm_no_secret(environment: dict[str, str], tmp_path: Path) -> None:
    programs, out = tmp_path / "bin", tmp_path / "sweep"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    env = environment | {"PATH": f"{programs}:{os.environ['PATH']}", "MY_TOKEN": SECRET, "OTHER_API_KEY": OTHER}
    words = [
        *("cluster=slurm", "cluster.gpus_per_node=null", "seed=1,2", "trainer.max_steps=1", f"hydra.sweep.dir={out}"),
        *("logger.project=${oc.env:MY_TOKEN}", f"logger.entity={OTHER}", f"logger.name={OTHER}"),
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words],
        env=env | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "2 jobs are not done" in said, said
    files = [file for file in out.rglob("*") if file.is_file()]
    suffixes = {file.suffix for file in files}
    assert {".pkl", ".sh", ".json"} <= suffixes and (out / "sweep.json") in files, files
    holding = [file for file in files if any(one.encode() in file.read_bytes() for one in (SECRET, OTHER))]
    assert holding == []
    assert SECRET not in said and OTHER not in said
    pickles = b"".join(file.read_bytes() for file in files if file.suffix == ".pkl")
    assert b"${oc.env:MY_TOKEN}" in pickles and b"${oc.env:OTHER_API_KEY}" in pickles
