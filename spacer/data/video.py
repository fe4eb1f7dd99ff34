"""Video files → the frames shown at given times, in any container. Runs in data workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from PIL import Image

from spacer.config.settings import VideoSettings
from spacer.data.frames import Sampled, Timeline, sample
from spacer.data.packets import Survey, opened, packets, survey
from spacer.errors import MediaError
from spacer.files import check_readable

if TYPE_CHECKING:
    import av

TIME_LIMIT = 300.0  # seconds per file
T = TypeVar("T")


@dataclass(frozen=True)
class Video:
    """Sampled frames `frames_THWC` (uint8, RGB).

    `times` are when the frames appear, in seconds from the file's first frame; `step` is the interval in seconds
    between the sampling times, and `seconds` the file's duration.
    """

    frames_THWC: np.ndarray
    times: tuple[float, ...]
    step: float
    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded frames."""
        return self.frames_THWC.nbytes


def read_video(path: Path, settings: VideoSettings) -> Video:
    """Decodes the sampled frames of a video, rotated upright, with sides of at most `settings.max_side`.

    Raises:
        MediaError: the file is not a video, is damaged at a sampled frame, is cut off, or takes longer than
            `TIME_LIMIT`.
        UserError: the operating system denies access to it.
    """
    try:
        return _within(TIME_LIMIT, path, partial(_read, path, settings))
    except MediaError:
        check_readable(path)
        raise


def _read(path: Path, settings: VideoSettings, expired: threading.Event) -> Video:
    import av

    try:
        with opened(path) as (container, stream):
            found = survey(path, container, stream)
        with opened(path) as (container, stream):
            return _decode_frames(path, container, stream, found, settings, expired)
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot be decoded: {error}") from error


def _video(frames: Sequence[np.ndarray], times: Sequence[int], sampled: Sampled, timeline: Timeline) -> Video:
    first = timeline.starts[0]
    seconds = tuple(float((time - first) * timeline.tick) for time in times)
    return Video(np.stack(frames), seconds, float(sampled.step), float(timeline.seconds))


def _decode_frames(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    found: Survey,
    settings: VideoSettings,
    expired: threading.Event,
) -> Video:
    decoder = _Decoder(container, stream, found, expired)
    now = ahead = next(decoder, None)
    if now is None:
        raise MediaError(f"{path}: none of its frames can be decoded")
    timeline = found.since(now.time)
    sampled = sample(timeline, settings)
    upright = _Upright()
    frames: list[np.ndarray] = []
    times: list[int] = []
    for index in sampled.indices:
        wanted = timeline.starts[index]
        if ahead is not None and ahead.time < wanted and decoder.skip_to(found.key_before(wanted)):
            now = ahead = next(decoder, None)
        while ahead is not None and ahead.time <= wanted:
            now, ahead = ahead, next(decoder, None)
        if now is None or now.time < timeline.starts[max(0, index - 1)] or decoder.is_damaged(now.time):
            at = float((wanted - timeline.starts[0]) * timeline.tick)
            raise MediaError(f"{path}: damaged: the frame at {at:.2f} s cannot be decoded")
        if not times or times[-1] != now.time:
            frames.append(_shrunk(upright(now.frame), settings))
        else:
            frames.append(frames[-1])
        times.append(now.time)
    return _video(frames, times, sampled, timeline)


@dataclass(frozen=True)
class _Decoded:
    frame: av.VideoFrame
    time: int


class _Decoder(Iterator[_Decoded]):
    """The frames of a video in display order, with skips to later keyframes.

    Skipped packets are read but not decoded. This is exact in every container, which seeking is not.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        found: Survey,
        expired: threading.Event,
    ) -> None:
        self._packets = packets(container, stream)
        self._context = stream.codec_context
        self._found = found
        self._expired = expired
        self._ready: list[_Decoded] = []
        self._from: int | None = None  # the keyframe to skip to, if packets are being skipped
        self._begun = found.keys[0]  # the last keyframe sent to the decoder
        self._errors: list[int] = []
        self._last = found.timeline.starts[0] - 1

    def skip_to(self, key: int) -> bool:
        """Skips to the keyframe at time `key`, unless decoding is already past it; returns whether it does."""
        if key <= self._begun:
            return False
        self._from = self._begun = key
        self._ready = []
        self._context.flush_buffers()
        return True

    def is_damaged(self, time: int) -> bool:
        """Whether there was a decoding error between the frame's keyframe and the frame at `time`."""
        key = self._found.key_before(time)
        return any(key <= error <= time for error in self._errors)

    def __next__(self) -> _Decoded:
        while not self._ready:
            if self._expired.is_set():
                raise MediaError("out of time")  # the caller has given up waiting
            packet = next(self._packets)
            time = packet.pts if packet.pts is not None else packet.dts
            if self._from is not None and packet.size:
                if not packet.is_keyframe or time != self._from:
                    continue
                self._from = None
            if packet.is_keyframe and time is not None:
                self._begun = max(self._begun, time)
            self._decode(packet, time)
        return self._ready.pop(0)

    def _decode(self, packet: av.Packet[Any], time: int | None) -> None:
        import av

        try:
            for frame in self._context.decode(packet if packet.size else None):
                at = frame.pts if frame.pts is not None else frame.dts
                self._last = self._last + 1 if at is None else at
                if frame.is_corrupt:
                    self._errors.append(self._last)
                self._ready.append(_Decoded(frame, self._last))
        except av.EOFError:
            raise StopIteration from None
        except av.FFmpegError:
            if time is not None:
                self._errors.append(time)


def _matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """The display matrix: signs (a, b, c, d) of x' = a·x + c·y, y' = b·x + d·y; None for the identity."""
    for data in cast(Iterable[Any], frame.side_data):  # the type stubs say it is a mapping
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.sign(np.frombuffer(data, np.int32)[:5]).tolist()
            return None if (a, b, c, d) == (1, 0, 0, 1) else (a, b, c, d)
    return None


class _Upright:
    """Converts the frames of one video to RGB (H, W, 3) as a player shows them: rotated and mirrored by the display
    matrix, composited on white, and resized to the first frame's size if the stream's frame size changes.
    """

    def __init__(self) -> None:
        import av.video.reformatter

        # reused, since frame.to_ndarray() would set up swscale and its threads for every frame
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._shape: tuple[int, int] | None = None  # (H, W)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        alpha = any(component.is_alpha for component in frame.format.components)
        picture = self._reformatter.reformat(frame, format="rgba" if alpha else "rgb24", threads=1).to_ndarray()
        if alpha:
            opaque = picture[..., 3:].astype(np.uint16)
            picture = ((picture[..., :3] * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)
        a, b, c, d = _matrix(frame) or (1, 0, 0, 1)
        if a and d and not b and not c:
            picture = picture[::d, ::a]
        elif b and c and not a and not d:
            picture = picture.swapaxes(0, 1)[::b, ::c]
        self._shape = self._shape or (picture.shape[0], picture.shape[1])
        if picture.shape[:2] != self._shape:
            size = self._shape[::-1]
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
        return picture


def _shrunk(frame: np.ndarray, settings: VideoSettings) -> np.ndarray:
    """The frame, downscaled so that its longer side is at most `max_side`, as in SpaceR's evaluation."""
    height, width = frame.shape[:2]
    most = settings.max_side
    if most is None or max(height, width) <= most:
        return frame
    size = (int(width * (most / height)), most) if height > width else (most, int(height * (most / width)))
    return np.asarray(Image.fromarray(frame).resize((max(1, size[0]), max(1, size[1])), Image.Resampling.LANCZOS))


def _within(limit: float, path: Path, read: Callable[[threading.Event], T]) -> T:
    """Runs `read` with a time limit in seconds.

    It runs in a thread, since native code that hangs reacts neither to Ctrl-C nor to SIGTERM, and a thread can be
    abandoned. The event passed to `read` is set when the time is up.

    Raises:
        MediaError: the limit is exceeded.
    """
    found: list[T] = []
    errors: list[BaseException] = []
    expired = threading.Event()

    def run() -> None:
        try:
            found.append(read(expired))
        except BaseException as error:  # re-raised in the calling thread
            errors.append(error)

    thread = threading.Thread(target=run, name=f"decoding {path.name}", daemon=True)
    thread.start()
    try:
        thread.join(limit)
    finally:
        expired.set()
    if errors:
        raise errors[0]
    if not found:
        raise MediaError(f"{path}: cannot be decoded within {limit:g} s")
    return found[0]
