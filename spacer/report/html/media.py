"""Videos and pictures → what of them is put into the page: strips of frames, and whole videos that are small."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from spacer.data.decode import MediaError, read_image, read_video
from spacer.data.strips import side_by_side
from spacer.report.aside import aside
from spacer.settings import ReportSettings, VideoSettings

PLAYED = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}  # what browsers play
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_GAP = 3  # white pixels between two frames
_QUALITY = 72  # of JPEG: no artefacts show at this size


@dataclass(frozen=True)
class Medium:
    """A video or image file, or encoded pictures, that questions are about."""

    path: Path | None
    pictures: Sequence[bytes] = ()


@dataclass(frozen=True)
class Shown:
    """What the page has of a medium, as data URIs; `problem` says why it has no frames, where it should."""

    strip: str | None = None
    video: str | None = None
    problem: str | None = None

    @property
    def size(self) -> int:
        """Characters."""
        return len(self.strip or "") + len(self.video or "")


@dataclass(frozen=True)
class Embedded:
    """What is shown of each medium, and how many have neither frames nor a problem since there was no room."""

    shown: tuple[Shown, ...]
    without_frames: int


def embedded(media: Sequence[Medium], settings: ReportSettings, room: int) -> Embedded:
    """Frames of as many media as the settings and `room` characters allow, the first ones first, then whole videos."""
    shown = [Shown() for _ in media]
    chosen = media[: settings.strips]
    for place, found in enumerate(_strips(chosen, settings)):
        if found.size > room:
            break
        room -= found.size
        shown[place] = found
    for place, medium in enumerate(media):
        if (video := _playable(medium, settings, room)) is not None:
            room -= len(video)
            shown[place] = replace(shown[place], video=video)
    return Embedded(tuple(shown), sum(one == Shown() for one in shown))


def _strips(media: Sequence[Medium], settings: ReportSettings) -> Iterator[Shown]:
    if not media:
        return
    strip = partial(_strip, frames=settings.frames, height=settings.frame_height)
    for found in aside(strip, media, "frames for the report"):
        yield Shown(problem="reading it brings the decoder down") if found is None else found


def _strip(medium: Medium, frames: int, height: int) -> Shown:
    """Frames side by side in one JPEG."""
    try:
        pictures = _pictures(medium, frames)
    except MediaError as error:
        return Shown(problem=str(error))
    return Shown(strip=data_uri("image/jpeg", strip_jpeg(pictures, height)))


def _pictures(medium: Medium, frames: int) -> list[Image.Image]:
    if medium.path is None:
        return [read_image(BytesIO(each)) for each in medium.pictures[:frames]]
    if medium.path.suffix.lower() in PICTURES:
        return [read_image(medium.path)]
    # as many a second as there are: the frames are spread over the whole video
    video = read_video(medium.path, VideoSettings(max_frames=frames, fps=1000.0))
    return [Image.fromarray(frame) for frame in video.frames_THWC]


def strip_jpeg(pictures: Sequence[Image.Image], height: int) -> bytes:
    """The pictures at one height, side by side with a thin gap, as one JPEG."""
    scaled = [each.resize((max(1, round(each.width * height / each.height)), height)) for each in pictures]
    held = BytesIO()
    side_by_side(scaled, _GAP).save(held, "JPEG", quality=_QUALITY, optimize=True)
    return held.getvalue()


def _playable(medium: Medium, settings: ReportSettings, room: int) -> str | None:
    """The video whole, where it is small and of a kind that browsers play."""
    path = medium.path
    kind = PLAYED.get(path.suffix.lower()) if path is not None else None
    if path is None or kind is None or not path.is_file():
        return None
    size = path.stat().st_size
    if size > settings.video_megabytes * 1e6 or size * 4 / 3 + 64 > room:
        return None
    return data_uri(kind, path.read_bytes())


def data_uri(kind: str, content: bytes) -> str:
    """The bytes as text that stands where a page names a file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
