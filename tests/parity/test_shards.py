"""Checkpoints of models that are spread over processes: each writes its shards, and any number of them goes on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from spacer.distributed.checkpoint_files import read
from spacer.distributed.checkpoint_parts import folders_of, whole_weights
from tests.parity.conftest import ROOT

pytestmark = pytest.mark.long

HALF, END = 3, 6  # steps
LIMIT = 600  # seconds, far beyond what they take


def run(folder: Path, world: int, *words: str | Path) -> list[Any]:
    """What each of `world` processes has left; UserErrors of theirs fail the test."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    shared = {"NODE_RANK": "0", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "tests.parity.shards", str(folder), *map(str, words)]
    processes = []
    for rank in range(world):
        with open(folder / f"said.{rank}", "wb") as said:
            environment = os.environ | shared | {"LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=said, stderr=said))
    try:
        for process in processes:
            process.wait(LIMIT)
    finally:
        for process in processes:
            process.kill()
    told = "".join(path.read_text()[-4000:] for path in folder.glob("said.*"))
    assert not any(process.returncode for process in processes), told
    return [torch.load(folder / f"states.{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """The folder of two processes that ended, a copy of it at half way, and what the first process came to."""
    folder, half = tmp_path_factory.mktemp("peace"), tmp_path_factory.mktemp("half")
    run(folder, 2, HALF)
    shutil.copytree(folder, half, dirs_exist_ok=True)
    return folder, half, run(folder, 2, END, folder / "last.ckpt")[0]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_two_processes_go_on_as_if_they_had_never_stopped(peace: tuple[Path, Path, Any], tmp_path: Path) -> None:
    _, half, resumed = peace
    states = torch.load(half / "states.0.pt", weights_only=True)
    assert equal(resumed["began"], states["ended"]) and not equal(resumed["began"], states["began"])
    whole = run(tmp_path / "whole", 2, END)[0]
    assert equal(resumed["ended"], whole["ended"]) and any(name.endswith("exp_avg_sq") for name in whole["ended"])
    assert int(whole["ended"]["policy.counted"]) == END  # a buffer, which is whole in each process


@pytest.mark.parametrize("world", [1, 3])
def test_any_number_of_processes_goes_on_from_the_same_state(
    world: int, peace: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    _, half, resumed = peace
    for rank in run(tmp_path / "other", world, END, half / "last.ckpt"):
        assert equal(rank["began"], resumed["began"])
        for name, value in rank["ended"].items():
            torch.testing.assert_close(value, resumed["ended"][name], rtol=1e-5, atol=1e-6)


def test_each_process_holds_and_writes_its_own_shards(peace: tuple[Path, Path, Any]) -> None:
    folder, _, resumed = peace
    for rank in range(2):
        held = json.loads((folder / f"held.{rank}.json").read_text())
        assert held["mine"] < 2 / 3 * held["all"]  # rows are odd in number, and the first has all where there is one
    (shards,) = folders_of(folder / "last.ckpt")
    written: list[dict[str, list[int]]] = []
    for file in sorted(shards.iterdir()):
        with safe_open(file, framework="pt") as opened:
            written.append({name: opened.get_slice(name).get_shape() for name in opened.keys()})  # noqa: SIM118
    assert len(written) == 2 and written[0]["state_dict.policy.embedding.weight"] == [4, 8]
    assert written[1]["state_dict.policy.embedding.weight"] == [3, 8]
    assert not any("head" in name or "frozen" in name for names in written for name in names)
    weights = whole_weights(folder / "last.ckpt", read(folder / "last.ckpt"))
    assert weights["policy.head.weight"] is weights["policy.embedding.weight"]
    assert all(torch.equal(value, resumed["ended"][name]) for name, value in weights.items())
