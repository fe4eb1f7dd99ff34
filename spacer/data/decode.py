"""Video and image files → arrays. Runs in data workers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from spacer.settings import VideoSettings

TEMPORAL_PATCH = 2  # Qwen2.5-VL joins two frames into one patch; an even number of frames needs no padding
# what Pillow's plugins raise for damaged files; there is no class of its own for it
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, IndexError, struct.error)


class MediaError(ValueError):
    """A media file that cannot be read, named with the reason."""


@dataclass(frozen=True)
class Video:
    """Sampled frames `frames_THWC` (uint8, RGB), the `indices` they had, and the file's own length and rate."""

    frames_THWC: np.ndarray
    indices: tuple[int, ...]
    total_frames: int
    fps: float


def frame_indices(total: int, fps: float, settings: VideoSettings) -> tuple[int, ...]:
    """Evenly spaced frames at `settings.fps`, an even number of them, between 2 and `settings.max_frames`.

    Frame i is at i·total/n, so that two neighbours are total/(n·fps) seconds apart, the time that positions are
    computed from.

    >>> frame_indices(16, 4.0, VideoSettings(max_frames=4, fps=2.0))
    (0, 4, 8, 12)
    """
    wanted = min(total / fps * settings.fps, settings.max_frames, total)
    count = max(TEMPORAL_PATCH, int(wanted) // TEMPORAL_PATCH * TEMPORAL_PATCH)
    return tuple(int(i * total / count) for i in range(count))


def read_video(path: Path, settings: VideoSettings) -> Video:
    """Decodes the sampled frames of a video.

    Raises:
        MediaError: the file is not a video that can be decoded, or has no frames.
    """
    import decord  # in workers only: its FFmpeg threads do not survive a fork

    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        total, fps = len(reader), float(reader.get_avg_fps())
        if total == 0 or not fps > 0:
            raise MediaError(f"{path}: no frames ({total} frames at {fps} per second)")
        indices = frame_indices(total, fps, settings)
        frames = reader.get_batch(list(indices)).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        raise MediaError(f"{path}: cannot be decoded: {str(error).strip().splitlines()[-1]}") from error
    return Video(frames, indices, total, fps)


def read_image(path: Path) -> Image.Image:
    """Reads an image as RGB.

    Raises:
        MediaError: the file is not an image that can be read.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (*_PILLOW_ERRORS, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: cannot be read as an image: {error}") from error


class MediaReader:
    """Reads media, each file once: what was decoded, or the reason why it could not be, is remembered."""

    def __init__(self, settings: VideoSettings) -> None:
        self._settings = settings
        self._held: dict[tuple[str, Path], Video | Image.Image | str] = {}

    def video(self, path: Path) -> Video:
        """As `read_video`."""
        found = self._once("video", path, lambda: read_video(path, self._settings))
        assert isinstance(found, Video)
        return found

    def image(self, path: Path) -> Image.Image:
        """As `read_image`."""
        found = self._once("image", path, lambda: read_image(path))
        assert isinstance(found, Image.Image)
        return found

    def _once(self, kind: str, path: Path, read: Callable[[], Video | Image.Image]) -> Video | Image.Image:
        if (kind, path) not in self._held:
            try:
                self._held[kind, path] = read()
            except MediaError as error:
                self._held[kind, path] = str(error)
        found = self._held[kind, path]
        if isinstance(found, str):
            raise MediaError(found)
        return found
