"""Pictures are read as a photo viewer shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spacer.data.images import read_image


def read(image: Image.Image, path: Path, **how: Any) -> list[Any]:
    """The saved picture's pixels as it is read."""
    image.save(path, **how)
    found: list[Any] = np.asarray(read_image(path)).tolist()
    return found


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
    ],
)
def test_exif_orientation(orientation: int, turned: list[list[int]], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8).repeat(3).reshape(2, 3, 3)
    found = read(Image.fromarray(stored), tmp_path / "x.png", exif=exif)
    assert [[pixel[0] for pixel in row] for row in found] == turned


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (3, 1))
    picture.putdata([(255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 128)])
    assert read(picture, tmp_path / "x.png") == [[[255] * 3, [255, 0, 0], [127] * 3]]
    grey = Image.new("LA", (1, 1), (9, 0))
    assert read(grey, tmp_path / "la.png") == [[[255] * 3]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert read(palette, tmp_path / "p.png", transparency=0) == [[[255] * 3, [0, 255, 0]]]


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 257, 32_896, 65_535]], np.uint16))
    assert read(picture, tmp_path / "x.png") == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(tmp_path / "x.gif", save_all=True, append_images=[second])
    assert read_image(tmp_path / "x.gif").getpixel((0, 0)) == (255, 0, 0)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 0, 0)).save(tmp_path / "x.jpg")
    red, green, blue = np.asarray(read_image(tmp_path / "x.jpg"))[8, 8]
    assert red > 240 and green < 15 and blue > 240
