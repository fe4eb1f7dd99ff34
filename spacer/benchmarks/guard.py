"""The videos of benchmarks, so that data sets can exclude them from training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spacer.benchmarks import read_questions
from spacer.errors import UserError


def guarded_videos(roots: Mapping[str, str]) -> dict[str, str]:
    """Video file stem → the benchmark that asks about it. `roots` maps benchmarks to the folders of their files.

    Raises:
        UserError: a benchmark's files cannot be read, or refer to no video.
    """
    found: dict[str, str] = {}
    for name, root in roots.items():
        questions, _ = read_questions(name, Path(root).expanduser())
        videos = {question.video.stem for question in questions if question.video is not None} - {""}  # of a faulty row
        if not videos:
            raise UserError(
                f"dataset.guard.{name}={root} keeps nothing out of training, for its questions are about no videos: "
                "leave it out"
            )
        found |= dict.fromkeys(sorted(videos), f"in {name}")
    return found
