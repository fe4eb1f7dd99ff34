"""A few pictures side by side, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

_PICTURES = 4  # maximum per strip
_HEIGHT = 112  # pixels
_GAP = 2  # white pixels between pictures


def strip_of(frames: Sequence[np.ndarray] | Sequence[Image.Image] | np.ndarray) -> np.ndarray:
    """Thumbnails of the first, the last and some frames between, side by side: (height, width, 3) uint8 RGB."""
    chosen = dict.fromkeys(np.linspace(0, len(frames) - 1, _PICTURES).round().astype(int).tolist())
    small = []
    for frame in (Image.fromarray(np.asarray(frames[index])) for index in chosen):
        frame.thumbnail((frame.width, _HEIGHT))
        small.append(frame)
    return np.array(side_by_side(small, _GAP))


def strip_beside(strips: Sequence[np.ndarray]) -> np.ndarray:
    """The strips of a few media in one row; of no media, a grey field."""
    if len(strips) == 1:
        return strips[0]
    if not strips:
        return np.full((28, 28, 3), 127, dtype=np.uint8)
    return np.array(side_by_side([Image.fromarray(strip) for strip in strips[:_PICTURES]], _GAP))


def side_by_side(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """The pictures in a row, `gap` white pixels apart."""
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row, left = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white"), 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row
