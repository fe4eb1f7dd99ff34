"""SpaceR-151k in small, in the very form in which it is distributed: ten parts of a gzip tar, questions, maps.

The videos are of rooms, the images their stills. Questions with a map come from `SR_dataset`; the others are of the
general kind, in all five problem types.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from spacer.config.settings import RoomsSettings, StillsSettings
from spacer.data.scenes import rooms, stills

PARTS = 10
PREFIX = "SpaceR-151k.part_"
LINES = "SpaceR-151k.jsonl"
KNOWN = ("problem", "data_type", "problem_type", "options", "solution", "path")
STILLS = {"train_scenes": 6, "heldout_scenes": 2, "size_px": 96}
ROOMS = STILLS | {"questions_per_scene": 4, "video_fps": 4}


@dataclass(frozen=True)
class Folder:
    """A distributed data set and where it is prepared."""

    source: Path
    root: Path
    out: Path

    @property
    def words(self) -> list[str]:
        """The command that prepares it."""
        named = (f"dataset.source={self.source}", f"dataset.root={self.root}", "dataset.heldout=heldout.jsonl")
        return ["stage=prepare", "dataset=spacer_151k", *named, f"hydra.run.dir={self.out}"]

    def restore(self, whole: Folder) -> None:
        """Makes the source what it should be."""
        shutil.rmtree(self.source)
        shutil.copytree(whole.source, self.source)

    def pack(self, whole: Folder, changed: dict[str, Path], *members: tarfile.TarInfo) -> None:
        """Packs the media of `whole` anew, some of them changed and others beside them."""
        cut(self.source, packed(whole.media() | changed, *members))

    def media(self) -> dict[str, Path]:
        """Name → file."""
        found = sorted((self.root / "videos").iterdir()) + sorted((self.root / "images").iterdir())
        return {str(path.relative_to(self.root)): path for path in found}

    def content(self) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
        """The bytes of all media, and the rows of the index."""
        return {k: v.read_bytes() for k, v in self.media().items()}, pq.read_table(
            self.root / "index.parquet"
        ).to_pylist()


def distribute(folder: Path, work: Path, heldout: bool = False) -> Path:
    """Writes the data set to `folder` and returns it; `work` is for what it is made of.

    With `heldout`, there are also media that nobody trains on, and questions about them in `heldout.jsonl`.
    """
    made = rooms.build(RoomsSettings(root=str(work / "videos"), **ROOMS))
    drawn = stills.build(StillsSettings(root=str(work / "stills"), **STILLS))
    folder.mkdir(parents=True)
    (folder / "annotation").mkdir()
    shown = "*" if heldout else "train_*"
    files = sorted((made / "videos").glob(f"{shown}.mp4")) + sorted((drawn / "stills").glob(f"{shown}.png"))
    names = {path: f"videos/{path.name}" if path.suffix == ".mp4" else f"images/still_{path.name}" for path in files}
    cut(folder, packed({name: path for path, name in names.items()}))
    write_lines(folder / LINES, _questions(made))
    maps = [json.loads(line) for line in (made / "cognitive_map.jsonl").read_text().splitlines()]
    maps = [row for row in maps if row["video_id"] < "train_00004" and row["video_id"] != "heldout_00001"]
    write_lines(folder / "annotation/cognitive_map.jsonl", maps)
    if heldout:
        write_lines(folder / "heldout.jsonl", _heldout(made))
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
    rows: list[dict[str, Any]] = []
    for row in asked:
        spatial = row["scene"] < "train_00004"  # the others have no map: general questions about videos
        rows.append({name: row[name] for name in KNOWN} | {"data_source": "SR_dataset" if spatial else "general"})
    for number in range(ROOMS["train_scenes"]):
        rows += _of_picture(f"images/still_train_{number:05d}.png")
    # the draft of March 2025, as it may be mixed in
    draft = {"question_type": "numerical", "problem": "How many beds?", "options": [], "solution": "1"}
    rows.append(draft | {"video": "videos/train_00000.mp4", "data_source": "SR_dataset"})
    return [{"problem_id": number, **row} for number, row in enumerate(rows)]


def _of_picture(path: str) -> list[dict[str, Any]]:
    image: dict[str, Any] = {"data_type": "image", "options": [], "data_source": "general", "path": path}
    asked = (
        ("OCR", "What is written on the floor?", "nothing"),
        ("free-form", "Describe the picture.", "A room from above."),
        ("regression", "How bright is it, from 0 to 1?", "0.5"),
    )
    return [
        image | {"problem_type": kind, "problem": problem, "solution": f"<answer>{solution}</answer>"}
        for kind, problem, solution in asked
    ]


def _heldout(made: Path) -> list[dict[str, Any]]:
    """Questions of all five types about media of their own, and one about a video that is trained on elsewhere."""
    asked = [json.loads(line) for line in (made / "heldout.jsonl").read_text().splitlines()]
    asked += [json.loads((made / "train.jsonl").read_text().splitlines()[-1])]
    rows = [{name: row[name] for name in KNOWN} | {"data_source": "SR_dataset"} for row in asked]
    return [
        {"problem_id": f"h{i}", **row} for i, row in enumerate(rows + _of_picture("images/still_heldout_00000.png"))
    ]
