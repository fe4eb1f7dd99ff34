"""What pictures of rooms show and where, and the short questions about them, on rooms measured by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spacer.config.settings import RoomsSettings, StillsSettings
from spacer.data.samples import read_maps, read_samples
from spacer.data.scenes import rooms, stills
from spacer.data.scenes.glances import short_questions
from spacer.data.scenes.render import Camera, draw, overview
from spacer.data.scenes.scene import Scene, SceneObject
from spacer.data.scenes.views import view_of


def flat(category: str, x: float, y: float, width: float = 1.0, depth: float = 1.0) -> SceneObject:
    """An object without height, which perspective leaves where it stands."""
    return SceneObject(category, (x, y, 0.0), (width, depth, 0.0), 0.0, None)


ROOM = Scene("room", (0.0, 0.0, 4.0, 4.0), 16.0, (flat("table", 3.0, 1.0), flat("bed", 1.0, 3.0, 1.0, 2.0)))


def test_where_objects_and_the_floor_are_in_a_picture() -> None:
    """Of eight metres across, the room in the middle: its corner (0, 0) is a quarter from the left and the bottom."""
    view = view_of(ROOM, Camera(2.0, 2.0, 8.0, 64))
    bed, table = view.objects
    assert (bed.category, bed.box, bed.centre, bed.cell) == ("bed", (0.3125, 0.25, 0.4375, 0.5), (0.375, 0.375), (2, 7))
    assert (table.category, table.box, table.cell) == ("table", (0.5625, 0.5625, 0.6875, 0.6875), (7, 2))
    assert view.floor == (-0.5, 1.5, 1.5, -0.5)  # top left, bottom right; maps begin at the bottom left


def test_what_is_not_in_the_picture_is_not_listed() -> None:
    view = view_of(ROOM, Camera(3.0, 1.0, 2.0, 64))
    assert [item.category for item in view.objects] == ["table"]
    assert view.floor == (0.5, 0.5, 1.0, 0.0)


def test_boxes_are_where_things_are_drawn() -> None:
    """What a picture shows with an object and not without it lies in the object's box, and fills most of it."""
    settings = RoomsSettings(root="unused", train_scenes=1, size_px=224)
    scene = rooms.make_scene(settings, "train", 3, None)
    camera = overview(scene.bounds, 224)
    for item in view_of(scene, camera).objects:
        alone = next(o for o in scene.objects if o.category == item.category and scene.cell(o.place) == item.cell)
        one = Scene("one", scene.bounds, scene.area, (alone,))
        none = Scene("none", scene.bounds, scene.area, ())
        with_it, without = (np.asarray(draw(s, camera)).astype(int) for s in (one, none))
        ys, xs = np.nonzero(np.abs(with_it - without).sum(2) > 0)
        drawn = xs.min() / 224, ys.min() / 224, (xs.max() + 1) / 224, (ys.max() + 1) / 224
        assert drawn == pytest.approx(item.box, abs=0.02), item.category


@pytest.mark.parametrize("side", [4.0, 6.5])
def test_a_fixed_height_shows_every_room_at_one_scale(side: float) -> None:
    bounds = (0.0, 0.0, side, side)
    fixed = overview(bounds, 192, side=7.0)
    assert fixed.window == pytest.approx(1.12 * 7.0)
    assert overview(bounds, 192).window == pytest.approx(1.12 * side)


def test_sizes_of_a_kind_are_spread(tmp_path: Path) -> None:
    """The longest side over the kind's own range reaches below .75 and above 1.3 where the spread is 2.2."""
    settings = RoomsSettings(root=str(tmp_path), size_spread=2.2)
    scales = []
    for index in range(60):
        for item in rooms.make_scene(settings, "train", index, None).objects:
            low, high = rooms.FURNITURE[item.category][0]
            scales.append(item.size[0] / ((low + high) / 2))
    assert min(scales) < 0.75 and max(scales) > 1.3
    assert min(scales) > 2.2**-0.5 * 0.7 and max(scales) < 2.2**0.5 * 1.3


def test_short_questions_ask_of_what_is_there_in_numbers_first() -> None:
    scene = Scene("s", (0, 0, 10, 10), 100.0, (flat("bed", 1, 1), flat("chair", 2, 2), flat("chair", 8, 9)))
    asked = [question for seed in range(8) for question in short_questions(scene, 1, np.random.default_rng(seed))]
    assert {(question.question_type, question.answer) for question in asked} == {
        ("object_counting", "2"),
        ("object_places", '{"chair":[[2,2],[8,9]]}'),
    }
    assert {question.answer for question in short_questions(scene, 9, np.random.default_rng(0))} >= {"2"}


def test_stills_come_with_views_and_short_questions(tmp_path: Path) -> None:
    settings = StillsSettings(
        root=str(tmp_path), train_scenes=3, heldout_scenes=1, size_px=64, questions_per_still=2, tour_share=0.5
    )
    folder = stills.build(settings)
    views = stills.read_views(settings)
    samples, faults = read_samples(folder / "train.jsonl", folder, read_maps(folder / "cognitive_map.jsonl"))
    assert not faults and {sample.path for sample in samples} <= set(views)
    drawings = [sample for sample in samples if sample.question_type == "drawing"]
    short = [sample for sample in samples if sample.question_type != "drawing"]
    assert len(drawings) == 3 and len(short) == 6
    assert all(sample.true_map for sample in drawings) and not any(sample.true_map for sample in short)
    lines = [json.loads(line) for line in (folder / "views.jsonl").read_text().splitlines()]
    assert {Image.open(folder / line["path"]).size for line in lines} == {(64, 64)}


def test_stills_lie_in_a_folder_of_their_own() -> None:
    """Beside videos of the same rooms under the same root, and one for each share of stills on the tour."""
    kinds = [RoomsSettings(root="r"), StillsSettings(root="r"), StillsSettings(root="r", tour_share=0.5)]
    assert len({rooms.digest(settings) for settings in kinds}) == 3
