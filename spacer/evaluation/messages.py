"""A question as the messages of OpenAI's chat protocol: its text, and its media as data in their places."""

from __future__ import annotations

import base64
import mimetypes
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spacer.config.choices import Control, EndpointVideo, Subtitles
from spacer.config.settings import DatasetSettings
from spacer.data.captions import interleave, shown_with
from spacer.data.images import read_image, within
from spacer.data.layout import MARK, is_placed, laid_out, without_marks
from spacer.data.prompts import prompt_text
from spacer.data.samples import TEXT_ALONE, Sample
from spacer.data.video import read_video
from spacer.errors import MediaError

Part = dict[str, Any]
_GREY = 127
_HELD = 8  # videos whose pictures are kept for the questions that follow


class Messages:
    """Makes the messages of questions; what several are about is decoded once. Threads may share it.

    `part_of` makes a part of a message from a picture; by default, PNG in the text.
    """

    def __init__(
        self,
        settings: DatasetSettings,
        video: EndpointVideo = EndpointVideo.frames,
        control: Control | None = None,
        part_of: Callable[[Image.Image], Part] | None = None,
    ) -> None:
        self._part_of = part_of or _as_png
        self._settings = settings
        self._video = video
        self._control = control
        self._lock = threading.Lock()
        self._held: OrderedDict[Path, tuple[threading.Lock, list[tuple[list[Part], tuple[float, ...]]]]] = OrderedDict()

    def __call__(self, sample: Sample) -> list[dict[str, Any]]:
        """The messages of a question.

        Raises:
            MediaError: its media cannot be read.
        """
        media, times = ([], ()) if self._control == Control.none else self._media(sample)
        said = ""
        captions = sample.captions if sample.captioned == Subtitles.all else ()
        if sample.captioned == Subtitles.before:
            captions = shown_with(times, sample.captions)
        if captions:
            said = "Subtitles of the video:\n" + "\n".join(line.text for line in captions) + "\n\n"
        question = said + prompt_text(sample, self._settings.prompts)
        kinds = ["image"] * len(sample.images) if MARK.search(question) else []
        placed = is_placed(question, kinds or [file.kind for file in sample.files])
        content = [without_marks(question)] if placed and not media else laid_out(question, media, placed)
        parts: list[Part] = []
        for item in content:
            parts += [{"type": "text", "text": item}] if isinstance(item, str) else item
        system = self._settings.prompts.get("system")
        turns = [{"role": "system", "content": system}] if system is not None else []
        return [*turns, {"role": "user", "content": parts}]

    def _media(self, sample: Sample) -> tuple[list[list[Part]], tuple[float, ...]]:
        """The parts of each medium, and the times of the frames of the only video."""
        if sample.data_type == TEXT_ALONE:
            return [], ()
        if sample.images:
            return [[self._picture(read_image(BytesIO(image)))] for image in sample.images], ()
        found: list[list[Part]] = []
        times: tuple[float, ...] = ()
        for file in sample.files:
            if file.kind == "image":
                found.append([self._picture(read_image(file.path))])
            else:
                parts, times = self._once(file.path, partial(self._film, file.path, sample))
                found.append(parts)
        return found, times

    def _once(
        self, path: Path, make: Callable[[], tuple[list[Part], tuple[float, ...]]]
    ) -> tuple[list[Part], tuple[float, ...]]:
        with self._lock:
            lock, held = self._held.setdefault(path, (threading.Lock(), []))
            self._held.move_to_end(path)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        with lock:
            if not held:
                held.append(make())
            return held[0]

    def _film(self, path: Path, sample: Sample) -> tuple[list[Part], tuple[float, ...]]:
        if self._video == EndpointVideo.file:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise MediaError(f"{path}: cannot be read: {error.strerror}") from error
            kind = mimetypes.guess_type(path.name)[0] or "video/mp4"
            return [{"type": "video_url", "video_url": {"url": _data_url(kind, data)}}], ()
        video = read_video(path, self._settings.video)
        most = self._settings.video.max_pixels
        frames = [self._picture(Image.fromarray(frame), most) for frame in video.frames_THWC]
        if not (sample.captions and sample.captioned == Subtitles.between):
            return frames, video.times
        woven = interleave(video.times, sample.captions)
        said = [frames[item] if isinstance(item, int) else {"type": "text", "text": f"{item}\n"} for item in woven]
        return said, video.times

    def _picture(self, image: Image.Image, most: int | None = None) -> Part:
        """A picture within the pixels that the protocol allows, without loss."""
        image = within(image.convert("RGB"), self._settings.image_max_pixels if most is None else most)
        if self._control == Control.grey:
            image = Image.fromarray(np.full((image.height, image.width, 3), _GREY, np.uint8))
        return self._part_of(image)


def _as_png(image: Image.Image) -> Part:
    """A picture without loss, in the protocol's form."""
    held = BytesIO()
    image.save(held, "PNG")
    return {"type": "image_url", "image_url": {"url": _data_url("image/png", held.getvalue())}}


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
