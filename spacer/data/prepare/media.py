"""Checks media files: whether they can be decoded, and the duration of videos.

Several processes decode the files (of a video, a few frames from the first to the last), and results are appended to
`.media.jsonl` as they come, so that another call, also after a crash, decodes only new and changed files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spacer.config.choices import Sampling
from spacer.config.settings import VideoSettings
from spacer.data.images import read_image
from spacer.data.video import read_video
from spacer.errors import MediaError, UserError
from spacer.files import drop_torn_line, read_rows
from spacer.process.pool import in_workers
from spacer.terminal.progress import progress_bar

NAME = ".media.jsonl"
_FRAMES = VideoSettings(max_frames=4, min_frames=4, sampling=Sampling.nearest, max_side=64)


@dataclass(frozen=True)
class Media:
    """A media file: its duration in seconds (0 for an image), or the `error` from decoding it."""

    seconds: float
    error: str | None


def survey(root: Path, files: Mapping[str, str]) -> dict[str, Media]:
    """Checks each of `files` (path relative to `root` → image or video) that is not known from an earlier call.

    Raises:
        UserError: the operating system denies access to one, or a worker was killed.
    """
    known_file = root / NAME
    if known_file.is_symlink() or (known_file.exists() and not known_file.is_file()):
        raise UserError(f"{known_file} is not a regular file, but would be written to: remove it")
    drop_torn_line(known_file)
    known = {(row["path"], row.get("kind"), row["size"], row["changed"]): row for row in read_rows(known_file)}
    found: dict[str, Media] = {}
    tasks = []
    for path, kind in files.items():
        status = (root / path).stat()
        row = known.get((path, kind, status.st_size, status.st_mtime_ns))
        if row is None:
            tasks.append((str(root), path, kind, status.st_size, status.st_mtime_ns))
        else:
            found[path] = Media(row["seconds"], row["error"])
    return found | _open(known_file, tasks)


def _open(known_file: Path, tasks: Sequence[tuple[str, str, str, int, int]]) -> dict[str, Media]:
    if not tasks:
        return {}
    found = {}
    workers = min(os.cpu_count() or 1, 16)
    with (
        in_workers(_examine, tasks, workers, ordered=False) as examined,
        open(known_file, "a", encoding="utf-8") as out,
    ):
        for row in progress_bar(examined, total=len(tasks), desc="decoding media"):
            out.write(json.dumps(row) + "\n")
            found[str(row["path"])] = Media(row["seconds"], row["error"])
    return found


def _examine(task: tuple[str, str, str, int, int]) -> dict[str, object]:
    root, path, kind, size, changed = task
    row = {"path": path, "kind": kind, "size": size, "changed": changed, "seconds": 0.0, "error": None}
    try:
        if kind == "image":
            read_image(Path(root, path))
        else:
            row["seconds"] = read_video(Path(root, path), _FRAMES).seconds
    except MediaError as error:
        row["error"] = str(error)
    return row
