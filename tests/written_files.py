"""Small files that tests write: tables, JSON, pictures, copies of videos."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Row = dict[str, Any]


def parquet(path: Path, rows: Sequence[Row], row_group_size: int | None = None) -> Path:
    """A parquet file of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)
    return path


def as_json(path: Path, content: Any) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")
    return path


def place(videos: Sequence[Path], *targets: Path) -> None:
    """Copies videos to where a benchmark has its own."""
    for target, video in zip(targets, videos, strict=False):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, target)


def as_lines(path: Path, rows: Sequence[Row]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def picture(shade: int) -> bytes:
    """A small PNG, of another shade of grey for each number."""
    held = BytesIO()
    Image.new("RGB", (56, 56), (shade, shade, shade)).save(held, "PNG")
    return held.getvalue()


def images(root: Path, *names: str) -> None:
    """Small PNGs, of another shade each."""
    for shade, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(shade))


def encoded(shade: int) -> str:
    """A picture as base64 text."""
    return b64encode(picture(shade)).decode()


def make_sound(path: Path) -> Path:
    """A sound file, also by a video's name."""
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16_000)
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path
