"""An archive in parts, as a data set is distributed, made in a moment."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path
from typing import Any

from spacer.data.prepare import archive
from spacer.data.prepare.parts import find_parts

PREFIX = "SpaceR-151k.part_"
NAMES = ["readme.txt", *(f"videos/{scene}/{index}.mp4" for scene in "ab" for index in range(10))]
FILES = {name: random.Random(name).randbytes(20_000 + 13 * index) for index, name in enumerate(NAMES)}
FILES["videos/empty.mp4"] = b""
FILES["videos/long.mp4"] = random.Random(0).randbytes(3 * archive.CHUNK + 7)
TOTAL = sum(map(len, FILES.values()))


def member(name: str, **changes: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def tar(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """A tar of the files, then of the empty extra members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, content in files.items():
            file.addfile(member(name, size=len(content), mode=0o777, uid=7, mtime=1), io.BytesIO(content))
        for made in extra:
            file.addfile(made, io.BytesIO(bytes(made.size)))
    return out.getvalue()


def split(folder: Path, stream: bytes, count: int = 10) -> tuple[Path, ...]:
    """The stream in equal parts, the last one shorter."""
    folder.mkdir(exist_ok=True)
    size = len(stream) // count + 1
    for index in range(count):
        (folder / f"{PREFIX}{index:02d}").write_bytes(stream[index * size : (index + 1) * size])
    return find_parts(folder, PREFIX, count)


def contents(target: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    files.pop(archive.STATE, None)
    return files
