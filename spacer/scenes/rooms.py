"""The embedded data set: procedural rooms, rendered into videos, with every question made from the annotation.

A data set lies in `root/<digest of its settings>/`:

    train.jsonl heldout.jsonl     questions, in the fields of SpaceR-151k
    cognitive_map.jsonl           a map a video
    scenes.jsonl                  the annotation
    videos/*.mp4

The folder is written under another name and renamed when it is whole, so that a folder that exists is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spacer.data.samples import Sample, to_sample
from spacer.files import whole_folder
from spacer.progress import progress_bar
from spacer.scenes.lines import Question, data_line
from spacer.scenes.questions import pose
from spacer.scenes.render import camera_path, draw, overview, write_video
from spacer.scenes.scene import Scene, SceneObject, polygon_distance
from spacer.settings import RoomsSettings

VERSION = 4  # raised when the same settings give other rooms, so that cached folders are made anew

# category → ranges of (width, depth, height) in metres, and how many of it may stand in a room
FURNITURE: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float], int]] = {
    "bed": ((1.4, 1.8), (1.9, 2.1), (0.7, 1.0), 1),
    "bookshelf": ((0.8, 1.4), (0.35, 0.5), (1.4, 1.8), 2),
    "chair": ((0.5, 0.6), (0.5, 0.6), (0.8, 0.95), 4),
    "lamp": ((0.4, 0.5), (0.4, 0.5), (1.3, 1.6), 3),
    "piano": ((1.4, 1.6), (0.7, 0.9), (1.0, 1.2), 1),
    "plant": ((0.5, 0.7), (0.5, 0.7), (0.7, 1.2), 4),
    "refrigerator": ((0.7, 0.9), (0.65, 0.8), (1.6, 1.8), 1),
    "sofa": ((1.7, 2.3), (0.85, 1.0), (0.75, 0.9), 2),
    "table": ((1.0, 1.5), (0.8, 1.0), (0.7, 0.78), 2),
    "television": ((1.1, 1.5), (0.4, 0.5), (0.9, 1.2), 1),
}
# the settings that shape the files, and so name their folder
SHAPING = (
    *("seed", "train_scenes", "heldout_scenes", "questions_per_scene", "heldout_questions_per_scene"),
    *("min_objects", "max_objects", "size_px", "seconds", "video_fps", "stills"),
)
ROOM_SIDE = (4.0, 7.0)
CLEARANCE = 0.2  # metres between two objects
TRIES = 400  # placements tried before a room is given up and drawn anew


def digest(settings: RoomsSettings) -> str:
    """Names the folder of a data set: equal settings, equal digest; only what shapes the files counts."""
    values = {name: getattr(settings, name) for name in SHAPING} | {"version": VERSION}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def build(settings: RoomsSettings) -> Path:
    """Makes the data set unless it lies there whole, and returns its folder."""
    folder = Path(settings.root).expanduser() / digest(settings)
    if not folder.is_dir():
        with whole_folder(folder) as work:
            (work / "stills" if settings.stills else work / "videos").mkdir()
            _write(settings, work)
    return folder


def _write(settings: RoomsSettings, work: Path) -> None:
    jobs = [("train", i) for i in range(settings.train_scenes)]
    jobs += [("heldout", i) for i in range(settings.heldout_scenes)]
    tasks = [(settings, work, split, index) for split, index in jobs]
    # spawned, not forked: the caller may hold threads
    with (
        multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, 8)) as pool,
        open(work / "train.jsonl", "w") as train,
        open(work / "heldout.jsonl", "w") as heldout,
        open(work / "cognitive_map.jsonl", "w") as maps,
        open(work / "scenes.jsonl", "w") as scenes,
    ):
        made = pool.imap(_make, tasks, chunksize=8)
        for (split, index), scene in zip(
            jobs, progress_bar(made, total=len(jobs), desc="rendering rooms"), strict=True
        ):
            scenes.write(json.dumps(dataclasses.asdict(scene)) + "\n")
            entry = {"video_id": scene.name, "cognitive_map": scene.cognitive_map(), "object_list": scene.categories()}
            maps.write(json.dumps(entry) + "\n")
            out = train if split == "train" else heldout
            for line in _lines(settings, scene, split, index):
                out.write(json.dumps(line) + "\n")


def _make(task: tuple[RoomsSettings, Path, str, int]) -> Scene:
    settings, work, split, index = task
    if not settings.stills:
        return make_scene(settings, split, index, work / "videos")
    scene = make_scene(settings, split, index, None)
    draw(scene, overview(scene.bounds, settings.size_px)).save(work / f"stills/{scene.name}.png")
    return scene


def _rng(settings: RoomsSettings, split: str, index: int, use: int) -> np.random.Generator:
    """Independent streams for each scene and use, whatever the order of the work."""
    return np.random.default_rng([settings.seed, ("train", "heldout").index(split), index, use])


def make_scene(settings: RoomsSettings, split: str, index: int, videos: Path | None) -> Scene:
    """Furnishes room `index` of a split, and films it into `videos` unless that is None."""
    rng = _rng(settings, split, index, 0)
    scene: Scene | None = None
    while scene is None:
        scene = _furnish(rng, f"{split}_{index:05d}", settings)
    cameras = camera_path(
        scene.bounds,
        frames=max(1, round(settings.seconds * settings.video_fps)),
        pixels=settings.size_px,
        start=int(rng.integers(4)),
        clockwise=bool(rng.integers(2)),
    )
    seen = []
    for item in scene.objects:
        first = next((i for i, camera in enumerate(cameras) if camera.sees(item)), None)
        seen.append(
            dataclasses.replace(item, first_seen=None if first is None else round(first / settings.video_fps, 3))
        )
    scene = dataclasses.replace(scene, objects=tuple(seen))
    if videos is not None:
        write_video(scene, cameras, settings.video_fps, videos / f"{scene.name}.mp4")
    return scene


def _furnish(rng: np.random.Generator, name: str, settings: RoomsSettings) -> Scene | None:
    width, depth = (round(float(rng.uniform(*ROOM_SIDE)), 2) for _ in range(2))
    wanted = int(rng.integers(settings.min_objects, settings.max_objects + 1))
    names = list(FURNITURE)
    kinds: list[str] = []
    for category in rng.permutation(names):
        most = min(FURNITURE[category][3], wanted - len(kinds))
        # half of the categories that may come in numbers do
        count = int(rng.integers(1, most + 1)) if most > 1 and rng.random() < 0.5 else most and 1
        kinds += [str(category)] * count
    # the bulky first, while there is room
    kinds.sort(key=lambda kind: -FURNITURE[kind][0][1] * FURNITURE[kind][1][1])
    placed: list[SceneObject] = []
    for kind in kinds:
        ranges = FURNITURE[kind]
        size = tuple(round(float(rng.uniform(*span)), 2) for span in ranges[:3])
        item = _place(rng, kind, (size[0], size[1], size[2]), width, depth, placed)
        if item is None:
            return None
        placed.append(item)
    order = rng.permutation(len(placed))
    return Scene(name, (0.0, 0.0, width, depth), round(width * depth, 2), tuple(placed[i] for i in order))


def _place(
    rng: np.random.Generator,
    kind: str,
    size: tuple[float, float, float],
    width: float,
    depth: float,
    placed: list[SceneObject],
) -> SceneObject | None:
    for _ in range(TRIES // len(FURNITURE)):
        quarter = int(rng.integers(4))
        reach_x, reach_y = (size[0] / 2, size[1] / 2) if quarter % 2 == 0 else (size[1] / 2, size[0] / 2)
        x = round(float(rng.uniform(reach_x, width - reach_x)), 3)
        y = round(float(rng.uniform(reach_y, depth - reach_y)), 3)
        item = SceneObject(kind, (x, y, round(size[2] / 2, 3)), size, quarter * math.pi / 2, None)
        if all(polygon_distance(item.footprint(), other.footprint()) >= CLEARANCE for other in placed):
            return item
    return None


def _lines(settings: RoomsSettings, scene: Scene, split: str, index: int) -> Iterator[dict[str, object]]:
    """The questions of a scene as data lines, each of another type; which types come is drawn."""
    rng = _rng(settings, split, index, 1)
    if settings.stills:
        yield _still_line(scene)
        return
    posed = pose(scene, rng)
    count = settings.questions_per_scene if split == "train" else settings.heldout_questions_per_scene
    for number, kind in enumerate([list(posed)[i] for i in rng.permutation(len(posed))][:count]):
        yield _line(posed[kind], scene, f"{scene.name}_{number}")


def example_samples(settings: RoomsSettings, scenes: int) -> Iterator[Sample]:
    """Every question that can be asked of the first so many training rooms, without their media: text to learn from."""
    for index in range(scenes):
        scene = make_scene(settings, "train", index, None)
        for kind, question in pose(scene, _rng(settings, "train", index, 1)).items():
            line = _line(question, scene, f"{scene.name}_{kind}")
            yield to_sample(line, Path(str(line["path"])), scene.cognitive_map())


def _still_line(scene: Scene) -> dict[str, object]:
    return {
        "problem_id": scene.name,
        "problem": "Draw the room.",
        "data_type": "image",
        "problem_type": "free-form",
        "options": [],
        "solution": "<answer>done</answer>",
        "path": f"stills/{scene.name}.png",
        "data_source": "rooms",
        "scene": scene.name,
        "question_type": "drawing",
        "reasoning": "",
    }


def _line(question: Question, scene: Scene, problem_id: str) -> dict[str, object]:
    return data_line(question, problem_id, scene.name, f"videos/{scene.name}.mp4", "rooms")
