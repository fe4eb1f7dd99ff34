"""Video and image files → arrays. Runs in data workers."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

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

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded frames."""
        return self.frames_THWC.nbytes


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

    if not path.is_file():
        raise MediaError(f"{path}: there is no such file")
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


def read_image(path: Path | BytesIO) -> Image.Image:
    """Reads an image, in a file or in memory, as RGB.

    Raises:
        MediaError: the file is not an image that can be read.
    """
    with _opened(path) as image:
        return image.convert("RGB")


@contextmanager
def _opened(path: Path | BytesIO) -> Iterator[Image.Image]:
    """An image that is open; a `MediaError` where it cannot be, or what is done with it shows damage."""
    try:
        with Image.open(path) as image:
            yield image
    except (*_PILLOW_ERRORS, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: cannot be read as an image: {error}") from error


def read_header(path: Path, kind: str) -> float:
    """Opens an image or a video without decoding it; returns how many seconds a video lasts, 0 for an image.

    Raises:
        MediaError: the file does not open as what it should be.
    """
    if kind == "image":
        with _opened(path):
            return 0.0
    import av  # opens a file many times quicker than decord, which reads its frames' index

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path}: holds no video")
            stream = container.streams.video[0]
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            return (container.duration or 0) / av.time_base
    except MediaError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be opened: {error}") from error


class Sized(Protocol):
    """What says how many bytes it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Sized)


class MediaReader:
    """Reads media and remembers the last ones, so that questions about one file decode and process it once.

    What could not be read is remembered with its reason. At most `bytes_held` are kept; what was used last always is.
    """

    def __init__(self, bytes_held: int = 256 * 2**20) -> None:
        self._most = bytes_held
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._bytes = 0

    def video(self, path: Path, settings: VideoSettings) -> Video:
        """As `read_video`."""
        return self.once(("decoded", path, settings), lambda: read_video(path, settings))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, or raises as a `MediaError`: now, or when the key was first asked for."""
        if key not in self._held:
            try:
                self._held[key] = make()
            except MediaError as error:
                self._held[key] = str(error)
            self._bytes += _size(self._held[key])
        self._held.move_to_end(key)
        while self._bytes > self._most and len(self._held) > 1:
            self._bytes -= _size(self._held.popitem(last=False)[1])
        found = self._held[key]
        if isinstance(found, str):
            raise MediaError(found)
        return cast(T, found)


def _size(held: Any) -> int:
    return 0 if isinstance(held, str) else int(held.nbytes)
