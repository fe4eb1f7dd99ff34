"""Annotations of pictures of rooms, objects and their places, as supervision for the vision tower (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from spacer.data.scenes.render import Camera
from spacer.data.scenes.scene import Scene, SceneObject

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class VisibleObject:
    """An object in a picture: its `box` (left, top, right, bottom) and `centre`, in fractions of the picture's sides,
    and its `cell` in the room's map. A box may extend beyond the picture's edges."""

    category: str
    box: Box
    centre: tuple[float, float]
    cell: tuple[int, int]


@dataclass(frozen=True)
class View:
    """A picture: its objects, and the floor positions of its top left and bottom right corners, in fractions of the
    room's sides, from the origin of maps."""

    objects: tuple[VisibleObject, ...]
    floor: Box


def view_of(scene: Scene, camera: Camera) -> View:
    """The view of a scene: its objects that are at least partly visible, in alphabetical order."""
    shown = (_shown(scene, item, camera) for item in scene.objects)
    objects = sorted((item for item in shown if _in_picture(item.box)), key=lambda item: (item.category, item.cell))
    x0, y0, x1, y1 = scene.bounds
    half = camera.window / 2
    left, right = ((camera.x + side * half - x0) / (x1 - x0) for side in (-1, 1))
    bottom, top = ((camera.y + side * half - y0) / (y1 - y0) for side in (-1, 1))
    return View(tuple(objects), (left, top, right, bottom))


def _shown(scene: Scene, item: SceneObject, camera: Camera) -> VisibleObject:
    low = item.centre[2] - item.size[2] / 2
    corners = [camera.project(*corner, z) for corner in item.footprint() for z in (low, low + item.size[2])]
    xs, ys = zip(*((x / camera.pixels, y / camera.pixels) for x, y in corners), strict=True)
    x, y = camera.project(*item.centre)
    box = tuple(round(value, 4) for value in (min(xs), min(ys), max(xs), max(ys)))
    centre = round(x / camera.pixels, 4), round(y / camera.pixels, 4)
    return VisibleObject(item.category, (box[0], box[1], box[2], box[3]), centre, scene.cell(item.place))


def _in_picture(box: Box) -> bool:
    return box[0] < 1 and box[2] > 0 and box[1] < 1 and box[3] > 0
