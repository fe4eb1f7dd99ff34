"""Annotated 3D scans, in the format of VSI-Bench's meta-information → scenes with upright boxes, and faults.

A file is a JSON object: scene → {dataset, room_size (m²), object_counts {category: n}, object_bbox {category: [box]}},
where a box has centroid, axesLengths, normalizedAxes, min and max, in metres, z up, and may have `first_seen`: the
time in seconds at which the object first appears in the video, or null if it never does. Other fields are ignored.

The format is not fully documented; the 288 published scenes (ARKitScenes, ScanNet, ScanNet++; 3,197 boxes) show that:

- Three consecutive values of normalizedAxes are one axis. Only then are min and max the extent of the oriented box: to
  1e-14 m in every box, but up to 3.6 m off if the axes are read as columns. A box that does not match is a fault.
- No particular axis is vertical, and in ScanNet few boxes are exactly upright, since they were fitted freely. The axis
  closest to the vertical is taken as the height; the flattest other one gives the yaw. Up to TILT degrees this changes
  the distance between two boxes by at most 0.104 m (a sample of 1,118 pairs), less than half of the margin that keeps
  answers unambiguous; beyond that the margin would be too small (0.136 m at 15 degrees, 0.316 m at 45).
- object_counts contradicts the boxes in 11 scenes of ScanNet.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spacer.config.settings import ScansSettings
from spacer.data.samples import Fault, find_media
from spacer.data.scenes.scene import Scene, SceneObject

TILT = 10.0  # maximum tilt, in degrees, at which a box is treated as upright
LARGEST = 10_000.0  # metres: larger values cannot be in metres
SLACK = 0.01  # tolerance for inconsistent annotations, in metres and for unit axes
PLAIN_NAME = re.compile(r"\w[\w.-]*")
CATEGORY = re.compile(r"\w+(?:[ '/-]\w+)*")  # no commas, since options are comma-separated lists of categories
OF_EXTENT = ("object_abs_distance", "object_size_estimation", "object_rel_distance")


@dataclass(frozen=True)
class Scan:
    """A scene with all its boxes, the path of its video, and restrictions on what can be asked.

    `video` is relative to the data root; `source` is the scene's data set. `miscounted` categories have a number of
    boxes that differs from object_counts, `unseen` ones an object that the video never shows, `tilted` ones a box that
    is tilted by more than TILT degrees. `timed` is whether every box has a `first_seen`.
    """

    scene: Scene
    source: str
    video: str
    miscounted: frozenset[str]
    unseen: frozenset[str]
    tilted: frozenset[str]
    timed: bool

    @property
    def name(self) -> str:
        """The scene's name, unique across data sets."""
        return f"{self.source}/{self.scene.name}"

    def for_type(self, question_type: str) -> Scene:
        """The scene restricted to the objects that a question type may use.

        Miscounted and unseen categories are excluded from all types. The centre and count of tilted boxes are reliable,
        so they are excluded only if their extent matters. Without times, there are no appearance orders.
        """
        hidden = self.miscounted | self.unseen
        if question_type in OF_EXTENT:
            hidden |= self.tilted
        shown = tuple(item for item in self.scene.objects if item.category not in hidden)
        if question_type == "obj_appearance_order" and not self.timed:
            shown = ()
        return dataclasses.replace(self.scene, objects=shown)


def annotation_files(settings: ScansSettings) -> list[Path]:
    """The files that `settings.meta_info` matches, sorted by name."""
    pattern = os.path.join(Path(settings.root).expanduser(), os.path.expanduser(settings.meta_info))
    return sorted(Path(found) for found in glob.glob(pattern) if os.path.isfile(found))


def read_scans(settings: ScansSettings) -> tuple[list[Scan], list[Fault]]:
    """All valid scans, sorted by name, and the faults of the others."""
    real_root = Path(settings.root).expanduser().resolve()
    scans: dict[str, Scan] = {}  # by the key of their map
    faults: list[Fault] = []
    for path in annotation_files(settings):
        if not os.path.isabs(os.path.expanduser(settings.meta_info)) and not path.resolve().is_relative_to(real_root):
            detail = f"it is a link to {path.resolve()}, which is not under {real_root}: put the file itself there"
            faults.append(Fault(path.name, "outside the data root", detail))
            continue
        try:
            entries = json.loads(path.read_bytes(), object_pairs_hook=_each_key_once)
            if not isinstance(entries, dict):
                raise ValueError(f"must be an object of scenes, not {type(entries).__name__}")
        except (OSError, ValueError, RecursionError) as error:
            faults.append(Fault(path.name, "unusable file", str(error)))
            continue
        for name, entry in entries.items():
            where = f"{path.name}: scene {name!r}"
            problems = list(_scene_faults(name, entry))
            if not problems:
                scan = _scan(name, entry, settings.videos)
                video = find_media(scan.video, real_root)
                identity = Path(scan.video).stem
                if isinstance(video, Fault):
                    problems.append((video.kind, video.detail))
                elif identity in scans:
                    problems.append(
                        (
                            "duplicate video",
                            f"its map would have the key {identity!r}, as that of {scans[identity].name}",
                        )
                    )
                else:
                    scans[identity] = scan
            faults += [Fault(where, kind, detail) for kind, detail in problems]
    return sorted(scans.values(), key=lambda scan: scan.name), faults


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return made


def _scene_faults(name: str, entry: Any) -> Iterator[tuple[str, str]]:
    if not PLAIN_NAME.fullmatch(name):
        yield "unusable name", f"a scene's name must be letters, digits, '_', '-' and '.', not {name!r}"
    if not isinstance(entry, dict):
        yield "not an object", f"a scene must be an object, not {type(entry).__name__}"
        return
    for field in ("dataset", "room_size", "object_counts", "object_bbox"):
        if field not in entry:
            yield "missing field", f"{field!r} is missing"
    source, area = entry.get("dataset", "none"), entry.get("room_size", 1)
    counts, boxes = entry.get("object_counts", {}), entry.get("object_bbox", {"none": [{}]})
    if not isinstance(source, str) or not PLAIN_NAME.fullmatch(source):
        yield "wrong field", f"'dataset' must be letters, digits, '_', '-' and '.', not {source!r}"
    if not _is_number(area) or area <= 0:
        yield "wrong field", f"'room_size' must be square metres, more than 0, not {area!r}"
    if not isinstance(counts, dict) or not all(type(n) is int and n >= 0 for n in counts.values()):
        yield "wrong field", f"'object_counts' must be {{category: whole number}}, not {counts!r}"
    if not isinstance(boxes, dict) or not all(isinstance(of_one, list) for of_one in boxes.values()):
        yield "wrong field", "'object_bbox' must be {category: [box, …]}"
    elif not any(boxes.values()):
        yield "wrong field", "'object_bbox' has no box"
    elif "object_bbox" in entry:
        for category, of_one in boxes.items():
            if not CATEGORY.fullmatch(category):
                yield "unusable name", f"a category must be words without commas, not {category!r}"
            for index, box in enumerate(of_one):
                if (problem := _box_fault(box)) is not None:
                    yield "wrong box", f"object_bbox.{category}[{index}]: {problem}"


def _box_fault(box: Any) -> str | None:
    if not isinstance(box, dict):
        return f"must be an object, not {type(box).__name__}"
    for field, count in (("centroid", 3), ("axesLengths", 3), ("normalizedAxes", 9), ("min", 3), ("max", 3)):
        values = box.get(field)
        if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
            return f"{field!r} must be {count} numbers, in metres at most {LARGEST:.0f}, not {values!r}"
    seen = box.get("first_seen")
    if seen is not None and (not _is_number(seen) or seen < 0):
        return f"'first_seen' must be seconds, 0 or more, or null, not {seen!r}"
    if min(box["axesLengths"]) <= 0:
        return f"'axesLengths' must be more than 0, not {box['axesLengths']!r}"
    axes = np.array(box["normalizedAxes"], dtype=float).reshape(3, 3)
    if np.abs(axes @ axes.T - np.eye(3)).max() > SLACK:
        return (
            f"'normalizedAxes' must be three axes of length 1 at right angles, one after the other, not {axes.tolist()}"
        )
    reach = np.abs(axes.T) @ np.array(box["axesLengths"], dtype=float) / 2
    ends = np.array([box["min"], box["max"]], dtype=float) - np.array(box["centroid"], dtype=float)
    if (off := float(np.abs(ends - [-reach, reach]).max())) > SLACK:
        return f"'min' and 'max' are up to {off:.3f} m off the extent of the box that its centroid and axes give"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # false for NaN


def _scan(name: str, entry: dict[str, Any], videos: str) -> Scan:
    """The scan of a valid entry; its bounds are the extent of the boxes, since the format has no walls."""
    boxes: dict[str, list[dict[str, Any]]] = {category: of_one for category, of_one in entry["object_bbox"].items()}
    every = [(category, box) for category, of_one in boxes.items() for box in of_one]
    counts = entry["object_counts"]
    objects, tilted = [], set()
    for category, box in every:
        item, tilt = upright(category, box)
        objects.append(item)
        if tilt > TILT:
            tilted.add(category)
    (x0, y0), (x1, y1) = (
        pick([box[end][:2] for _, box in every], axis=0) for pick, end in ((np.min, "min"), (np.max, "max"))
    )
    return Scan(
        Scene(name, (float(x0), float(y0), float(x1), float(y1)), float(entry["room_size"]), tuple(objects)),
        entry["dataset"],
        videos.replace("{dataset}", entry["dataset"]).replace("{scene}", name),
        frozenset(c for c in {*boxes, *counts} if len(boxes.get(c, ())) != counts.get(c, 0)),
        frozenset(category for category, box in every if box.get("first_seen", 0) is None),
        frozenset(tilted),
        all("first_seen" in box for _, box in every),
    )


def upright(category: str, box: dict[str, Any]) -> tuple[SceneObject, float]:
    """A valid box as an upright object, and its tilt in degrees."""
    axes = np.array(box["normalizedAxes"], dtype=float).reshape(3, 3)
    flattest, flat, steepest = (int(i) for i in np.argsort(np.abs(axes[:, 2]), kind="stable"))
    x, y, _ = axes[flattest]
    size = tuple(float(box["axesLengths"][i]) for i in (flattest, flat, steepest))
    centre = tuple(float(value) for value in box["centroid"])
    tilt = math.degrees(math.acos(min(1.0, abs(float(axes[steepest, 2])))))
    seen = box.get("first_seen")
    item = SceneObject(
        category,
        (centre[0], centre[1], centre[2]),
        (size[0], size[1], size[2]),
        math.atan2(y, x),
        None if seen is None else float(seen),
    )
    return item, tilt
