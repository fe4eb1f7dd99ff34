"""Videos and images → what the page embeds of them: strips of frames, and small videos as a whole."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from spacer.config.settings import ReportSettings, VideoSettings
from spacer.data.images import read_image
from spacer.data.strips import side_by_side
from spacer.data.video import read_video
from spacer.errors import MediaError, UserError
from spacer.report.aside import aside

PLAYED = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}  # formats that browsers play
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_GAP = 3  # white pixels between two frames
_QUALITY = 72  # of JPEG: without visible artefacts at this size


@dataclass(frozen=True)
class Medium:
    """A video or image file, or encoded pictures, that questions are about."""

    path: Path | None
    pictures: Sequence[bytes] = ()


@dataclass(frozen=True)
class EmbeddedMedia:
    """What the page embeds of a medium, as data URIs; `problem` says why expected frames are missing."""

    strip: str | None = None
    video: str | None = None
    problem: str | None = None

    @property
    def size(self) -> int:
        """Size in characters."""
        return len(self.strip or "") + len(self.video or "")


@dataclass(frozen=True)
class Embedded:
    """The embedded media, and the number that have neither frames nor a problem, for lack of space."""

    shown: tuple[EmbeddedMedia, ...]
    without_frames: int


def embedded(media: Sequence[Medium], settings: ReportSettings, room: int) -> Embedded:
    """Frames of as many media as the settings and `room` characters allow, in order, then whole videos."""
    shown = [EmbeddedMedia() for _ in media]
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
    return Embedded(tuple(shown), sum(one == EmbeddedMedia() for one in shown))


def _strips(media: Sequence[Medium], settings: ReportSettings) -> Iterator[EmbeddedMedia]:
    if not media:
        return
    strip = partial(_strip, frames=settings.frames, height=settings.frame_height)
    for found in aside(strip, media, "frames for the report"):
        yield EmbeddedMedia(problem="reading it brings the decoder down") if found is None else found


def _strip(medium: Medium, frames: int, height: int) -> EmbeddedMedia:
    """Frames side by side in one JPEG."""
    try:
        pictures = _pictures(medium, frames)
    except (MediaError, UserError) as error:  # a report shows what is readable, also if a disk refuses some of it
        return EmbeddedMedia(problem=str(error))
    return EmbeddedMedia(strip=data_uri("image/jpeg", strip_jpeg(pictures, height)))


def _pictures(medium: Medium, frames: int) -> list[Image.Image]:
    if medium.path is None:
        return [read_image(BytesIO(each)) for each in medium.pictures[:frames]]
    if medium.path.suffix.lower() in PICTURES:
        return [read_image(medium.path)]
    # a rate above any video's, so that the frames are spread over the whole of it
    video = read_video(medium.path, VideoSettings(max_frames=frames, fps=1000.0))
    return [Image.fromarray(frame) for frame in video.frames_THWC]


def strip_jpeg(pictures: Sequence[Image.Image], height: int) -> bytes:
    """Joins the pictures, scaled to one height, side by side with a thin gap, as one JPEG."""
    scaled = [each.resize((max(1, round(each.width * height / each.height)), height)) for each in pictures]
    held = BytesIO()
    side_by_side(scaled, _GAP).save(held, "JPEG", quality=_QUALITY, optimize=True)
    return held.getvalue()


def _playable(medium: Medium, settings: ReportSettings, room: int) -> str | None:
    """The whole video, if it is small and in a format that browsers play."""
    path = medium.path
    kind = PLAYED.get(path.suffix.lower()) if path is not None else None
    if path is None or kind is None or not os.path.isfile(path):  # Path.is_file raises without permission
        return None
    size = path.stat().st_size
    if size > settings.video_megabytes * 1e6 or size * 4 / 3 + 64 > room:
        return None
    try:
        return data_uri(kind, path.read_bytes())
    except OSError:  # its strip, or the missing strip, says why
        return None


def data_uri(kind: str, content: bytes) -> str:
    """The bytes as a data URI, for use in place of a file name."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
