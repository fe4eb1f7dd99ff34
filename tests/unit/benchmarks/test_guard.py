"""The leakage guard reads the same files as an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacer.benchmarks import benchmark
from spacer.config.choices import BENCHMARKS
from spacer.data.leakage import video_names
from spacer.errors import UserError
from tests import benchmarks_as_distributed as made
from tests.unit.benchmarks.test_reading import PICTURES


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {*PICTURES, "site_bench"}))
def test_the_videos_of_a_benchmark_are_known_to_the_leakage_guard(name: str, tmp_path: Path) -> None:
    path = made.MAKERS[name](tmp_path)
    questions, _ = benchmark(name).read(tmp_path)
    videos = {question.video for question in questions if question.video}
    stems = {video.stem for video in videos}
    assert stems <= video_names(path) <= stems | {video.name for video in videos}


def test_a_benchmark_of_pictures_has_no_videos_to_leave_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the columns scene_name"):
        video_names(made.spar_bench(tmp_path))
