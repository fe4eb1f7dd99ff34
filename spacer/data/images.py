"""Image files → RGB, as a photo viewer shows them. Runs in data workers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from spacer.errors import MediaError
from spacer.files import check_readable

# what Pillow's plugins raise for damaged files; they have no exception class in common
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, IndexError, struct.error)
_WHITE = (255, 255, 255, 255)


def read_image(path: Path | BytesIO) -> Image.Image:
    """Reads an image from a file or from memory as RGB: rotated by its EXIF tag, composited on white, 16-bit channels
    scaled to 8 bits; of an animation, the first frame.

    Raises:
        MediaError: the file is not a readable image.
        UserError: the operating system refuses access to it.
    """
    with _opened(path) as image:
        return _rgb(ImageOps.exif_transpose(image))


@contextmanager
def _opened(path: Path | BytesIO) -> Iterator[Image.Image]:
    """Opens an image; turns Pillow's errors, also those raised in the `with` block, into `MediaError`."""
    name = path if isinstance(path, Path) else "an image in memory"
    try:
        with Image.open(path) as image:
            yield image
    except (*_PILLOW_ERRORS, Image.DecompressionBombError) as error:
        if isinstance(path, Path):
            check_readable(path)
        raise MediaError(f"{name}: cannot be read as an image: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I;16", "I", "F")):
        return _high_depth_to_rgb(image)
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture).convert("RGB")
    return image.convert("RGB")


def _high_depth_to_rgb(image: Image.Image) -> Image.Image:
    """A grey image of more than 8 bits: 16 bits are scaled to 8; other ranges are stretched to the full range."""
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if image.mode.startswith("I") and low >= 0 and high <= 65_535:
        low, high = 0.0, 65_535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = np.nan_to_num((values - low) / max(high - low, 1e-12)).clip(0, 1) * 255
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


def within(image: Image.Image, most: int) -> Image.Image:
    """The image, scaled down to at most so many pixels. What shows it rounds the sides to the model's tokens."""
    scale = (most / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
