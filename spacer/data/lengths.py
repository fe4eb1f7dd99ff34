"""Prompts that are too long: how many frames would fit, and what is said of one that cannot be shortened."""

from __future__ import annotations

from collections.abc import Sequence

from spacer.config.choices import Subtitles, TooLong
from spacer.config.settings import DatasetSettings
from spacer.data.frames import TEMPORAL_PATCH
from spacer.data.samples import Sample
from spacer.data.showing import ProcessedMedia


def fitting(shown: ProcessedMedia, length: int, seen: int, limit: int, along: int) -> int:
    """The number of frames with which a prompt that is too long fits the limit.

    `along` is the number of text tokens that come with the frames; they are assumed to be spread evenly.
    """
    steps = int(shown.grids[:, 0].sum())
    if shown.kind == "video":
        between = shown.length - seen  # text tokens: marks around the video, or marks and times at each step
        each = seen // steps + (0 if between <= 2 else -(-between // steps))
        rest = length - seen if between <= 2 else length - shown.length
        return TEMPORAL_PATCH * ((limit - rest + along) // (each - (-along // steps)))
    # single images with subtitles between them; assumes equal text per frame, and is repeated if that is wrong
    rest, all_frames = length - shown.length, shown.length
    fit = (limit - rest) * steps // all_frames
    return min(fit // TEMPORAL_PATCH * TEMPORAL_PATCH, steps - TEMPORAL_PATCH)


def fitting_each(videos: Sequence[ProcessedMedia], length: int, limit: int) -> int:
    """How many frames of each of several videos may leave a prompt within the limit, fewer than the most of now.

    How many tokens go with a frame differs between them, so that this is a guess, made again if it fails.
    """
    seen, steps = sum(item.length for item in videos), [int(item.grids[:, 0].sum()) for item in videos]
    if not videos or length - seen >= limit:
        return 0
    fit = max(steps) * (limit - (length - seen)) // seen
    return TEMPORAL_PATCH * min(fit, max(steps) - 1)


def too_long(length: int, seen: int, lines: int, sample: Sample, settings: DatasetSettings, section: str) -> str:
    """The message for a prompt that is too long. `seen` is its number of vision tokens, `lines` that of subtitles."""
    if not seen and not lines:
        return f"{length} tokens of text, over {section}.max_prompt_length={settings.max_prompt_length}"
    of_lines = f" and {lines} its subtitles'" if lines else ""
    said = f"{length} tokens, {seen} of them the {sample.data_type}'s{of_lines}, "
    said += f"over {section}.max_prompt_length={settings.max_prompt_length}"
    if lines:
        fewer = f"{section}.subtitles=before takes only the lines at sampled frames, and "
        fewer = fewer if sample.captioned == Subtitles.all else ""
        fit = "not even two frames fit beside them: " if settings.too_long == TooLong.thin else ""
        return f"{said}; {fit}{fewer}{section}.subtitles=none leaves them out, or raise {section}.max_prompt_length"
    if sample.data_type == "image":
        return f"{said}; smaller images ({section}.image_max_pixels) shorten it"
    if settings.too_long == TooLong.thin:
        return f"{said}; not even two frames fit: smaller ones ({section}.video.max_pixels) shorten it"
    thin = f"{section}.too_long=thin samples fewer frames automatically"
    return f"{said}; fewer or smaller frames ({section}.video) shorten it, or {thin}"
