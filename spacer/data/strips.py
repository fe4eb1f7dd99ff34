"""A few pictures side by side, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

_PICTURES = 4  # of a strip, at most …
_HEIGHT = 112  # … and their height in pixels
_GAP = 2  # white pixels between two of them


def strip_of(frames: Sequence[np.ndarray] | Sequence[Image.Image] | np.ndarray) -> np.ndarray:
    """The first, the last and some frames between them side by side, small: (height, width, 3) uint8 RGB."""
    chosen = dict.fromkeys(np.linspace(0, len(frames) - 1, _PICTURES).round().astype(int).tolist())
    small = []
    for frame in (Image.fromarray(np.asarray(frames[index])) for index in chosen):
        frame.thumbnail((frame.width, _HEIGHT))
        small.append(frame)
    return np.array(side_by_side(small, _GAP))


def side_by_side(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """The pictures in a row, with `gap` white pixels between two of them."""
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row, left = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white"), 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row
