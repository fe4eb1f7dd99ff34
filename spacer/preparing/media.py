"""What is known of media files without decoding them: whether they open, and how long a video is.

Files are opened by several processes, and what was found is appended to `.media.jsonl` as it comes, so that a second
call, after a crash too, opens only what is new or has changed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from spacer.data.decode import MediaError, read_header
from spacer.files import drop_torn_line, read_rows
from spacer.progress import progress_bar

NAME = ".media.jsonl"


@dataclass(frozen=True)
class Media:
    """A media file: its length in seconds (0 for an image), or the `error` that opening it gave."""

    seconds: float
    error: str | None


def survey(root: Path, files: Mapping[str, str]) -> dict[str, Media]:
    """What is known of each of `files` (path relative to `root` → image or video)."""
    known_file = root / NAME
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


def _open(known_file: Path, tasks: Collection[tuple[str, str, str, int, int]]) -> dict[str, Media]:
    if not tasks:
        return {}
    found = {}
    # spawned, not forked: the caller may hold threads
    with (
        multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, 16)) as pool,
        open(known_file, "a", encoding="utf-8") as out,
    ):
        for row in progress_bar(
            pool.imap_unordered(_examine, tasks, chunksize=64), total=len(tasks), desc="opening media"
        ):
            out.write(json.dumps(row) + "\n")
            found[str(row["path"])] = Media(row["seconds"], row["error"])
    return found


def _examine(task: tuple[str, str, str, int, int]) -> dict[str, object]:
    root, path, kind, size, changed = task
    row = {"path": path, "kind": kind, "size": size, "changed": changed, "seconds": 0.0, "error": None}
    try:
        row["seconds"] = read_header(Path(root, path), kind)
    except MediaError as error:
        row["error"] = str(error)
    return row
