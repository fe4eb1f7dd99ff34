"""Frames are the right ones, images are RGB, and a broken file is an error that names it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from spacer.config.settings import VideoSettings
from spacer.data.images import read_image
from spacer.data.video import Video
from spacer.errors import MediaError
from tests.written_files import make_sound

Decode = Callable[[Path, VideoSettings], Video]

FRAMES = 24
FPS = 8


def colour(number: int) -> tuple[int, int, int]:
    """A colour by which frame `number` is known: red falls, blue rises, green alternates."""
    return 240 - 9 * number, 40 if number % 2 else 200, 20 + 9 * number


def make_video(
    path: Path, count: int = FRAMES, fps: int = FPS, *, faststart: bool = False, noisy: bool = False
) -> Path:
    """An H.264 file, with B-frames, 64 wide and 32 high."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10", "g": "12"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 32, "yuv420p", 1
        for number in range(count):
            picture = np.full((32, 64, 3), colour(number % FRAMES), dtype=np.uint8)
            if noisy:
                picture = np.random.default_rng(number).integers(0, 256, picture.shape, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


# ---- videos


@pytest.mark.parametrize(("max_frames", "fps"), [(24, 8.0), (6, 8.0), (16, 2.0), (2, 1.0)])
def test_frames_are_those_of_the_indices(max_frames: int, fps: float, tmp_path: Path, decode: Decode) -> None:
    video = decode(make_video(tmp_path / "v.mp4"), VideoSettings(max_frames=max_frames, fps=fps))
    assert video.seconds == FRAMES / FPS
    assert video.frames_THWC.dtype == np.uint8
    assert video.frames_THWC.shape == (len(video.times), 32, 64, 3)
    wanted = np.array([colour(round(time * FPS)) for time in video.times])
    assert np.abs(video.frames_THWC.mean((1, 2)) - wanted).max() < 4  # neighbours are 9 apart


@pytest.mark.parametrize(("count", "indices"), [(1, (0, 0)), (2, (0, 1)), (3, (0, 1))])
def test_very_short_videos(count: int, indices: tuple[int, ...], tmp_path: Path, decode: Decode) -> None:
    video = decode(make_video(tmp_path / "v.mp4", count), VideoSettings(max_frames=16, fps=4.0))
    assert video.times == tuple(index / FPS for index in indices)
    assert len(video.frames_THWC) == 2


def cut(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def overwrite(path: Path) -> None:
    """Noise in place of the second half, where the pictures are."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + np.random.default_rng(0).bytes(len(whole) - len(whole) // 2))


BROKEN: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "random bytes": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5_000)),
    "text": lambda path: path.write_text("not a video\n" * 50),
    "folder": lambda path: path.mkdir(),
    "sound": make_sound,
    "cut early": lambda path: cut(make_video(path), 0.1),
    "cut": lambda path: cut(make_video(path), 0.6),
    "cut at the end": lambda path: cut(make_video(path), 0.9),
    # with the index in front, the file opens, and what it promises is not there
    "cut, index in front": lambda path: cut(make_video(path, 200, faststart=True, noisy=True), 0.3),
    "cut late, index in front": lambda path: cut(make_video(path, 200, faststart=True, noisy=True), 0.97),
    "overwritten": lambda path: overwrite(make_video(path, 60, faststart=True, noisy=True)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_video_is_an_error_that_names_it(name: str, tmp_path: Path, decode: Decode) -> None:
    """And never a hang: `decode` waits a few minutes."""
    path = tmp_path / "broken video.mp4"
    BROKEN[name](path)
    with pytest.raises(MediaError, match=r"broken video\.mp4: .*\w{4}"):
        decode(path, VideoSettings(max_frames=16, fps=2.0))


def test_the_decoder_goes_on_after_a_broken_file(tmp_path: Path, decode: Decode) -> None:
    path = tmp_path / "broken.mp4"
    for _ in range(5):
        overwrite(make_video(path, 60, faststart=True, noisy=True))
        with pytest.raises(MediaError):
            decode(path, VideoSettings())
    assert len(decode(make_video(tmp_path / "good.mp4"), VideoSettings()).times) == 6


# ---- images


def encoded(format_: str, mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(out, format_)
    return out.getvalue()


@pytest.mark.parametrize(
    ("format_", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "RGB"), ("JPEG", "CMYK")],
)
def test_images_of_all_modes_become_rgb(format_: str, mode: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(encoded(format_, mode))
    image = read_image(tmp_path / "picture")
    assert (image.mode, image.size) == ("RGB", (32, 24))


def test_an_image_keeps_its_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (250, 100, 5)).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png")).tolist() == [[[250, 100, 5]] * 3] * 2


def huge_png() -> bytes:
    """A header that promises 60,000 x 60,000 pixels, and no more."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


BROKEN_IMAGES: dict[str, bytes] = {
    "empty": b"",
    "random bytes": np.random.default_rng(0).bytes(3_000),
    "text": b"not an image\n" * 20,
    "half a png": encoded("PNG")[:900],
    "half a jpeg": encoded("JPEG")[:500],
    "png of broken chunks": encoded("PNG")[:60] + b"\0" * 40 + encoded("PNG")[100:],
    "far too large": huge_png(),
    "half a gif": encoded("GIF", "P")[:900],
    "half a webp": encoded("WEBP")[:200],
    "half a bmp": encoded("BMP")[:400],
    "half a tiff": encoded("TIFF")[:300],
    # these make Pillow raise errors of other classes
    "ppm of a broken header": b"P6\n32 24;\n255\n" + bytes(32 * 24 * 3),
    "half a dds": encoded("DDS")[:900],
}


@pytest.mark.parametrize("name", BROKEN_IMAGES)
def test_a_broken_image_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "broken picture.png"
    path.write_bytes(BROKEN_IMAGES[name])
    with pytest.raises(MediaError, match=r"broken picture\.png: .*\w{4}"):
        read_image(path)


@pytest.mark.parametrize("name", ["none.png", "folder"])
def test_what_is_no_file_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(MediaError, match=name):
        read_image(tmp_path / name)


@hypothesis_settings(deadline=None, max_examples=150, derandomize=True)
@given(format_=st.sampled_from(["PNG", "JPEG", "WEBP"]), data=st.data())
def test_no_damage_to_an_image_raises_anything_else(
    format_: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A few bytes overwritten in the files that people have: read all the same, or a MediaError."""
    content = bytearray(encoded(format_))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        assert read_image(path).mode == "RGB"
    except MediaError as error:
        assert "damaged" in str(error)
