"""Odd but legal videos, made with PyAV. Each frame says its number in dark and light bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 8
HEIGHT, BAR = 64, 16  # pixels of a picture's height and of a bar's width
RATE = 30


def picture(number: int, height: int = HEIGHT) -> np.ndarray:
    """Bars of the number's bits, the highest on the left, over a lower half that tells up from down."""
    bits = [(number >> (BITS - 1 - bit)) & 1 for bit in range(BITS)]
    row = np.repeat(np.array([40 + 170 * bit for bit in bits], np.uint8), BAR * height // HEIGHT)
    bars = np.repeat(row[None, :, None], height, 0).repeat(3, 2)
    bars[3 * height // 4 :] = (200, 60, 60)
    return bars


def number_of(frame_HWC: np.ndarray) -> int:
    """The number that a frame says."""
    height, width = frame_HWC.shape[:2]
    bars = frame_HWC[: height // 2, :, 1].reshape(height // 2, BITS, width // BITS).mean((0, 2))
    return int(sum(int(level > 125) << (BITS - 1 - bit) for bit, level in enumerate(bars)))


def write(
    path: Path,
    times: Sequence[int] | int = 90,
    codec: str = "libx264",
    *,
    base: Fraction = Fraction(1, RATE),
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    container: str | None = None,
    pixels: str = "yuv420p",
    height: int = HEIGHT,
    first: int = 0,
    turn: tuple[float, bool, bool] | None = None,
) -> Path:
    """Frames at `times` (in units of `base`, or so many one after the other), numbered from `first` on."""
    if isinstance(times, int):
        times = range(times)
    if codec == "libx264":
        options = {"g": "24", "bf": "3", "preset": "veryfast", **(options or {})}
    with av.open(str(path), "w", format=container, options=muxer or {}) as out:
        stream: Any = out.add_stream(codec, rate=1 / base, options=options or {})
        stream.width, stream.height, stream.pix_fmt = BITS * BAR * height // HEIGHT, height, pixels
        stream.time_base = stream.codec_context.time_base = base
        stream.thread_count = 1
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1], vflip=turn[2])
        for number, time in enumerate(times, first):
            frame = av.VideoFrame.from_ndarray(picture(number, height), format="rgb24")
            frame.pts, frame.time_base = time, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def copied(
    source: Path,
    path: Path,
    *,
    shift: Fraction = Fraction(0),
    cut: Fraction | None = None,
    muxer: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """The same packets in another file, `shift` later; from `cut` seconds on without encoding anew: the packets before,
    back to a keyframe, are in the file and hidden by an edit list, where the container has those."""
    with av.open(str(source)) as given, av.open(str(path), "w", format=container, options=muxer or {}) as out:
        stream: Any = given.streams.video[0]
        packets = [packet for packet in given.demux(stream) if packet.size]
        tick = stream.time_base
        start = round((cut or 0) / tick)
        keys = [i for i, packet in enumerate(packets) if packet.is_keyframe and (packet.pts or 0) <= start]
        into = out.add_stream_from_template(stream)
        for packet in packets[keys[-1] if cut is not None else 0 :]:
            assert packet.pts is not None and packet.dts is not None
            packet.pts += round(shift / tick) - start
            packet.dts += round(shift / tick) - start
            packet.stream = into
            out.mux(packet)
    return path


def _joined(path: Path) -> Path:
    """Two recordings one after the other: the clock is set back, and the pictures are smaller."""
    half = HEIGHT // 2
    parts = [write(path.with_name("a.ts"), 45), write(path.with_name("b.ts"), 45, height=half, first=45)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def _cut(share: float, **how: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        whole = write(path, **how).read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        return path

    return make


def _trim(cut: float) -> Callable[[Path], Path]:
    return lambda path: copied(write(path.with_name(f"long{path.suffix}")), path, cut=Fraction(cut))


def _shifted(seconds: int) -> Callable[[Path], Path]:
    return lambda path: copied(write(path.with_name("src.mp4")), path, shift=Fraction(seconds))


def _turned(degrees: float, across: bool = False, down: bool = False) -> Callable[[Path], Path]:
    return lambda path: write(path, turn=(degrees, across, down))


_UNEVEN = [*range(45), *range(45, 90, 6)]  # 30 a second, then 5
_STILL = [*range(12), *range(168, 180)]
_OPEN = "open-gop=1:keyint=20:min-keyint=20:bframes=3:b-adapt=0:scenecut=0"
_QUIET = {"x265-params": "log-level=0"}
_ALTREF = {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8", "deadline": "good", "b": "200k"}

# a file's name → what makes it
READ: dict[str, Callable[[Path], Path]] = {
    "plain.mp4": write,
    **{f"trim_{cut}.mp4": _trim(cut) for cut in (0.1, 0.5, 0.9, 1.3, 1.7, 2.1, 2.5, 2.8)},
    "trim.mov": _trim(1.3),
    "trim.mkv": _trim(1.3),
    "uneven.mp4": lambda path: write(path, _UNEVEN),
    "uneven.mkv": lambda path: write(path, _UNEVEN),
    "still.mp4": lambda path: write(path, _STILL),
    "start10.mkv": _shifted(10),
    "start10.ts": _shifted(10),
    "start3.mp4": _shifted(3),
    "one.mp4": lambda path: write(path, 1),
    "two.mp4": lambda path: write(path, 2),
    "still2s.mp4": lambda path: write(path, 1, base=Fraction(2)),
    "240.mp4": lambda path: write(path, base=Fraction(1, 240)),
    "ten_bits.mp4": lambda path: write(path, 20, "libx265", pixels="yuv420p10le", options=_QUIET),
    "444.mp4": lambda path: write(path, 20, pixels="yuv444p"),
    "live.mkv": lambda path: write(path, muxer={"live": "1"}),
    "fragments.mp4": lambda path: write(path, muxer={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "front.mp4": lambda path: write(path, muxer={"movflags": "faststart"}),
    "mkv_as.mp4": lambda path: write(path, container="matroska"),
    "mp4_as.jpg": lambda path: write(path, container="mp4"),
    "hidden_frames.webm": lambda path: write(path, codec="libvpx", options=_ALTREF),
    "vp9.webm": lambda path: write(path, codec="libvpx-vp9", options=_ALTREF),
    "av1.mp4": lambda path: write(path, 30, "libsvtav1", options={"preset": "12"}),
    "open.mp4": lambda path: write(path, options={"x264-params": _OPEN}),
    "hevc_open.mp4": lambda path: write(path, codec="libx265", options={"x265-params": f"log-level=0:{_OPEN}"}),
    "interlaced.mpg": lambda path: write(path, codec="mpeg2video", options={"flags": "+ilme+ildct", "b": "2M"}),
    "motion.avi": lambda path: write(path, codec="mjpeg", pixels="yuvj420p"),
    "divx.avi": lambda path: write(path, codec="mpeg4", options={"bf": "2", "b": "1M"}),
    "anim.gif": lambda path: write(path, 20, "gif", base=Fraction(1, 10), pixels="rgb8"),
    "flash.flv": lambda path: write(path, codec="flv", options={"b": "1M"}),
    "windows.wmv": lambda path: write(path, codec="wmv2", options={"b": "1M"}),
    "two_sizes.ts": _joined,
    "cut_live.mkv": _cut(0.6, muxer={"live": "1"}),
}
# … with the turn that undoes it
TURNED: dict[str, tuple[Callable[[Path], Path], Callable[[np.ndarray], np.ndarray]]] = {
    "90.mp4": (_turned(90), lambda frame: np.rot90(frame, 1)),
    "180.mp4": (_turned(180), lambda frame: np.rot90(frame, 2)),
    "270.mp4": (_turned(270), lambda frame: np.rot90(frame, -1)),
    "mirrored.mp4": (_turned(0, across=True), np.fliplr),
    "upside_down.mp4": (_turned(0, down=True), np.flipud),
}


def decoded(path: Path) -> list[tuple[float, int]]:
    """Time and number of every frame, by a plain decode of the whole file: what `read_video` is held against."""
    found: list[tuple[float, int]] = []
    last = shift = 0.0
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        for packet in container.demux(stream):
            frames: Iterable[Any] = ()
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                time = float(frame.pts * stream.time_base) + shift
                if found and time < last - 1:  # the clock is set back: what comes later in the file is shown later
                    shift += last + 1 / RATE - time
                    time = last + 1 / RATE
                number = number_of(frame.to_ndarray(format="rgb24"))
                found.append((time, number))
                last = max(last, time)
    first = min(time for time, _ in found)
    return sorted((time - first, number) for time, number in found)
