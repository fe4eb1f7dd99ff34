"""A benchmark that was killed while it was asked, at whatever moment, ends as one that was not."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.benchmarks_as_distributed import MAKERS
from tests.cli.conftest import Command, Kill, fails, succeeds, together
from tests.cli.test_evaluate import films, to_evaluate
from tests.cli.test_train import rows

pytestmark = pytest.mark.long

__all__ = ["films"]
QUESTIONS = 30
# sampled, so that a question that was asked with other random numbers would show
ASKED = ("benchmark.temperature=1.0", "benchmark.batch_size=3")
TWO = ("cluster.devices=2", "cluster.accelerator=cpu", "cluster.strategy=ddp")
NAME = "vsi_bench"


def answers_in(folder: Path) -> list[dict]:
    """The lines that are on disk, of whichever process; one that is being written is none."""
    lines = [line for file in folder.glob("predictions/*.jsonl") for line in file.read_text().splitlines(True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def final(folder: Path) -> bytes:
    return (folder / f"predictions/{NAME}.jsonl").read_bytes()


@pytest.fixture(scope="module")
def root(films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    MAKERS[NAME](root, films, rounds=QUESTIONS // 10, scenes=4)
    return root


@pytest.fixture(scope="module")
def runs(root: Path, command: Command, kill: Kill, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a run that was left in peace, and of one that was killed six times, also as two processes."""
    peace, torn = tmp_path_factory.mktemp("peace"), tmp_path_factory.mktemp("torn")

    def tear() -> None:
        moments = sorted(random.Random(7).sample(range(1, QUESTIONS - 4), 6))
        # batches and limits change no answer
        changes = itertools.cycle((["benchmark.batch_size=4", "benchmark.limit=29"], [], [*TWO]))
        for moment, more in zip(moments, changes, strict=False):
            words = to_evaluate(NAME, root, torn, *ASKED, *more)
            kill(words, lambda at=moment: len(answers_in(torn)) >= at)
            assert moment <= len(answers_in(torn)) < QUESTIONS

    with ThreadPoolExecutor(1) as pool:
        tearing = pool.submit(tear)
        succeeds(command(*to_evaluate(NAME, root, peace, *ASKED)))
        tearing.result()
    assert not (torn / "scores.json").exists()
    return peace, torn


@pytest.mark.parametrize("more", [(), TWO], ids=["one process", "two processes"])
def test_killed_and_completed_leaves_what_one_never_killed_leaves(
    more: tuple[str, ...], runs: tuple[Path, Path], root: Path, command: Command, tmp_path: Path
) -> None:
    peace, torn = runs
    out = tmp_path / "out"
    shutil.copytree(torn, out)
    held = {row["id"]: row for row in answers_in(out)}
    assert len(held) == len(answers_in(out)) < QUESTIONS
    with open(next(out.glob("predictions/*.part.jsonl")), "a") as file:
        file.write('{"id": "29", "task": "room_si')  # what a crash of the machine may leave
    succeeds(command(*to_evaluate(NAME, root, out, *ASKED, *more)))
    answers = rows(out / f"predictions/{NAME}.jsonl")
    assert [row["id"] for row in answers] == [str(n) for n in range(QUESTIONS)]
    assert all(held.get(row["id"], row) == row for row in answers)  # nothing was asked again
    assert final(out) == final(peace)
    for name in ("per_question.jsonl", "scores.json"):
        assert (out / name).read_bytes() == (peace / name).read_bytes()
    assert not list(out.glob("predictions/*.part.jsonl"))


def test_one_that_is_killed_after_its_last_answer_and_one_that_is_asked_for_less(
    runs: tuple[Path, Path], root: Path, command: Command, tmp_path: Path
) -> None:
    peace, _ = runs
    last, less = tmp_path / "last", tmp_path / "less"
    for folder in (last, less):
        shutil.copytree(peace, folder)
    lines = (last / f"predictions/{NAME}.jsonl").read_text().splitlines(True)
    for rank in (0, 1):
        (last / f"predictions/{NAME}.{rank}.part.jsonl").write_text("".join(reversed(lines[rank::2])))
    (last / f"predictions/{NAME}.jsonl").unlink()
    (last / "scores.json").unlink()
    some = ("benchmark.tasks=[object_counting,route_planning]", "benchmark.limit=5")
    two = [to_evaluate(NAME, root, last, *ASKED), to_evaluate(NAME, root, less, *ASKED, *some)]
    for done in together(command, two):
        succeeds(done)
    assert final(last) == final(peace) and not list(last.glob("predictions/*.part.jsonl"))
    assert (last / "scores.json").read_bytes() == (peace / "scores.json").read_bytes()
    # what was answered beside the chosen questions stays, and is not scored
    assert final(less) == final(peace)
    how = json.loads((less / "scores.json").read_text())["settings"]
    assert (how["tasks"], how["limit"]) == (["object_counting", "route_planning"], 5)
    assert [row["id"] for row in rows(less / "per_question.jsonl")] == ["4", "7", "14", "17", "24"]


def test_other_conditions_are_refused_and_told(
    runs: tuple[Path, Path], root: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(runs[0], out)
    changed = ("benchmark.video.max_frames=8", "benchmark/prompts=direct", "benchmark.temperature=0", "seed=1")
    done = command(*to_evaluate(NAME, root, out, *changed, "benchmark.batch_size=3"))
    said = fails(done, "other conditions", "benchmark.video.max_frames: 32 then, 8 now", "hydra.run.dir=")
    for told in ("benchmark.prompts.plain: ", "benchmark.temperature: 1.0 then, 0.0 now", "seed: 0 then, 1 now"):
        assert told in said
    assert "batch_size" not in said and "fps" not in said
    assert final(out) == final(runs[0])
