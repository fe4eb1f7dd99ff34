"""A trial prompt about grey pictures, made before any real one: if it fails, all of them would."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import TemplateError
from PIL import Image

from spacer.config.choices import Shown
from spacer.config.settings import DatasetSettings
from spacer.data.plain import PlainMedium, inputs_of, shows_videos
from spacer.data.processing import chat_of, tokens_of
from spacer.data.samples import Sample
from spacer.data.showing import ProcessedMedia, show_images, show_video
from spacer.data.video import Video
from spacer.errors import UserError

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

_QUESTION = "How many chairs?"
_SIDE = 64
_REMEDY = "remove `system`, and put its text into `plain` and `map`"
# what templates and processors raise
_FAILURES: Any = (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError)


def check_prompts(processor: Qwen2_5_VLProcessor, settings: DatasetSettings, section: str) -> None:
    """Makes a prompt with a video, one with an image and one of text alone. `section` is the settings' place in the
    configuration, for messages.

    Raises:
        UserError: the model's processor or chat template fails on one of them, or drops the system message.
    """
    system = settings.prompts.get("system")
    for kind in ("video", "image", "text"):
        try:
            tokens_of([*_grey(kind, processor, settings), _QUESTION], processor, system)
        except UserError as error:
            raise UserError(f"{section}.prompts: {error}") from error
        except _FAILURES as error:
            raise UserError(_failed(kind, error, processor, settings, section)) from error
    if system is not None and system.strip() not in chat_of([_QUESTION], processor, system):
        raise UserError(f"{section}.prompts: the model's chat template drops the system message: {_REMEDY}")


def kinds_of(samples: Iterable[Sample]) -> set[str]:
    """The kinds of media that questions are about."""
    found: set[str] = set()
    for sample in samples:
        found |= {"image"} if sample.images else {file.kind for file in sample.files}
    return found


def check_plain_prompts(processor: Any, settings: DatasetSettings, section: str, kinds: Collection[str]) -> None:
    """As `check_prompts` for the plain computation, with prompts of the kinds of media that there are, and of text.

    Raises:
        UserError: as there; or there are videos, and the processor takes none.
    """
    if "video" in kinds and settings.video.shown == Shown.video and not shows_videos(processor):
        raise UserError(
            f"{section}.video.shown=video: {type(processor).__name__}, the model's processor, takes no videos: set "
            f"{section}.video.shown=pictures, which shows frames as pictures"
        )
    for kind in (*sorted(kinds), "text"):
        try:
            inputs_of([*_grey_plain(kind, settings), _QUESTION], processor, settings)
        except _FAILURES as error:
            raise UserError(
                f"{section}: the model's processor cannot make a prompt of a grey {kind} ({type(error).__name__}: "
                f"{error}): copy the processor and chat template from its base model"
                + (f", or {_REMEDY}" if "system" in settings.prompts else "")
            ) from error
    system = settings.prompts.get("system")
    if system is not None and system.strip() not in chat_of([_QUESTION], processor, system):
        raise UserError(f"{section}.prompts: the model's chat template drops the system message: {_REMEDY}")


def _grey_plain(kind: str, settings: DatasetSettings) -> list[PlainMedium]:
    frames = np.full((2, _SIDE, _SIDE, 3), 127, np.uint8)
    if kind == "video" and settings.video.shown == Shown.video:
        return [PlainMedium("video", (None,), (), _SIDE**2, video=Video(frames, (0.0, 0.5), 0.5, 1.0), at=(0.0, 0.5))]
    return [PlainMedium("image", (None,), (Image.fromarray(frames[0]),), _SIDE**2)] if kind != "text" else []


def _grey(kind: str, processor: Qwen2_5_VLProcessor, settings: DatasetSettings) -> list[ProcessedMedia]:
    frames = np.full((2, _SIDE, _SIDE, 3), 127, np.uint8)
    if kind == "video":
        return [show_video(Video(frames, (0.0, 0.5), 0.5, 1.0), processor, settings.video)]
    return [show_images([Image.fromarray(frames[0])], processor, settings)] if kind == "image" else []


def _failed(
    kind: str, error: Exception, processor: Qwen2_5_VLProcessor, settings: DatasetSettings, section: str
) -> str:
    if "system" in settings.prompts:
        try:
            tokens_of([*_grey(kind, processor, settings), _QUESTION], processor, None)
        except _FAILURES:
            pass
        else:
            return f"{section}.prompts: the model's chat template rejects a system message ({error}): {_REMEDY}"
    return (
        f"{section}: the model's processor cannot make a prompt of a grey {kind} ({type(error).__name__}: {error}): "
        "copy the processor and chat template from its base model, and set the sizes in "
        f"{section}.video and {section}.image_max_pixels to values that it accepts"
    )
