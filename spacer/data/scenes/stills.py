"""Stills of the embedded rooms: a picture of each, to be drawn as a map, and short questions about it.

A data set lies in a folder like that of `spacer.data.scenes.rooms`, with

    stills/*.png                  for the videos
    views.jsonl                   what each still shows and where (`spacer.data.scenes.views`)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from spacer.config.settings import StillsSettings
from spacer.data.scenes import rooms
from spacer.data.scenes.glances import short_questions
from spacer.data.scenes.lines import Question, data_line
from spacer.data.scenes.render import Camera, camera_path, draw
from spacer.data.scenes.scene import Scene
from spacer.data.scenes.views import View, VisibleObject, view_of


def build(settings: StillsSettings) -> Path:
    """Builds the data set unless it already exists, and returns its folder."""
    return rooms.build_once(settings, "stills", _write)


def read_views(settings: StillsSettings) -> dict[Path, View]:
    """Path of each still, as in samples → what it shows."""
    folder = build(settings).resolve()
    views = {}
    with open(folder / "views.jsonl", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            objects = (
                VisibleObject(item["category"], tuple(item["box"]), tuple(item["centre"]), tuple(item["cell"]))
                for item in row["objects"]
            )
            views[folder / row["path"]] = View(tuple(objects), tuple(row["floor"]))
    return views


def _write(settings: StillsSettings, work: Path) -> None:
    with rooms.line_files(work, "train", "heldout", "cognitive_map", "scenes", "views") as write:
        for split, index, (scene, view) in rooms.in_every_room(_make, settings, work):
            rooms.write_scene(write, scene)
            write("views", view)
            for line in _lines(settings, scene, split, index):
                write(split, line)


def _make(task: tuple[StillsSettings, Path, str, int]) -> tuple[Scene, dict[str, object]]:
    settings, work, split, index = task
    scene = rooms.make_scene(settings, split, index, None)
    camera, path = _camera(settings, scene, split, index), _path(scene)
    draw(scene, camera).save(work / path)
    return scene, {"path": path} | dataclasses.asdict(view_of(scene, camera))


def _camera(settings: StillsSettings, scene: Scene, split: str, index: int) -> Camera:
    """A random camera: from above, or from a point on a tour of the room."""
    rng = rooms.scene_rng(settings, split, index, 2)
    if rng.random() >= settings.tour_share:
        return rooms.top_camera(settings, scene)
    frames = max(1, round(settings.seconds * settings.video_fps))
    path = camera_path(scene.bounds, frames=frames, pixels=settings.size_px, start=int(rng.integers(4)), clockwise=True)
    return path[int(rng.integers(frames - frames // 4))]


def _lines(settings: StillsSettings, scene: Scene, split: str, index: int) -> Iterator[dict[str, object]]:
    """The map to draw and the short questions about a still, as data lines."""
    yield _drawing_line(scene)
    rng = rooms.scene_rng(settings, split, index, 1)
    for number, question in enumerate(short_questions(scene, settings.questions_per_still, rng)):
        yield _short_line(question, scene, number)


def _drawing_line(scene: Scene) -> dict[str, object]:
    return {
        "problem_id": scene.name,
        "problem": "Draw the room.",
        "data_type": "image",
        "problem_type": "free-form",
        "options": [],
        "solution": "<answer>done</answer>",
        "path": _path(scene),
        "data_source": "rooms",
        "scene": scene.name,
        "question_type": "drawing",
        "reasoning": "",
    }


def _short_line(question: Question, scene: Scene, number: int) -> dict[str, object]:
    """A short question about a still, answered without a map."""
    line = data_line(question, f"{scene.name}_{number}", scene.name, _path(scene), "rooms")
    return line | {"data_type": "image", "without_map": True}


def _path(scene: Scene) -> str:
    return f"stills/{scene.name}.png"
