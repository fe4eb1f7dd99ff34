"""Matches names, which are only parts of paths, to the files of a data set.

A cognitive map's key is the stem of its video, `scene0011_00` for `videos/scene0011_00.mp4`. A stem that two files
share, `a/scene.mp4` and `b/scene.mp4`, is ambiguous: the keys of their maps must be `a/scene` and `b/scene`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AMBIGUOUS = "ambiguous map"
UNMATCHED = "maps match nothing"


@dataclass(frozen=True)
class Naming:
    """By file: the scene it shows (unless its line names one), the key of its map, if any, and, where the map is
    ambiguous, the reason."""

    scenes: Mapping[Path, str]
    maps: Mapping[Path, str]
    ambiguous: Mapping[Path, str]


def name_files(files: Iterable[Path], real_root: Path, maps: Mapping[str, Any]) -> Naming:
    """Names files under the resolved data root and finds their maps by path, with or without extension, or by stem.

    A video and a picture that differ only in their extension show one scene.
    """
    places = {file: file.relative_to(real_root) for file in set(files)}
    alike: dict[str, set[str]] = {}
    for place in places.values():
        alike.setdefault(place.stem, set()).add(place.with_suffix("").as_posix())
    scenes: dict[Path, str] = {}
    keys: dict[Path, str] = {}
    ambiguous: dict[Path, str] = {}
    for file, place in places.items():
        whole = place.with_suffix("").as_posix()
        only = len(alike[place.stem]) == 1
        scenes[file] = place.stem if only else whole
        named = next((name for name in (place.as_posix(), whole) if name in maps), None)
        if named is not None:
            keys[file] = named
        elif place.stem in maps and only:
            keys[file] = place.stem
        elif place.stem in maps:
            others = ", ".join(sorted(alike[place.stem])[:3])
            ambiguous[file] = f"{place.stem!r} may be any of {others}: use these as keys of their maps"
    return Naming(scenes, keys, ambiguous)


def unmatched(naming: Naming, maps: Mapping[str, Any]) -> str | None:
    """The error message if no map matches any file; otherwise None."""
    if not maps or not naming.scenes or naming.maps or naming.ambiguous:
        return None
    return (
        f"none of the {len(maps)} video_ids, such as {next(iter(maps))!r}, matches a file that questions refer to, "
        f"such as {min(naming.scenes.values())!r}: correct them, or set dataset.maps=null"
    )
