"""Samples → prompts as the model's own processor makes them, for the plain computation. Runs in data workers.

A prompt is a call of the processor on the chat template's text and the media; nothing is shared between questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spacer.config.choices import Control, Shown, Subtitles, TooLong
from spacer.config.families import Family, family_of
from spacer.config.settings import DatasetSettings, VideoSettings
from spacer.data.captions import interleave
from spacer.data.decode import MediaReader
from spacer.data.frames import TEMPORAL_PATCH
from spacer.data.images import read_image, within
from spacer.data.lengths import too_long
from spacer.data.processing import chat_of, content_of, marks_places, part_sizes, read_all, said_before
from spacer.data.prompts import prompt_text
from spacer.data.samples import TEXT_ALONE, Fault, Sample
from spacer.data.showing import as_channels_first, as_trained, image_bounds, metadata_of, processed, video_bounds
from spacer.data.strips import strip_beside, strip_of
from spacer.data.tokens import begun_with, control_tokens
from spacer.data.video import Video
from spacer.errors import MediaError, SampleError, UserError

_MASK = "attention_mask"
_MEAN = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class PlainMedium:
    """Pictures of at most `most` pixels each, or a video, before the processor; `kind`, `content` and `at` as of
    `ShownMedium`. A processor that can be told to enlarges pictures to `least` pixels."""

    kind: str
    content: tuple[str | None, ...]
    pictures: tuple[Image.Image, ...]
    most: int
    least: int | None = None
    video: Video | None = None
    at: tuple[float, ...] = ()

    @property
    def strip_HWC(self) -> np.ndarray:
        """A few of the pictures side by side, for people."""
        return strip_of(self.pictures if self.video is None else self.video.frames_THWC)


@dataclass(frozen=True)
class PlainPrompt:
    """A sample processed for the model: `inputs` are the arguments of its forward pass, of a batch of one."""

    sample: Sample
    inputs: Mapping[str, Tensor]
    target_ids: Tensor | None
    strip_HWC: np.ndarray


@attrs.frozen  # not a dataclass, as `PromptBatch`
class PlainBatch:
    """Prompts beside each other. `targets`, `faults` and `part_sizes` are as of `PromptBatch`."""

    samples: tuple[Sample, ...]
    strips: tuple[np.ndarray, ...]
    inputs: tuple[Mapping[str, Tensor], ...]
    targets: tuple[Tensor, ...] | None
    faults: tuple[Fault, ...]
    part_sizes: tuple[int, ...]

    @property
    def lengths(self) -> list[int]:
        """The tokens of each prompt."""
        return [inputs["input_ids"].shape[1] for inputs in self.inputs]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PlainBatch:
        """The batch on `device`; called by Lightning."""
        moved = [
            {name: value.to(device, non_blocking=non_blocking) for name, value in inputs.items()}
            for inputs in self.inputs
        ]
        return attrs.evolve(self, inputs=tuple(moved))


def prepare_plain(
    sample: Sample,
    processor: Any,
    settings: DatasetSettings,
    *,
    reader: MediaReader,
    target: str | None = None,
    control: Control | None = None,
    section: str = "dataset",
) -> PlainPrompt | Fault:
    """Decodes the sample's media, if any, and has the processor make its prompt; what cannot be made is a `Fault`.

    Arguments and errors are as of `spacer.data.processing.prepare`.
    """
    try:
        shown = [] if control == Control.none else _shown(sample, settings, reader)
        shown = [_grey(item, processor) for item in shown] if control == Control.grey else shown
        said = said_before(sample, shown)
        question = prompt_text(replace(sample, problem=said + sample.problem), settings.prompts)
        inputs = inputs_of(content_of(question, sample, shown), processor, settings)
    except MediaError as error:
        return Fault(sample.id, "unreadable media", str(error))
    except SampleError as error:
        return Fault(sample.id, "cannot be processed", f"{sample.path}: {error}")
    given, target_ids = begun_with(processor.tokenizer, sample.begun, target)
    inputs = followed(inputs, given[None], torch.ones_like(given[None]))
    length, frames = inputs["input_ids"].shape[1], settings.video.max_frames
    if length <= settings.max_prompt_length:
        return PlainPrompt(sample, inputs, target_ids, strip_beside([item.strip_HWC for item in shown]))
    filmed = [len(item.video.frames_THWC if item.video else item.pictures) for item in shown if item.at]
    fewer = min(max(filmed, default=0), frames * settings.max_prompt_length // length) - 1
    fewer -= fewer % TEMPORAL_PATCH
    if settings.too_long == TooLong.refuse or fewer < TEMPORAL_PATCH:
        without = inputs_of(content_of(question, sample, ()), processor, settings)["input_ids"].shape[1]
        return Fault(sample.id, "prompt too long", too_long(length, length - without, 0, sample, settings, section))
    thinner = replace(settings.video, max_frames=fewer, min_frames=min(fewer, settings.video.min_frames))
    return prepare_plain(
        sample,
        processor,
        replace(settings, video=thinner),
        reader=reader,
        target=target,
        control=control,
        section=section,
    )


def inputs_of(content: Sequence[str | PlainMedium], processor: Any, settings: DatasetSettings) -> Mapping[str, Tensor]:
    """The arguments of the model's forward pass for a prompt.

    Raises:
        SampleError: a text spells out a control token, the processor rejects the media, or the model would take
            pictures for videos.
        UserError: the processor takes no videos.
    """
    media = [item for item in content if not isinstance(item, str)]
    said = [item for item in content if isinstance(item, str)]
    said += [text for item in media for text in item.content if text is not None]
    if token := next(
        (token for token in control_tokens(processor.tokenizer) if any(token in text for text in said)), None
    ):
        raise SampleError(f"it spells out the control token {token}, which the plain computation takes for a real one")
    chat = chat_of(content, processor, settings.prompts.get("system"))
    begins = processor.tokenizer.bos_token
    arguments: dict[str, Any] = {"add_special_tokens": begins is None or not chat.startswith(begins)}
    if images := [item for item in media if item.video is None]:
        arguments |= _of_images(images, processor)
    if videos := [item for item in media if item.video is not None]:
        if not shows_videos(processor):
            raise UserError(f"{type(processor).__name__} takes no videos")
        arguments |= _of_videos(videos, processor, settings.video)
        chat = chat if _known(processor) is None else as_trained(chat, processor)
    inputs = processed(processor, text=[chat], **arguments)
    if _alike(inputs, processor):
        raise SampleError(
            f"{type(processor).__name__} puts the same token in the places of pictures and of videos, and the model "
            "could not tell them apart: ask about one of the two, or set video.shown=pictures"
        )
    return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}


def followed(inputs: Mapping[str, Tensor], ids_BC: Tensor, mask_BC: Tensor) -> dict[str, Tensor]:
    """The inputs of prompts with further text tokens after each. What is as long as the prompts are their types."""
    ids_BL = inputs["input_ids"]
    longer = {
        name: torch.cat([value, mask_BC.to(value) if name == _MASK else torch.zeros_like(ids_BC, dtype=value.dtype)], 1)
        for name, value in inputs.items()
        if name != "input_ids" and value.shape == ids_BL.shape
    }
    mask = torch.cat([torch.ones_like(ids_BL), mask_BC.to(ids_BL)], 1)
    return {**inputs, _MASK: mask, **longer, "input_ids": torch.cat([ids_BL, ids_BC], 1)}


def tiled(inputs: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The inputs of a prompt, so many times over, as processors make them of a batch: media one after another."""
    return {name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in inputs.items()}


def collate_plain(items: Sequence[PlainPrompt | Fault], parts: int = 1) -> PlainBatch:
    """Puts prompts beside each other, in so many parts, which divide the number of items. If all items are faults, the
    batch has no prompts."""
    prompts = [item for item in items if isinstance(item, PlainPrompt)]
    return PlainBatch(
        samples=tuple(prompt.sample for prompt in prompts),
        strips=tuple(prompt.strip_HWC for prompt in prompts),
        inputs=tuple(prompt.inputs for prompt in prompts),
        targets=tuple(p.target_ids for p in prompts if p.target_ids is not None) or None,
        faults=tuple(item for item in items if isinstance(item, Fault)),
        part_sizes=part_sizes(items, parts),
    )


def join_plain(batches: Sequence[PlainBatch]) -> PlainBatch:
    """Concatenates batches."""
    return attrs.evolve(
        batches[0],
        samples=tuple(sample for batch in batches for sample in batch.samples),
        strips=tuple(strip for batch in batches for strip in batch.strips),
        inputs=tuple(inputs for batch in batches for inputs in batch.inputs),
        faults=tuple(fault for batch in batches for fault in batch.faults),
        part_sizes=(sum(len(batch.samples) for batch in batches),),
    )


def part_of_plain(batch: PlainBatch, number: int) -> PlainBatch:
    """A part of the batch."""
    start = sum(batch.part_sizes[:number])
    cut = slice(start, start + batch.part_sizes[number])
    return attrs.evolve(
        batch,
        samples=batch.samples[cut],
        strips=batch.strips[cut],
        inputs=batch.inputs[cut],
        targets=batch.targets and batch.targets[cut],
        faults=(),
        part_sizes=(batch.part_sizes[number],),
    )


def shows_videos(processor: Any) -> bool:
    """Whether the processor takes videos."""
    return getattr(processor, "video_processor", None) is not None


def _known(processor: Any) -> Family | None:
    """The family that the processor is of, by whose rules its options bound pixels; None: it has rules of its own."""
    try:
        return family_of(processor)
    except ValueError:
        return None


def _alike(inputs: Mapping[str, Any], processor: Any) -> bool:
    """Whether pictures and videos, which go to the model apart, stand in the prompt by the same token (GLM-4.1V)."""
    apart = {"pixel_values", "pixel_values_videos"} <= inputs.keys()
    return apart and not bool((inputs["input_ids"] == processor.video_token_id).any())


def _of_images(media: Sequence[PlainMedium], processor: Any) -> dict[str, Any]:
    """The processor's arguments for pictures. Of another family they are scaled to their bound before it sees them."""
    most, known = max(item.most for item in media), _known(processor)
    pictures = [
        within(picture, item.most) if known is None or item.most < most else picture
        for item in media
        for picture in item.pictures
    ]
    if known is None:
        return {"images": pictures}
    return {"images": pictures, "images_kwargs": image_bounds(processor, most, media[0].least)}


def _of_videos(media: Sequence[PlainMedium], processor: Any, settings: VideoSettings) -> dict[str, Any]:
    """The processor's arguments for videos.

    Raises:
        SampleError: they differ in what the processor is told once for all.
    """
    videos = [item.video for item in media if item.video is not None]
    options: dict[str, Any] = {"do_sample_frames": False, "video_metadata": [metadata_of(video) for video in videos]}
    if _known(processor) is None:
        frames = [_scaled(video.frames_THWC, settings.max_pixels) for video in videos]
    else:
        frames = [video.frames_THWC for video in videos]
        bounds = [video_bounds(processor, len(shown), settings) for shown in frames]
        if any(bound != bounds[0] for bound in bounds):
            raise SampleError(
                "its videos have different numbers of frames, and the processor bounds the pixels of all videos alike: "
                "set video.min_frames and video.max_frames to the same number"
            )
        options |= bounds[0]
    return {"videos": [as_channels_first(shown) for shown in frames], "videos_kwargs": options}


def _scaled(frames_THWC: np.ndarray, most: int) -> np.ndarray:
    return np.stack([np.asarray(within(Image.fromarray(frame), most)) for frame in frames_THWC])


def _shown(sample: Sample, settings: DatasetSettings, reader: MediaReader) -> list[PlainMedium]:
    """The sample's media."""
    if sample.data_type == TEXT_ALONE:
        return []
    most = settings.image_max_pixels
    if sample.images:
        pictures = read_all(sample.images)
        if marks_places(prompt_text(sample, settings.prompts), sample):
            return [PlainMedium("image", (None,), (picture,), most) for picture in pictures]
        return [PlainMedium("image", (None,) * len(pictures), tuple(pictures), most)]
    return [
        _film(sample, reader.video(file.path, settings.video), settings.video)
        if file.kind == "video"
        else PlainMedium("image", (None,), (read_image(file.path),), most)
        for file in sample.files
    ]


def _film(sample: Sample, video: Video, settings: VideoSettings) -> PlainMedium:
    """A video, or its frames as pictures with the captions between them."""
    between = sample.captions if sample.captioned == Subtitles.between else ()
    at, most, least = tuple(video.times), settings.max_pixels, settings.min_pixels
    if not between and settings.shown == Shown.video:
        return PlainMedium("video", (None,), (), most, least, video, at)
    woven = interleave(video.times, between)
    content = tuple(None if isinstance(item, int) else f"{item}\n" for item in woven)
    frames = tuple(Image.fromarray(frame) for frame in video.frames_THWC)
    return PlainMedium("image", content, frames, most, least, at=at)


def _grey(item: PlainMedium, processor: Any) -> PlainMedium:
    """The same pictures in one colour: the one that the processor normalizes to about 0."""
    colour = [round(255 * share) for share in getattr(processor.image_processor, "image_mean", None) or _MEAN]
    pictures = tuple(Image.new("RGB", picture.size, tuple(colour)) for picture in item.pictures)
    video = item.video
    if video is not None:
        frames = np.broadcast_to(np.array(colour, np.uint8), video.frames_THWC.shape)
        video = replace(video, frames_THWC=np.ascontiguousarray(frames))
    return replace(item, pictures=pictures, video=video)
