"""Samples → `Prompt`s (token ids, positions, patches) → `PromptBatch`es. Runs in data workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from torch import Tensor

from spacer.choices import TooLong
from spacer.data.decode import TEMPORAL_PATCH, MediaError, MediaReader, read_image
from spacer.data.prompts import prompt_text
from spacer.data.samples import Fault, Sample
from spacer.data.showing import Shown, asked, parts, show_captioned, show_images, show_video, shuffled_pixels
from spacer.positions import TEXT, PositionRule
from spacer.settings import DatasetSettings, VideoSettings
from spacer.tree import Forest, Segment, share

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


@dataclass(frozen=True)
class Prompt:
    """A sample made ready for the model. `strip_HWC` (uint8) is a few pictures of it, for people to look at.

    `types_L` says what a token is: 0 text, 1 image, 2 video. Patches and grids are of images or of a video, as `kind`
    says; None for text alone.
    """

    sample: Sample
    kind: str
    ids_L: Tensor
    types_L: Tensor
    positions_3L: Tensor
    pixels_PD: Tensor | None
    grid_thw: Tensor | None
    target_ids: Tensor | None
    strip_HWC: np.ndarray
    shuffled_pixels_PD: Tensor | None = None


@dataclass(frozen=True)
class Pictures:
    """Patches of all images and of all videos of a batch, with their grids (t, h, w) in patches."""

    image_pixels: Tensor | None = None
    image_grids: Tensor | None = None
    video_pixels: Tensor | None = None
    video_grids: Tensor | None = None


# Not a dataclass: Lightning's half- and double-precision plugins take those apart and refuse frozen ones. The model
# casts patches to its own precision.
@attrs.frozen
class PromptBatch:
    """Prompts as a forest, each picture and video once, however many of the prompts are about it.

    `targets` are completions to imitate, one a prompt; None outside of sft. `shuffled_video_pixels` are the same
    videos' patches with frames in random order (T-GRPO). `faults` are samples that could not be read and are not among
    the prompts.
    """

    samples: tuple[Sample, ...]
    strips: tuple[np.ndarray, ...]
    forest: Forest
    pictures: Pictures
    targets: tuple[Tensor, ...] | None
    shuffled_video_pixels: Tensor | None
    faults: tuple[Fault, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PromptBatch:
        """The batch with patches and grids on `device`; Lightning calls this. Rows are moved when they are packed."""
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self.pictures).items()
            if value is not None
        }
        shuffled = self.shuffled_video_pixels
        return attrs.evolve(
            self,
            pictures=replace(self.pictures, **moved),
            shuffled_video_pixels=None if shuffled is None else shuffled.to(device, non_blocking=non_blocking),
        )

    def shuffled(self) -> Pictures:
        """The same videos with their frames in random order (T-GRPO); images stay as they are."""
        return replace(self.pictures, video_pixels=self.shuffled_video_pixels)


def prepare(
    sample: Sample,
    processor: Qwen2_5_VLProcessor,
    settings: DatasetSettings,
    *,
    rule: PositionRule,
    reader: MediaReader | None = None,
    target: str | None = None,
    shuffle: np.random.Generator | None = None,
) -> Prompt | Fault:
    """Decodes the sample's media and processes its prompt; what cannot be read becomes a `Fault`.

    `reader` remembers what other samples have decoded. With `shuffle`, the frames of a video are also processed in an
    order that it draws.
    """
    reader = reader or MediaReader()
    try:
        shown = _shown(sample, processor, settings, reader)
        ids, types = asked(_chat(sample, shown, processor, settings), shown, processor)
    except MediaError as error:
        return Fault(sample.id, "unreadable media", str(error))
    except ValueError as error:  # a picture too thin for the processor, or marks of media in a question
        return Fault(sample.id, "cannot be processed", f"{sample.path}: {error}")
    is_video = shown.kind == "video"
    if len(ids) > settings.max_prompt_length:
        seen = int((types != TEXT).sum())
        if sample.data_type == "video" and settings.too_long == TooLong.thin:
            frames = _fitting(shown, len(ids), seen, settings.max_prompt_length)
            if frames > 0:
                thinner = replace(settings.video, max_frames=frames)
                return prepare(
                    sample,
                    processor,
                    replace(settings, video=thinner),
                    rule=rule,
                    reader=reader,
                    target=target,
                    shuffle=shuffle,
                )
        return Fault(sample.id, "prompt too long", _too_long(len(ids), seen, sample.data_type, settings))
    shuffled = None
    if is_video and shuffle is not None:
        shuffled = shuffled_pixels(reader.video(sample.path, settings.video), processor, settings.video, shuffle)
    grids = shown.grids.tolist()
    positions = rule.positions(types, () if is_video else grids, grids if is_video else (), shown.seconds)
    target_ids = None
    if target is not None:
        eos = processor.tokenizer.eos_token_id
        target_ids = torch.tensor([*processor.tokenizer(target)["input_ids"], eos])
    pixels, strip = shown.pixels_PD, shown.strip_HWC
    return Prompt(sample, shown.kind, ids, types, positions, pixels, shown.grids, target_ids, strip, shuffled)


def _shown(sample: Sample, processor: Qwen2_5_VLProcessor, settings: DatasetSettings, reader: MediaReader) -> Shown:
    """The sample's media as the model sees them, made once for all questions about them."""
    if sample.data_type == "video":
        make = partial(_show_video, sample, processor, settings.video, reader)
        return reader.once(("shown", sample.path, sample.captions, settings.video), make)

    def show() -> Shown:
        images = [read_image(BytesIO(image)) for image in sample.images] or [read_image(sample.path)]
        return show_images(images, processor, settings)

    return reader.once(("shown", sample.path, settings.image_max_pixels), show)


def _show_video(sample: Sample, processor: Qwen2_5_VLProcessor, settings: VideoSettings, reader: MediaReader) -> Shown:
    video = reader.video(sample.path, settings)
    if sample.captions:
        return show_captioned(video, sample.captions, processor, settings)
    return show_video(video, processor, settings)


def _chat(sample: Sample, shown: Shown, processor: Qwen2_5_VLProcessor, settings: DatasetSettings) -> Any:
    content = parts(shown.kind, (*shown.content, prompt_text(sample, settings.prompts)))
    turns: Any = [{"role": "user", "content": content}]
    if "system" in settings.prompts:
        system = {"type": "text", "text": settings.prompts["system"]}
        turns.insert(0, {"role": "system", "content": [system]})
    return processor.apply_chat_template(turns, add_generation_prompt=True)


def _fitting(shown: Shown, length: int, seen: int, limit: int) -> int:
    """How many frames of a video leave a prompt within the limit, fewer than now, since now is too many."""
    steps = int(shown.grids[:, 0].sum())
    if shown.kind == "video":
        return TEMPORAL_PATCH * ((limit - (length - seen)) // (seen // steps))
    # one by one, with what is said between them; how much less is said is a guess, which is made again if it fails
    rest, all_frames = length - len(shown.ids_L), len(shown.ids_L)
    fitting = (limit - rest) * steps // all_frames
    return min(fitting // TEMPORAL_PATCH * TEMPORAL_PATCH, steps - TEMPORAL_PATCH)


def _too_long(length: int, seen: int, data_type: str, settings: DatasetSettings) -> str:
    """Why a prompt is refused, and what would help."""
    said = f"{length} tokens, {seen} of them the {data_type}'s, "
    said += f"over dataset.max_prompt_length={settings.max_prompt_length}"
    if data_type == "image":
        return f"{said}; smaller images (dataset.image_max_pixels) shorten it"
    if settings.too_long == TooLong.thin:
        return f"{said}; not even two frames fit: smaller ones (dataset.video.max_pixels) shorten it"
    return f"{said}; fewer or smaller frames (dataset.video) shorten it, or dataset.too_long=thin takes fewer by itself"


def collate(items: Sequence[Prompt | Fault]) -> PromptBatch:
    """Joins prompts into a batch; what several prompts are about is held once. An all-faulty batch has no prompts."""
    prompts = [item for item in items if isinstance(item, Prompt)]
    first = {_medium(prompt): prompt for prompt in reversed(prompts) if prompt.grid_thw is not None}
    media = [first[key] for key in dict.fromkeys(map(_medium, prompts)) if key in first]
    media.sort(key=lambda prompt: prompt.kind)  # images come before videos, otherwise in order
    starts: dict[tuple[object, ...], int] = {}
    count = 0
    for prompt in media:
        starts[_medium(prompt)] = count
        count += int((prompt.types_L != TEXT).sum())
    images = [prompt for prompt in media if prompt.kind == "image"]
    videos = [prompt for prompt in media if prompt.kind == "video"]
    return PromptBatch(
        samples=tuple(prompt.sample for prompt in prompts),
        strips=tuple(prompt.strip_HWC for prompt in prompts),
        forest=share([_segment(prompt, starts.get(_medium(prompt), 0)) for prompt in prompts]),
        pictures=Pictures(
            image_pixels=cat_given([p.pixels_PD for p in images]),
            image_grids=cat_given([p.grid_thw for p in images]),
            video_pixels=cat_given([p.pixels_PD for p in videos]),
            video_grids=cat_given([p.grid_thw for p in videos]),
        ),
        targets=tuple(p.target_ids for p in prompts if p.target_ids is not None) or None,
        shuffled_video_pixels=cat_given([p.shuffled_pixels_PD for p in videos]),
        faults=tuple(item for item in items if isinstance(item, Fault)),
    )


def _medium(prompt: Prompt) -> tuple[object, ...]:
    """What a prompt shows: a file, how, and how many of its frames (a long question may leave room for fewer)."""
    grid = () if prompt.grid_thw is None else prompt.grid_thw.flatten().tolist()
    return prompt.kind, prompt.sample.path, *grid


def _segment(prompt: Prompt, start: int) -> Segment:
    seen = prompt.types_L != TEXT
    return Segment(prompt.ids_L, prompt.positions_3L, torch.where(seen, start + seen.cumsum(0) - 1, -1))


def cat_given(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Those of the tensors that are there as one; None where none is."""
    given = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(given) if given else None
