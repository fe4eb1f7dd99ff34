"""SpaceR-151k in small, in the very form in which it is distributed: ten parts of a gzip tar, questions, maps.

The videos are of rooms, the images their stills. Questions with a map come from `SR_dataset`; the others are of the
general kind, in all five problem types.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from spacer.data import rooms
from spacer.settings import RoomsSettings

PARTS = 10
PREFIX = "SpaceR-151k.part_"
ROOMS = {"train_scenes": 6, "heldout_scenes": 2, "questions_per_scene": 4, "size_px": 96, "video_fps": 4}


def distribute(folder: Path, work: Path) -> Path:
    """Writes the data set to `folder` and returns it; `work` is for what it is made of."""
    made = rooms.build(RoomsSettings(root=str(work / "videos"), **ROOMS))
    drawn = rooms.build(RoomsSettings(root=str(work / "stills"), stills=True, **ROOMS))
    folder.mkdir(parents=True)
    (folder / "annotation").mkdir()
    files = sorted((made / "videos").glob("train_*.mp4")) + sorted((drawn / "stills").glob("train_*.png"))
    names = {path: f"videos/{path.name}" if path.suffix == ".mp4" else f"images/still_{path.name}" for path in files}
    cut(folder, packed({name: path for path, name in names.items()}))
    write_lines(folder / "SpaceR-151k.jsonl", _questions(made))
    maps = [json.loads(line) for line in (made / "cognitive_map.jsonl").read_text().splitlines()]
    write_lines(folder / "annotation/cognitive_map.jsonl", [row for row in maps if row["video_id"] < "train_00004"])
    return folder


def packed(files: dict[str, Path], *extra: tarfile.TarInfo) -> bytes:
    """A gzip tar of the files and of further members without content, those last."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, path in files.items():
            archive.add(path, arcname=name)
        for member in extra:
            archive.addfile(member)
    return out.getvalue()


def cut(folder: Path, content: bytes) -> list[Path]:
    """Splits an archive into the ten parts, as `split -b` does."""
    size = -(-len(content) // PARTS)
    parts = [folder / f"{PREFIX}{number:02d}" for number in range(PARTS)]
    for number, part in enumerate(parts):
        part.write_bytes(content[number * size : (number + 1) * size])
    return parts


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _questions(made: Path) -> list[dict[str, Any]]:
    asked = [json.loads(line) for line in (made / "train.jsonl").read_text().splitlines()]
    known = ("problem", "data_type", "problem_type", "options", "solution", "path")
    rows: list[dict[str, Any]] = []
    for row in asked:
        spatial = row["scene"] < "train_00004"  # the others have no map: general questions about videos
        rows.append({name: row[name] for name in known} | {"data_source": "SR_dataset" if spatial else "general"})
    for number in range(ROOMS["train_scenes"]):
        image: dict[str, Any] = {"data_type": "image", "options": [], "data_source": "general"}
        image["path"] = f"images/still_train_{number:05d}.png"
        for kind, problem, solution in (
            ("OCR", "What is written on the floor?", "nothing"),
            ("free-form", "Describe the picture.", "A room from above."),
            ("regression", "How bright is it, from 0 to 1?", "0.5"),
        ):
            answer = f"<answer>{solution}</answer>"
            rows.append(image | {"problem_type": kind, "problem": problem, "solution": answer})
    # the draft of March 2025, as it may be mixed in
    draft = {"question_type": "numerical", "problem": "How many beds?", "options": [], "solution": "1"}
    rows.append(draft | {"video": "videos/train_00000.mp4", "data_source": "SR_dataset"})
    return [{"problem_id": number, **row} for number, row in enumerate(rows)]
