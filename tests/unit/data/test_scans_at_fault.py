"""Annotated scans that are at fault are named, one by one, and nothing is made of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from spacer.config.choices import OnBad
from spacer.config.settings import ScansSettings
from spacer.data.samples import DataError
from spacer.data.scenes.curating import curate_scans
from spacer.data.scenes.scans import read_scans
from tests.unit.data.annotations import entries, write
from tests.unit.data.test_curate import rows

BOX = "the first box"
DROP = object()
BROKEN: list[tuple[tuple[Any, ...], Any, str, str]] = [
    (("dataset",), DROP, "missing field", "'dataset' is missing"),
    (("dataset",), "../up", "wrong field", "'dataset' must be letters"),
    (("room_size",), 0, "wrong field", "'room_size' must be square metres, more than 0, not 0"),
    (("room_size",), math.nan, "wrong field", "not nan"),
    (("room_size",), True, "wrong field", "not True"),
    (("object_counts",), {"bed": 1.5}, "wrong field", "'object_counts' must be {category: whole number}"),
    (("object_bbox",), {}, "wrong field", "'object_bbox' has no box"),
    (("object_bbox",), {"bed": "no"}, "wrong field", "'object_bbox' must be {category: [box, …]}"),
    (("object_bbox",), {"a, b": []}, "wrong field", "'object_bbox' has no box"),
    ((BOX,), 7, "wrong box", "[0]: must be an object, not int"),
    ((BOX, "centroid"), DROP, "wrong box", "'centroid' must be 3 numbers, in metres at most 10000, not None"),
    ((BOX, "centroid"), [1, 2], "wrong box", "'centroid' must be 3 numbers"),
    ((BOX, "centroid"), [1, 2, "3"], "wrong box", "'centroid' must be 3 numbers"),
    ((BOX, "centroid"), [1, 2, 10**400], "wrong box", "'centroid' must be 3 numbers"),
    ((BOX, "axesLengths"), [1, 0, 1], "wrong box", "'axesLengths' must be more than 0"),
    ((BOX, "normalizedAxes"), [1, 0, 0, 0, 1, 0, 0, 0, 2], "wrong box", "three axes of length 1 at right angles"),
    ((BOX, "normalizedAxes"), [1, 0, 0, 0, 1, 0, 0, 0, 1], "wrong box", "m off the extent of the box"),
    ((BOX, "max"), [9, 9, 9], "wrong box", "m off the extent of the box"),
    ((BOX, "first_seen"), -1, "wrong box", "'first_seen' must be seconds, 0 or more, or null, not -1"),
    ((BOX, "first_seen"), "soon", "wrong box", "not 'soon'"),
]


def broken(entry: dict[str, Any], keys: tuple[Any, ...], value: Any) -> dict[str, Any]:
    entry = copy.deepcopy(entry)
    place: Any = entry
    for number, key in enumerate(keys):
        last = number == len(keys) - 1
        if key == BOX:
            boxes = next(iter(entry["object_bbox"].values()))
            if last:
                boxes[0] = value
            place = boxes[0]
        elif last and value is DROP:
            del place[key]
        else:
            place[key] = value
    return entry


@pytest.mark.parametrize(("keys", "value", "kind", "words"), BROKEN)
def test_a_malformed_scene_is_named(tmp_path: Path, keys: Any, value: Any, kind: str, words: str) -> None:
    annotations = entries(2)
    annotations["scene0001"] = broken(annotations["scene0001"], keys, value)
    for name in annotations:
        (tmp_path / f"videos/made/{name}.mp4").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"videos/made/{name}.mp4").touch()
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    settings = ScansSettings(str(tmp_path), meta_info="a.json")
    scans, (fault,) = read_scans(settings)
    assert [scan.scene.name for scan in scans] == ["scene0000"]
    assert fault.where == "a.json: scene 'scene0001'"
    assert fault.kind == kind
    assert words in fault.detail
    with pytest.raises(DataError, match="1 faulty scene") as caught:
        curate_scans(settings)
    assert "dataset.on_bad=skip" in str(caught.value) and fault.detail in str(caught.value)
    assert not (tmp_path / "questions.jsonl").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", "", "a\nb", "."])
def test_a_hostile_scene_name_leads_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "root/meta_info").mkdir(parents=True)
    (tmp_path / "root/meta_info/made.json").write_text(json.dumps({name: entries(1)["scene0000"]}))
    scans, faults = read_scans(ScansSettings(str(tmp_path / "root")))
    assert not scans
    assert [fault.kind for fault in faults] == ["unusable name"]


@pytest.mark.parametrize("category", ["lamp, bed", "lamp\nbed", " lamp", "", "lamp: 2"])
def test_a_category_that_would_part_an_option_is_a_fault(tmp_path: Path, category: str) -> None:
    annotations = entries(1)
    boxes = annotations["scene0000"]["object_bbox"]
    boxes[category] = boxes.pop(next(iter(boxes)))
    scans, faults = read_scans(write(tmp_path, annotations))
    assert not scans and [fault.kind for fault in faults] == ["unusable name"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{broken", "Expecting property name"),
        (b'{"\xff": 1}', "utf-8"),
        (b"[1]", "must be an object of scenes, not list"),
        (b"[" * 100_000, "recursion"),
        (b'{"a": {}, "a": {}}', "the key 'a' occurs twice"),
    ],
)
def test_a_file_that_is_no_annotation_is_a_fault(tmp_path: Path, text: bytes, words: str) -> None:
    settings = write(tmp_path, entries(1))
    (tmp_path / "meta_info/z.json").write_bytes(text)
    scans, (fault,) = read_scans(settings)
    assert len(scans) == 1
    assert (fault.where, fault.kind) == ("z.json", "unusable file")
    assert words in fault.detail


def test_a_missing_video_is_a_fault_and_skipped_when_told_to(tmp_path: Path) -> None:
    settings = write(tmp_path, entries(6), workers=1)
    (tmp_path / "videos/made/scene0003.mp4").unlink()
    with pytest.raises(DataError, match="missing file") as caught:
        curate_scans(settings)
    assert "scene0003" in str(caught.value)
    made = curate_scans(dataclasses.replace(settings, on_bad=OnBad.skip))
    assert [fault.kind for fault in made.faults] == ["missing file"]
    assert {row["name"] for row in rows(tmp_path / "scenes.jsonl")} == {f"scene000{i}" for i in (0, 1, 2, 4, 5)}
    assert "scene0003" not in {line["scene"] for line in rows(tmp_path / "questions.jsonl")}


def test_two_scenes_cannot_share_a_map(tmp_path: Path) -> None:
    annotations = entries(1)
    settings = write(tmp_path, annotations)
    other = copy.deepcopy(annotations)
    other["scene0000"]["dataset"] = "other"
    write(tmp_path, other, name="other")
    _, (fault,) = read_scans(settings)
    assert (fault.kind, fault.where) == ("duplicate video", "other.json: scene 'scene0000'")
    assert "made/scene0000" in fault.detail


def test_nothing_to_ask_is_told(tmp_path: Path) -> None:
    settings = write(tmp_path, entries(1))
    (tmp_path / "videos/made/scene0000.mp4").unlink()
    with pytest.raises(DataError, match="no scene has an unambiguous one"):
        curate_scans(dataclasses.replace(settings, on_bad=OnBad.skip))
