"""A video's timeline and keyframes, read from its packets without decoding."""

from __future__ import annotations

import bisect
import errno
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from spacer.data.frames import Timeline
from spacer.errors import MediaError

if TYPE_CHECKING:
    import av

# The only formats FFmpeg may open: no playlist, script or session description, which refer to further files and
# addresses; no raw stream, which has no timestamps; and no picture.
CONTAINERS = "mov,matroska,avi,mpegts,mpeg,asf,flv,gif,ogg,ivf,mxf,dv,nut,rm,wtv,apng"
_JOINED = ("mpegts", "mpeg")  # containers whose files can be concatenated byte by byte
_LOST_FRAMES = 2  # frames that may be missing at the end, since durations are rounded …
_LOST_SHARE = 0.01  # … or this share of the duration


@dataclass(frozen=True)
class Survey:
    """A video's timeline and the times of its keyframes, in ticks."""

    timeline: Timeline
    keys: tuple[int, ...]

    def since(self, first: int) -> Timeline:
        """The timeline from the first decodable frame on, for streams that start inside a group of pictures."""
        starts, end, tick = self.timeline.starts, self.timeline.end, self.timeline.tick
        later = tuple(starts[bisect.bisect_right(starts, first) :])
        return Timeline((first, *later), max(end, first + 1), tick)

    def key_before(self, time: int) -> int:
        """The time of the last keyframe at or before `time`; if there is none, of the first keyframe."""
        return self.keys[max(0, bisect.bisect_right(self.keys, time) - 1)]


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a video file and its video stream. The path is never treated as a URL, and no other file is opened.

    Raises:
        MediaError: the file is not a video in a known container, or has no video stream.
    """
    import av

    if not path.is_file():
        raise MediaError(f"{path}: no such file")
    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        container = av.open(f"file:{path.absolute()}", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be decoded: {_why(path, error)}") from error
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise MediaError(f"{path}: has no video")
        if stream.disposition & (av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails):
            raise MediaError(f"{path}: has no video, only a cover picture")
        try:
            context = stream.codec_context
            context.thread_count = 1  # the data workers are the parallelism
        except (RuntimeError, AttributeError) as error:  # PyAV has no codec context if FFmpeg has no decoder
            raise MediaError(f"{path}: no decoder for its video") from error
        yield container, stream


def _why(path: Path, error: Exception) -> str:
    head = path.read_bytes()[:4096] if path.stat().st_size < 1 << 20 else b""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<MPD", b"[playlist]")):
        return "it is a playlist, which refers to other files, and only the file itself is read"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")) or head[8:12] == b"WEBP":
        return "it is a picture"
    if isinstance(error, ValueError) and getattr(error, "errno", None) in (errno.EINVAL, None):
        return f"it is in none of the supported containers: {CONTAINERS.replace(',', ', ')}"
    return getattr(error, "strerror", None) or str(error)


def packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet[av.VideoStream]]:
    """The video's packets in decoding order, with timestamps that continue where the clock is set back.

    That happens where recordings were concatenated: what comes later in the file is shown later.
    """
    if container.format.name not in _JOINED:
        yield from container.demux(stream)
        return
    last, shift = None, 0
    second = 1 / stream.time_base if stream.time_base else 1
    for packet in container.demux(stream):
        if packet.size == 0:
            yield packet  # the end of the stream: flushes the decoder
            continue
        time = packet.dts if packet.dts is not None else packet.pts
        if time is not None:
            if last is not None and time + shift < last - second:
                shift = last - time + (packet.duration or 1)
            last = time + shift
        if shift:
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        yield packet


class _Row(NamedTuple):
    """The relevant fields of a packet."""

    time: int
    duration: int
    key: bool
    hidden: bool
    known: bool  # whether it has a timestamp


def survey(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Survey:
    """Reads all packets of the video.

    Raises:
        MediaError: there are none, or fewer than the file's header says.
    """
    rows: list[_Row] = []
    for packet in packets(container, stream):
        if packet.size:
            pts, key, broken = packet.pts, packet.is_keyframe, packet.is_corrupt
            time = packet.dts if pts is None else pts
            known = time is not None
            if time is None:
                time = rows[-1].time + 1 if rows else 0
            rows.append(_Row(time, packet.duration or 0, key, broken or packet.is_discard, known))
    shown = sorted((row for row in rows if not row.hidden), key=lambda row: row.time)
    if not shown or stream.time_base is None:
        raise MediaError(f"{path}: no frames")
    starts = tuple(row.time for row in shown)
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    rate = stream.guessed_rate or stream.average_rate
    usual = round(sum(gaps) / len(gaps)) if gaps else round(1 / rate / stream.time_base) if rate else 0
    timeline = Timeline(starts, starts[-1] + max(1, shown[-1].duration or usual), stream.time_base)
    if container.format.name.startswith("mov") and stream.duration is not None:
        lost = stream.duration - (timeline.end - starts[0])
        if lost > max(_LOST_FRAMES * usual, _LOST_SHARE * stream.duration):
            told = float(stream.duration * stream.time_base)
            raise MediaError(
                f"{path}: cut off: its header says {told:.2f} s, but it has {float(timeline.seconds):.2f} s"
            )
    keys = sorted(row.time for row in rows if row.key and row.known) or [min(row.time for row in rows)]
    return Survey(timeline, tuple(keys))
