"""Blind controls: the same questions with another scene's video, with grey frames, or with no media (pure)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from spacer.data.layout import MARK
from spacer.data.samples import TEXT_ALONE, Sample
from spacer.data.showing import ProcessedMedia
from spacer.errors import UserError


def with_other_media(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, each with the video (or images) of another scene. All questions about one file get the same other
    file. Text-only questions are unchanged.

    The files of each kind form a cycle, ordered by a hash of their names; each is replaced by the next one of a
    different scene, so that the result depends on the files alone.

    Raises:
        UserError: no other scene has media that fit a question, as many and of the same kinds; names the question.
    """
    first: dict[tuple[tuple[str, ...], Path], Sample] = {}
    for sample in samples:
        if sample.data_type != TEXT_ALONE:
            first.setdefault((_kinds(sample), sample.path), sample)
    instead: dict[tuple[tuple[str, ...], Path], Sample] = {}
    for kind in dict.fromkeys(kind for kind, _ in first):
        files = sorted((key for key in first if key[0] == kind), key=lambda key: _hash_order(key[1]))
        for place, key in enumerate(files):
            round_trip = (first[files[(place + step) % len(files)]] for step in range(1, len(files)))
            other = next((item for item in round_trip if item.scene != first[key].scene), None)
            if other is None:
                alone = first[key]
                raise UserError(
                    f"evaluation.controls: other_video asks question {alone.id!r}, of scene {alone.scene}, about "
                    f"another scene's media, but no question of another scene has the same number and kind of media, "
                    f"{_counted(kind)}: leave other_video out"
                )
            instead[key] = other
    found = []
    for sample in samples:
        if sample.data_type == TEXT_ALONE:
            found.append(sample)
            continue
        other = instead[_kinds(sample), sample.path]
        found.append(replace(sample, path=other.path, images=other.images, media=other.media))
    return found


def _kinds(sample: Sample) -> tuple[str, ...]:
    """The kinds of the media, or where the text marks the places of images, as many: others must fit the marks."""
    return tuple(MARK.findall(sample.problem)) or tuple(file.kind for file in sample.files)


def _counted(kinds: Sequence[str]) -> str:
    """What media there are, in words.

    >>> _counted(["video"]), _counted(["image"] * 3), _counted(["image", "video"])
    ('1 video', '3 images', '1 image, 1 video')
    """
    counts = Counter(kinds)
    return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())


def _hash_order(path: Path) -> tuple[bytes, str]:
    return hashlib.sha256(path.name.encode()).digest(), str(path)


def grey(shown: ProcessedMedia) -> ProcessedMedia:
    """The same number of pictures of the same size, all grey: the colour that the processor normalizes to 0."""
    return replace(shown, pixels_PD=torch.zeros_like(shown.pixels_PD))
