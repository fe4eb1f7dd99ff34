"""Questions about rooms whose map is given and whose video is not: practice in reasoning from text alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from spacer.config.settings import LayoutsSettings, RoomsSettings
from spacer.data.prompts import ends_with, map_literal
from spacer.data.samples import TEXT_ALONE, Sample, to_sample
from spacer.data.scenes.lines import LETTERS, Question, data_line
from spacer.data.scenes.questions import pose
from spacer.data.scenes.rooms import make_scene
from spacer.data.scenes.scene import Scene
from spacer.data.scenes.steps import THROUGH_OPTIONS, steps, through_options, turns, ways
from spacer.process.pool import in_workers
from spacer.terminal.progress import progress_bar

OF_ROOMS = ("seed", "min_objects", "max_objects", "size_spread")  # the settings that shape the rooms themselves


def read_layouts(settings: LayoutsSettings, split: str) -> tuple[Sample, ...]:
    """The questions of a split, made anew each time: of each room, one of each type that a map can answer.

    A question's completion is begun with the true map and, for the order of appearance, with the frames that only a
    video would show. Questions that the map answers wrongly, since it is coarse, are left out.
    """
    count = settings.train_scenes if split == "train" else settings.heldout_scenes
    tasks = [(settings, split, index) for index in range(count)]
    with in_workers(_ask, tasks, min(os.cpu_count() or 1, 8)) as asked:
        return tuple(
            sample for samples in progress_bar(asked, total=count, desc="asking about layouts") for sample in samples
        )


def _ask(task: tuple[LayoutsSettings, str, int]) -> list[Sample]:
    return list(_samples(*task))


def _samples(settings: LayoutsSettings, split: str, index: int) -> Iterator[Sample]:
    shape = {name: getattr(settings, name) for name in OF_ROOMS}
    scene = make_scene(RoomsSettings(root="", **shape), split, index, None)
    rng = np.random.default_rng([settings.seed, ("train", "heldout").index(split), index, 4])
    for number in range(settings.ways if split == "train" and len(scene.unique_objects()) > 1 else 0):
        yield _sample(f"{scene.name}_ways_{number}", ways(scene, rng), "", scene)
    asked: list[Question] = []
    for name, question in pose(scene, rng).items():
        found = steps(question, scene)
        if found.conclusion == question.content():
            explained = through_options(dataclasses.replace(question, reasoning=found.whole()))
            yield _sample(f"{scene.name}_{name}", explained, found.seen, scene)
            asked += [dataclasses.replace(question, reasoning=found.text)] if question.options else []
    if split == "train":
        for number in range(settings.turns):
            yield _exercise(f"{scene.name}_turns_{number}", turns(rng), "", scene)
        for number in range(settings.letters if asked else 0):
            question = asked[rng.integers(len(asked))]
            moved = question.with_right_at(LETTERS[rng.integers(len(question.options))])
            # letters that the steps themselves are about stay in the order of the options
            question = question if question.question_type in THROUGH_OPTIONS else moved
            yield _exercise(f"{scene.name}_letters_{number}", through_options(question), question.reasoning, scene)


def _exercise(identity: str, question: Question, begun: str, scene: Scene) -> Sample:
    """Without a map, and with the reasoning given as far as `begun`."""
    line = data_line(question, identity, scene.name, "", "layouts") | {"data_type": TEXT_ALONE}
    return dataclasses.replace(to_sample(line, (), None), begun=f"<think>{begun}")


def _sample(identity: str, question: Question, seen: str, scene: Scene) -> Sample:
    true_map = scene.cognitive_map()
    about = question.drawn_last()
    begun = " ".join(part for part in (f"<think><map>{map_literal(ends_with(true_map, about))}</map>", seen) if part)
    line = data_line(question, identity, scene.name, "", "layouts") | {"data_type": TEXT_ALONE, "about": [*about]}
    return dataclasses.replace(to_sample(line, (), true_map), begun=begun)
