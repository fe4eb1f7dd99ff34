"""`benchmark=easi`: one table of the eight benchmarks in EASI's order, whatever computes the answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spacer.config.choices import EASI
from tests.benchmarks_as_distributed import MAKERS
from tests.cli.conftest import Command, Kill, succeeds
from tests.cli.test_evaluate import SMALL_MEDIA, films
from tests.cli.test_evaluate_resumed import TWO
from tests.cli.test_train import rows

pytestmark = pytest.mark.long

__all__ = ["films"]
# greedy, and numbered as transformers does, which is what the plain computation does; a few questions of each
ASKED = ("limit=3", "max_new_tokens=8", "temperature=0", "samples=1", *(word[10:] for word in SMALL_MEDIA[:2]))


def words(roots: dict[str, Path], out: Path, *more: str) -> list[str]:
    named = [f"benchmarks.{name}.root={root}" for name, root in roots.items()]
    named += [f"benchmarks.{name}.{word}" for name in roots for word in ASKED]
    common = ("model.positions=transformers", "evaluation.resamples=100", "logger=none")
    return ["stage=evaluate", "benchmark=easi", *named, *common, *more, f"hydra.run.dir={out}"]


def answers(out: Path) -> dict[str, list[dict]]:
    return {name: rows(out / name / "predictions" / f"{name}.jsonl") for name in EASI}


def test_trees_and_the_plain_computation_fill_one_table_resumed_or_not(
    command: Command, kill: Kill, films: list[Path], tmp_path: Path
) -> None:
    roots = {}
    for name in reversed(EASI):  # the table's order is its own
        roots[name] = tmp_path / "files" / name
        MAKERS[name](roots[name], films)
    whole, torn, plain = (tmp_path / name for name in ("whole", "torn", "plain"))
    said = succeeds(command(*words(roots, whole)))
    table = said[said.rindex("Overall, in percent") :]
    # names are folded where the terminal is narrow
    firsts = re.findall(rf"^\s*({'|'.join(name[:4] for name in EASI)})", table, re.MULTILINE)
    assert firsts == [name[:4] for name in EASI], table
    expected = answers(whole)
    assert {len(found) for found in expected.values()} == {3}

    third = torn / EASI[2] / "predictions"
    kill(words(roots, torn, *TWO), lambda: any(third.glob("*.jsonl")))
    assert not (torn / EASI[-1]).exists()
    succeeds(command(*words(roots, torn, *TWO)))
    assert answers(torn) == expected

    succeeds(command(*words(roots, plain, "model.computation=plain")))
    assert answers(plain) == expected
