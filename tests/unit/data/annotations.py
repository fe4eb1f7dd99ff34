"""Rooms as a 3D scan would annotate them: turned, moved, boxes with their axes in any order."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from spacer.config.settings import RoomsSettings, ScansSettings
from spacer.data.scenes import rooms
from spacer.data.scenes.scene import Scene, SceneObject

SEED = 4


def furnished(index: int, seed: int = SEED) -> Scene:
    return rooms.make_scene(RoomsSettings(root="nowhere", seed=seed), "train", index, None)


def about(axis: int, angle: float) -> np.ndarray:
    """The rotation by an angle in radians about x (0) or z (2)."""
    cos, sin = math.cos(angle), math.sin(angle)
    if axis == 0:
        return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def box_of(
    item: SceneObject, turned: float, moved: np.ndarray, rng: np.random.Generator, tilt: float = 0.0
) -> dict[str, Any]:
    """The box of an object of a room that is turned and then moved, itself tilted by so many degrees."""
    axes = (about(2, turned + item.yaw) @ about(0, math.radians(tilt))).T  # a row an axis
    order = rng.permutation(3)
    axes = axes[order] * rng.choice([-1, 1], size=3)[:, None]
    lengths = np.array(item.size)[order]
    centre = about(2, turned) @ np.array(item.centre) + moved
    corners = [centre + (np.array(ends) * lengths / 2) @ axes for ends in itertools.product((-1, 1), (-1, 1), (-1, 1))]
    return {
        "centroid": centre.tolist(),
        "axesLengths": lengths.tolist(),
        "normalizedAxes": axes.flatten().tolist(),
        "min": np.min(corners, axis=0).tolist(),
        "max": np.max(corners, axis=0).tolist(),
        "first_seen": item.first_seen,
    }


def entry_of(scene: Scene, rng: np.random.Generator, source: str = "made", tilted_share: float = 0.0) -> dict[str, Any]:
    """The scene's entry in an annotation file."""
    turned, moved = float(rng.uniform(-math.pi, math.pi)), rng.uniform(-4, 4, size=3)
    boxes: dict[str, list[dict[str, Any]]] = {}
    for item in scene.objects:
        tilt = 25.0 if rng.random() < tilted_share else 0.0
        boxes.setdefault(item.category, []).append(box_of(item, turned, moved, rng, tilt))
    return {
        "dataset": source,
        "video_path": "/somewhere/else.mp4",
        "room_size": scene.area,
        "room_center": moved.tolist(),
        "object_counts": {category: len(found) for category, found in boxes.items()},
        "object_bbox": boxes,
    }


def entries(count: int, tilted_share: float = 0.0) -> dict[str, dict[str, Any]]:
    """Scene → entry, for so many rooms."""
    return {
        f"scene{index:04d}": entry_of(furnished(index), np.random.default_rng([SEED, index]), "made", tilted_share)
        for index in range(count)
    }


def write(root: Path, annotations: dict[str, dict[str, Any]], name: str = "made", **options: Any) -> ScansSettings:
    """Files of the annotations, and stubs for the videos, in a data root."""
    (root / "meta_info").mkdir(parents=True, exist_ok=True)
    (root / f"meta_info/{name}.json").write_text(json.dumps(annotations))
    for scene, entry in annotations.items():
        video = root / f"videos/{entry['dataset']}/{scene}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        video.touch()
    return ScansSettings(str(root), **({"workers": 2} | options))
