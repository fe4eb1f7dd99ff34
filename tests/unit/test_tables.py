"""The tables that stages print: one look, readable names, no star where there is no interval."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from spacer.report import benchmark_scores
from spacer.report.benchmark_scores import published_table
from spacer.report.published import PUBLISHED, Published
from spacer.report.table import video_adds_table
from spacer.stages.generate import pass_rate_table
from spacer.stages.summary import _scores_table
from spacer.statistics.passing import PassRates
from spacer.statistics.summaries import PairedDelta, mean_scores
from tests.run_folders import heldout_row
from tests.unit.configs import load


def printed(table: object) -> str:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_no_stage_makes_a_look_of_its_own() -> None:
    """`plain_table` is the only one that calls rich's Table."""
    root = Path(__file__).parents[2] / "spacer"
    made = [str(path.relative_to(root)) for path in root.rglob("*.py") if re.search(r"[^.\w]Table\(", path.read_text())]
    assert sorted(made) == ["terminal/tables.py"]


def test_scores_of_an_evaluation_have_readable_names_and_no_star_of_few_scenes() -> None:
    rows = [heldout_row(number, number < 6) for number in range(12)]  # of six scenes
    scores = mean_scores(rows, 100, 0)
    said = printed(_scores_table(load(), rows, scores))
    assert "object count" in said and "quality of drawn maps" in said and "answer/" not in said
    assert "*" not in said and said.count("< 10 scenes") == len(scores)


def test_what_the_video_adds_has_readable_names() -> None:
    few = PairedDelta(0.2, 0.5, 0.3, float("nan"), float("nan"), 12, 6)
    said = printed(
        video_adds_table({"task/obj_appearance_order": 0.5}, {}, {"grey": {"task/obj_appearance_order": few}})
    )
    assert "appearance order" in said and "+30.0, < 10 videos" in said and "*" not in said


def test_pass_rates_fit_a_terminal_with_what_is_never_right_and_what_teaches() -> None:
    rates = PassRates(0.4167, 0.35, 0.5, never=1900, sometimes=3000, always=100, teaching=4200, scenes=90)
    said = printed(pass_rate_table({"object_counting": rates}, rates, 8))
    row = next(line for line in said.splitlines() if line.startswith("object count "))
    assert row.split()[2:] == ["5000", "0.417", "0.350", "to", "0.500", "1900", "3000", "100", "84.0", "%"]
    few = printed(pass_rate_table({}, PassRates(0.5, float("nan"), float("nan"), 0, 1, 0, 1, 1), 8))
    assert "< 10 scenes" in few and "nan" not in few


def test_published_scores_stand_in_a_table_of_their_own_with_their_sources() -> None:
    said = printed(published_table("vsi_bench"))
    known = [entry for entry in PUBLISHED if entry.benchmark == "vsi_bench"]
    assert all(entry.model in said and f"{entry.value:.2f}" in said for entry in known) and len(known) == 5
    assert "none of them measured here" in said and "2504.01805" in said and "report.html" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert published_table("tempcompass") is None


def test_six_published_scores_are_shown_and_the_report_named_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(Published("vsi_bench", f"model {n}", 40.0 + n, "a paper") for n in range(9))
    monkeypatch.setattr(benchmark_scores, "PUBLISHED", many)
    said = printed(published_table("vsi_bench"))
    assert [n for n in range(9) if f"model {n}" in said] == list(range(6))
    assert said.index("model 5") < said.index("model 0") and "3 more are in report.html" in " ".join(said.split())
