"""Two processes, replicated or sharded, train as one process does on their batches side by side."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from spacer.config.settings import Settings
from spacer.data.sources import Split
from spacer.files import read_rows
from tests.parity.conftest import ROOT
from tests.parity.spread import CASES, RESUMED

pytestmark = pytest.mark.long

ZERO = "deepspeed_zero3"
RUN = ("ddp", "fsdp", *([ZERO] if find_spec("deepspeed") else []))
skipped = pytest.mark.skipif(ZERO not in RUN, reason="deepspeed is not installed: pip install -e '.[deepspeed]'")
STRATEGIES = ("ddp", "fsdp", pytest.param(ZERO, marks=skipped))
LIMIT = 900  # seconds, far beyond what they take: a process that waits for another in vain does so for ever


def started(folder: Path, settings: Settings, *strategies: str, world: int) -> list[subprocess.Popen[bytes]]:
    """`world` processes that Lightning is told belong together."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    shared = {"NODE_RANK": "0", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["DS_ACCELERATOR"] = "cpu"
    words = [sys.executable, "-m", "tests.parity.spread", str(folder), settings.dataset.root, *strategies]
    found = []
    for rank in range(world):
        with open(folder / f"said.{rank}.{world}", "wb") as said:
            environment = os.environ | shared | {"LOCAL_RANK": str(rank)}
            found.append(subprocess.Popen(words, env=environment, cwd=ROOT, stdout=said, stderr=said))
    return found


@pytest.fixture(scope="module")
def found(settings: Settings, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder, with what was recorded of faults; by case what one process came to; by strategy and rank what two did.

    The split is there so that its rooms are, before several processes look for them.
    """
    folder = tmp_path_factory.mktemp("spread")
    processes = [*started(folder, settings, "auto", world=1), *started(folder, settings, *RUN, world=2)]
    try:
        for process in processes:
            process.wait(LIMIT)
        said = "".join(path.read_text()[-4000:] for path in folder.glob("said.*"))
        assert [process.returncode for process in processes] == [0, 0, 0], said
    finally:
        for process in processes:
            process.kill()

    def left(strategy: str, rank: int) -> Any:
        return torch.load(folder / f"{strategy}.{rank}.pt", weights_only=True)

    return folder, left("auto", 0), {strategy: [left(strategy, rank) for rank in range(2)] for strategy in RUN}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", [name for name in CASES if name != "narrow"])
def test_two_processes_train_as_one(name: str, strategy: str, found: Any) -> None:
    _, alone, two = found
    if (strategy, name) == (ZERO, "double"):
        pytest.skip("it computes in float32")
    one, ranks = alone[name], [rank[name] for rank in two[strategy]]
    assert len(one["steps"]) == len(CASES[name].batches) and one["took"] == ranks[0]["took"] == ranks[1]["took"]
    written = sorted(text for texts in one["texts"] for text in texts)
    assert written == sorted(text for rank in ranks for texts in rank["texts"] for text in texts)
    for step, expected in enumerate(one["steps"]):
        wanted = {key: value for key, value in expected.items() if key != "train/sampling_drift"}
        for logged in (rank["steps"][step] for rank in ranks):
            assert logged.keys() == expected.keys()
            assert logged.get("train/sampling_drift", 0) < 2e-5  # rounding and nothing else
            for key, value in wanted.items():
                assert logged[key] == pytest.approx(value, **bounds(name, step, key)), (step, key)
    weights = ranks[0]["weights"]
    assert weights.keys() == one["weights"].keys()
    for key, value in one["weights"].items():
        # as a whole: Adam scales up the rounding of gradients that are next to nothing, which those of keys' biases all
        # are, since a bias moves the scores of a query almost alike. In float64, transformers takes norms and turns the
        # vision tower's queries in float32, and where a number is halfway between two of those, its last bit decides:
        # on which processors it is, differs
        bound = 1e-7 if name == "double" else 1e-3 if key.endswith("k_proj.bias") else 5e-5
        assert float((weights[key] - value).norm() / value.norm()) < bound, key


def bounds(name: str, step: int, key: str) -> dict[str, Any]:
    """How near what is logged must be. The loss and the KL are small differences of numbers of up to 1; and in float32,
    weights differ after a step by what Adam makes of gradients next to nothing, which shows in two metrics."""
    moved = key in ("train/gradient_norm", "train/kl") and step > 0 and name != "double"
    rel = 1e-4 if moved else 2e-5 if key in ("train/kl", "train/loss") else 1e-5
    return {"rel": rel, "abs": 1e-6 if key == "train/loss" else 1e-7, "nan_ok": True}


def test_parameters_are_in_parts_again_after_each_rollout(found: Any) -> None:
    _, alone, two = found
    for name in CASES:
        assert alone[name]["in_parts"] == two["ddp"][0][name]["in_parts"] == [False]
        for strategy in set(RUN) - {"ddp"}:
            for rank in two[strategy]:
                assert name not in rank or rank[name]["in_parts"] == [True]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bfloat16_autocast_stays_near(strategy: str, found: Any) -> None:
    _, alone, two = found
    for expected, logged in zip(alone["narrow"]["steps"], two[strategy][0]["narrow"]["steps"], strict=True):
        assert logged["train/loss"] == pytest.approx(expected["train/loss"], rel=0.01)
        assert logged["train/gradient_norm"] == pytest.approx(expected["train/gradient_norm"], rel=0.1)


def test_the_cases_are_what_they_are_for(found: Any) -> None:
    """One process has nothing to write where the other has; gradients are clipped; something is learnt."""
    _, alone, two = found
    for strategy in RUN:
        first, second = (rank["faults"]["texts"] for rank in two[strategy])
        assert len(first) < len(second)
    for name, case in CASES.items():
        norms = [step["train/gradient_norm"] for step in alone[name]["steps"] if "train/gradient_norm" in step]
        assert max(norms) > 1e-3, name
        if "clip" in case.training:
            assert max(norms) > case.training["clip"]
        if not case.sft:
            assert alone[name]["steps"][-1]["train/kl"] > 0


@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
def test_faults_of_all_processes_are_recorded_once(strategy: str, found: Any) -> None:
    folder, _, _ = found
    assert [row["where"] for row in read_rows(folder / f"{strategy}.faults.jsonl")] == ["bad", "worse"]


@skipped
@pytest.mark.parametrize(("first", "then"), RESUMED)
def test_checkpoints_of_zero3_and_ddp_are_the_same(first: str, then: str, found: Any) -> None:
    _, alone, two = found
    wanted, resumed = alone["sft"], two[ZERO][0][first + then]
    assert resumed["took"] == wanted["took"]
    for logged, expected in zip(resumed["steps"], wanted["steps"][2:], strict=True):
        assert logged["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-5, abs=1e-7)
        assert logged["train/learning_rate"] == expected["train/learning_rate"]
    for key, value in wanted["weights"].items():
        assert float((resumed["weights"][key] - value).norm() / value.norm()) < 1e-5, key
