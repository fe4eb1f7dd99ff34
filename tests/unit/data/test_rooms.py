"""Rooms are the same for the same settings, sound as annotation, and real video on disk."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spacer.config.settings import RoomsSettings, VideoSettings
from spacer.data.scenes import rooms
from spacer.data.scenes.render import LOOKS, Camera, camera_path, draw
from spacer.data.scenes.scene import Scene, SceneObject
from spacer.data.video import Video

SCENES = 60
SEEN_SHARE = 0.9  # an object counts as seen once its foot's centre is in the middle nine tenths of the picture

Decode = Callable[[Path, VideoSettings], Video]


def half_sides(item: SceneObject) -> tuple[float, float]:
    """Half of what a box takes along x and y; rooms turns by quarters only."""
    quarters = item.yaw / (math.pi / 2)
    assert quarters == pytest.approx(round(quarters))
    width, depth = item.size[0] / 2, item.size[1] / 2
    return (width, depth) if round(quarters) % 2 == 0 else (depth, width)


def some_scenes(count: int = SCENES, **changes: Any) -> list[Scene]:
    settings = RoomsSettings(root="nowhere", **changes)
    return [rooms.make_scene(settings, "train", index, None) for index in range(count)]


# ---- the annotation


def test_rooms_are_drawn_from_seed_split_and_index_alone() -> None:
    settings = RoomsSettings(root="nowhere", seed=5)
    forward = [rooms.make_scene(settings, "train", index, None) for index in range(4)]
    backward = [rooms.make_scene(settings, "train", index, None) for index in reversed(range(4))]
    assert forward == backward[::-1]
    layouts = [[(item.category, item.centre, item.size) for item in scene.objects] for scene in forward]
    assert all(a != b for a, b in itertools.combinations(layouts, 2))
    other_seed = rooms.make_scene(dataclasses.replace(settings, seed=6), "train", 0, None)
    heldout = rooms.make_scene(settings, "heldout", 0, None)
    for scene in (other_seed, heldout):
        assert (scene.bounds, scene.objects) != (forward[0].bounds, forward[0].objects)
    assert heldout.name != forward[0].name


def test_furniture_stands_in_the_room_and_apart() -> None:
    for scene in some_scenes(min_objects=4, max_objects=8):
        x0, y0, x1, y1 = scene.bounds
        assert scene.area == pytest.approx((x1 - x0) * (y1 - y0), abs=0.006)
        for item in scene.objects:
            half_x, half_y = half_sides(item)
            assert x0 - 1e-3 <= item.centre[0] - half_x and item.centre[0] + half_x <= x1 + 1e-3
            assert y0 - 1e-3 <= item.centre[1] - half_y and item.centre[1] + half_y <= y1 + 1e-3
            assert item.centre[2] == pytest.approx(item.size[2] / 2, abs=1e-3)
        for a, b in itertools.combinations(scene.objects, 2):
            (ax, ay), (bx, by) = half_sides(a), half_sides(b)
            gap_x = abs(a.centre[0] - b.centre[0]) - ax - bx
            gap_y = abs(a.centre[1] - b.centre[1]) - ay - by
            assert math.hypot(max(gap_x, 0), max(gap_y, 0)) >= 0.2 - 1e-6


@pytest.mark.parametrize(("least", "most"), [(4, 6), (1, 1), (8, 8)])
def test_number_of_objects_is_as_asked(least: int, most: int) -> None:
    counts = Counter(len(scene.objects) for scene in some_scenes(min_objects=least, max_objects=most))
    assert set(counts) == set(range(least, most + 1))


def test_rooms_vary() -> None:
    scenes = some_scenes()
    assert {item.category for scene in scenes for item in scene.objects} == set(LOOKS)
    assert len({round(item.yaw / (math.pi / 2)) % 4 for scene in scenes for item in scene.objects}) == 4
    sides = np.array([scene.bounds[2:] for scene in scenes])
    assert sides.min() < 4.5 and sides.max() > 6.5
    assert any(len(scene.of_category("chair")) > 1 for scene in scenes)


# ---- what the camera sees


@pytest.fixture
def filmed(monkeypatch: pytest.MonkeyPatch) -> Callable[[RoomsSettings, str, int], tuple[Scene, list[Camera]]]:
    """A scene with the cameras that filmed it."""
    tours: list[list[Camera]] = []

    def spy(*args: Any, **kwargs: Any) -> list[Camera]:
        tours.append(camera_path(*args, **kwargs))
        return tours[-1]

    monkeypatch.setattr(rooms, "camera_path", spy)

    def film(settings: RoomsSettings, split: str, index: int) -> tuple[Scene, list[Camera]]:
        return rooms.make_scene(settings, split, index, None), tours[-1]

    return film


def off_centre(item: SceneObject, camera: Camera) -> float:
    """How far the nearest of the object's footprint lies from the picture's middle, as a share of half the picture."""
    gaps = []
    for axis, middle in enumerate((camera.x, camera.y)):
        edges = [corner[axis] - middle for corner in item.footprint()]
        gaps.append(max(min(edges), -max(edges), 0.0))
    return max(gaps) / (camera.window / 2)


def test_first_seen_is_the_first_frame_with_some_of_it_in_view(filmed: Any) -> None:
    settings = RoomsSettings(root="nowhere", seconds=3.0, video_fps=8)
    for index in range(SCENES):
        scene, cameras = filmed(settings, "train", index)
        assert len(cameras) == 24
        for item in scene.objects:
            assert item.first_seen is not None  # the tour sees all of the floor
            frame = round(item.first_seen * 8)
            assert item.first_seen == pytest.approx(frame / 8, abs=1e-3) and 0 <= item.first_seen < 3.0
            assert off_centre(item, cameras[frame]) <= SEEN_SHARE
            assert all(off_centre(item, camera) > SEEN_SHARE for camera in cameras[:frame])


def test_what_a_short_video_never_shows_has_no_first_seen(filmed: Any) -> None:
    settings = RoomsSettings(root="nowhere", seconds=0.1, video_fps=8)  # one frame
    seen = []
    for index in range(20):
        scene, (camera,) = filmed(settings, "train", index)
        for item in scene.objects:
            assert item.first_seen == (0.0 if off_centre(item, camera) <= SEEN_SHARE else None)
            seen.append(item.first_seen)
    assert {None, 0.0} == set(seen)


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.floats(4, 7), st.floats(4, 7), st.integers(0, 3), st.booleans(), st.integers(8, 40))
def test_a_tour_shows_all_of_the_floor(width: float, depth: float, start: int, clockwise: bool, frames: int) -> None:
    cameras = camera_path((0, 0, width, depth), frames=frames, pixels=64, start=start, clockwise=clockwise)
    assert len(cameras) == frames
    cameras = [camera for camera in cameras if camera.window == cameras[0].window]  # before it rises
    x, y = np.meshgrid(np.linspace(0, width, 15), np.linspace(0, depth, 15))
    shown = np.zeros_like(x, dtype=bool)
    for camera in cameras:
        shown |= np.maximum(np.abs(x - camera.x), np.abs(y - camera.y)) <= camera.window / 2
    assert shown.all()


def test_a_video_ends_with_the_whole_room_in_view() -> None:
    for width, depth in ((4.0, 7.0), (7.0, 4.0), (5.5, 5.5)):
        *_, last = camera_path((0, 0, width, depth), frames=16, pixels=64, start=1, clockwise=True)
        for corner in itertools.product((0, width), (0, depth)):
            across, down = last.project(*corner, 0)
            assert 0 < across < 64 and 0 < down < 64


def test_tours_start_in_every_corner_and_go_both_ways(filmed: Any) -> None:
    ways = set()
    for index in range(SCENES):
        scene, cameras = filmed(RoomsSettings(root="nowhere"), "train", index)
        middle = (scene.bounds[2] / 2, scene.bounds[3] / 2)
        corners = [
            (camera.x > middle[0], camera.y > middle[1]) for camera in cameras if camera.window == cameras[0].window
        ]
        ways.add(tuple(corner for corner, _ in itertools.groupby(corners)))
    assert len({way[0] for way in ways}) == 4
    assert len(ways) == 8


def visible_pixels(scene: Scene, item: SceneObject, camera: Camera) -> int:
    """How many pixels are other ones once the object is taken away."""
    others = dataclasses.replace(scene, objects=tuple(other for other in scene.objects if other is not item))
    both = (np.asarray(draw(shown, camera)).astype(int) for shown in (scene, others))
    return int((np.subtract(*both) != 0).any(-1).sum())


def test_every_object_shows_at_first_seen(filmed: Any) -> None:
    """Nothing is hidden behind what stands nearer to the camera."""
    settings = RoomsSettings(root="nowhere", size_px=64, video_fps=4)
    for index in range(12):
        scene, cameras = filmed(settings, "train", index)
        for item in scene.objects:
            assert item.first_seen is not None
            shown = [visible_pixels(scene, item, camera) for camera in cameras]
            assert shown[round(item.first_seen * 4)] > 0.02 * max(shown) > 0


def test_right_order_of_appearance_is_the_order_in_the_pictures(filmed: Any) -> None:
    """What is half on show, of what is ever seen of it, before another begins to be, appears before it."""
    settings = RoomsSettings(root="nowhere", size_px=64, video_fps=4)
    asked, wrong = 0, []
    for index in range(30):
        scene, cameras = filmed(settings, "train", index)
        question = rooms.pose(scene, np.random.default_rng(index)).get("obj_appearance_order")
        if question is None:
            continue
        asked += 1
        names = question.options["ABCD".index(question.answer)].split(", ")
        begins, half = {}, {}
        for name in names:
            shows = [[visible_pixels(scene, item, camera) for camera in cameras] for item in scene.of_category(name)]
            begins[name] = min(next(i for i, v in enumerate(shown) if v > 0.05 * max(shown)) for shown in shows)
            half[name] = min(next(i for i, v in enumerate(shown) if v >= 0.5 * max(shown)) for shown in shows)
        for said_first, said_later in itertools.pairwise(names):
            if half[said_later] < begins[said_first]:
                wrong.append((scene.name, said_first, said_later))
    assert asked >= 15
    assert not wrong


# ---- the files


def test_folder_holds_what_it_should(folder: Path, settings: RoomsSettings) -> None:
    names = [f"train_{i:05d}" for i in range(4)] + [f"heldout_{i:05d}" for i in range(2)]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("cognitive_map.jsonl", "heldout.jsonl", "scenes.jsonl", "train.jsonl", "videos"),
    ]
    assert {path.name for path in (folder / "videos").iterdir()} == {f"{name}.mp4" for name in names}

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]

    scenes = [rooms.make_scene(settings, name.split("_")[0], int(name[-5:]), None) for name in names]
    assert rows("scenes.jsonl") == [json.loads(json.dumps(dataclasses.asdict(scene))) for scene in scenes]
    assert rows("cognitive_map.jsonl") == [
        {"video_id": scene.name, "cognitive_map": scene.cognitive_map(), "object_list": scene.categories()}
        for scene in scenes
    ]
    questions = {"train": rows("train.jsonl"), "heldout": rows("heldout.jsonl")}
    assert len(questions["train"]) == 4 * 3 and len(questions["heldout"]) == 2 * 4
    every = [*questions["train"], *questions["heldout"]]
    assert len({row["problem_id"] for row in every}) == len(every)
    for split, found in questions.items():
        for row in found:
            assert row["scene"].startswith(split) and row["path"] == f"videos/{row['scene']}.mp4"
        for kinds in Counter((row["scene"], row["question_type"]) for row in found).values():
            assert kinds == 1  # each question of a scene is of another type


def test_videos_are_h264_of_the_asked_size_and_length(folder: Path) -> None:
    for path in sorted((folder / "videos").iterdir()):
        with av.open(str(path)) as container:
            (stream,) = container.streams
            assert isinstance(stream, av.VideoStream)
            assert stream.codec_context.name == "h264"
            assert (stream.width, stream.height, stream.pix_fmt) == (96, 96, "yuv420p")
            assert stream.average_rate == 4
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert len(frames) == 16
        assert float(np.std(frames[0])) > 10  # a picture, not one colour
        assert np.abs(frames[0].astype(int) - frames[8]).mean() > 5  # of a camera that moves


def test_the_videos_are_decoded(folder: Path, decode: Decode) -> None:
    path = folder / "videos" / "train_00000.mp4"
    video = decode(path, VideoSettings(max_frames=16, fps=4.0))
    assert video.frames_THWC.shape == (16, 96, 96, 3) and video.times == tuple(i / 4 for i in range(16))
    assert (video.step, video.seconds) == (0.25, 4.0)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(np.stack(frames).astype(int) - video.frames_THWC).mean() < 3


def own_colours(picture: np.ndarray, item: SceneObject, camera: Camera) -> float:
    """The share of pixels, around where the object must be, that are a lighter or darker tone of its colours."""
    half_x, half_y = half_sides(item)
    middle, floor = camera.pixels / 2, camera.pixels / camera.window
    # the floor is at the camera's height; the object's top is nearer and so larger
    scales = [floor, floor * camera.height / (camera.height - item.size[2])]
    across = [middle + scale * (item.centre[0] + half - camera.x) for scale in scales for half in (-half_x, half_x)]
    down = [middle - scale * (item.centre[1] + half - camera.y) for scale in scales for half in (-half_y, half_y)]
    left, right, top, bottom = (
        int(np.clip(edge, 0, camera.pixels)) for edge in (min(across), max(across), min(down), max(down))
    )
    pixels = picture[top:bottom, left:right].reshape(-1, 3).astype(float)
    hit = np.zeros(len(pixels), dtype=bool)
    for part in LOOKS[item.category]:
        colour = np.array(part.colour, dtype=float)
        light = np.clip(pixels @ colour / (colour @ colour), 0.5, 1)
        hit |= np.abs(pixels - light[:, None] * colour).max(-1) < 20
    return float(hit.mean()) if len(hit) else 0.0


def test_objects_show_their_colours_in_the_file_at_first_seen(
    folder: Path, settings: RoomsSettings, filmed: Any
) -> None:
    """The frame of the .mp4 at `first_seen` has the object's own colours where it stands, and not without it."""
    shown, without = [], []
    for split, index in itertools.chain((("train", i) for i in range(4)), (("heldout", i) for i in range(2))):
        scene, cameras = filmed(settings, split, index)
        with av.open(str(folder / "videos" / f"{scene.name}.mp4")) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for item in scene.objects:
            assert item.first_seen is not None
            number = round(item.first_seen * settings.video_fps)
            shown.append(own_colours(frames[number], item, cameras[number]))
            others = dataclasses.replace(scene, objects=tuple(other for other in scene.objects if other is not item))
            without.append(own_colours(np.asarray(draw(others, cameras[number])), item, cameras[number]))
    assert len(shown) >= 24
    assert min(shown) > 0.02
    assert np.mean(without) < 0.1  # the measure can tell


def test_a_scene_filmed_again_is_the_same_file(folder: Path, settings: RoomsSettings, tmp_path: Path) -> None:
    rooms.make_scene(settings, "train", 1, tmp_path)
    again = (tmp_path / "train_00001.mp4").read_bytes()
    assert again == (folder / "videos" / "train_00001.mp4").read_bytes()


def test_no_film_depends_on_what_stands_in_memory(tmp_path: Path) -> None:
    settings = RoomsSettings(root="nowhere", size_px=224)
    films: dict[int, set[bytes]] = {index: set() for index in (1, 3, 6)}
    in_memory: list[np.ndarray] = []
    for time in range(8):
        in_memory.append(np.full(40_000 * (time + 1), 17 * time, np.uint8))
        if time % 3 == 2:
            in_memory.clear()
        for index, found in films.items():
            rooms.make_scene(settings, "heldout", index, tmp_path)
            found.add((tmp_path / f"heldout_{index:05d}.mp4").read_bytes())
    assert [len(found) for found in films.values()] == [1, 1, 1]
