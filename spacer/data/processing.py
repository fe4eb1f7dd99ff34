"""Samples → `Prompt`s (token ids, positions, patches) → `PromptBatch`es. Runs in data workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spacer.config.choices import Control, Shown, Subtitles, TooLong
from spacer.config.settings import DatasetSettings, VideoSettings
from spacer.data.captions import Caption, shown_with
from spacer.data.controls import grey
from spacer.data.decode import MediaReader
from spacer.data.images import read_image
from spacer.data.layout import MARK, ShownMedium, T, is_placed, laid_out, without_marks
from spacer.data.lengths import fitting, fitting_each, too_long
from spacer.data.prompts import prompt_text
from spacer.data.samples import TEXT_ALONE, Fault, Sample
from spacer.data.showing import ProcessedMedia, asked, parts, show_captioned, show_images, show_video, shuffled_pixels
from spacer.data.strips import strip_beside
from spacer.data.tokens import begun_with, encode, places
from spacer.errors import MediaError, SampleError
from spacer.tree.forest import Forest, Segment, share
from spacer.tree.mrope import IMAGE, TEXT, VIDEO, PositionRule

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor


MIXED = "mixed"  # the kind of a prompt with images and videos
_TYPES = {"image": IMAGE, "video": VIDEO}  # kinds and the types of their tokens, in the order of their features


@dataclass(frozen=True)
class Prompt:
    """A sample processed for the model. `strip_HWC` (uint8) is a strip of thumbnails for people.

    `types_L` are token types: 0 text, 1 image, 2 video. Patches and grids are of images or of videos, depending on
    `kind`; None for text-only samples. With kind `mixed` they are of the images, and those of the videos are separate.
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
    video_pixels_PD: Tensor | None = None
    video_grid_thw: Tensor | None = None

    def of_kind(self, kind: str) -> tuple[Tensor, Tensor] | None:
        """Patches and grids of its images or of its videos, where it has any."""
        pixels, grids = self.pixels_PD, self.grid_thw
        if kind == "video" and self.kind == MIXED:
            pixels, grids = self.video_pixels_PD, self.video_grid_thw
        elif kind != self.kind and not (kind == "image" and self.kind == MIXED):
            return None
        return None if pixels is None or grids is None else (pixels, grids)


@dataclass(frozen=True)
class VisionInputs:
    """Patches of all images and of all videos of a batch, with their grids (t, h, w) in patches."""

    image_pixels: Tensor | None = None
    image_grids: Tensor | None = None
    video_pixels: Tensor | None = None
    video_grids: Tensor | None = None


# Not a dataclass: Lightning's half- and double-precision plugins rebuild dataclasses, which fails for frozen ones. The
# model casts patches to its own precision.
@attrs.frozen
class PromptBatch:
    """Prompts as a forest, with each picture and video once, even if several prompts are about it.

    `targets` are completions to imitate, one per prompt; None outside of sft. `shuffled_video_pixels` are the same
    videos' patches with frames in random order (T-GRPO). `faults` are samples that could not be read, which have no
    prompt. `part_sizes` are the numbers of samples of its parts (`spacer.data.parts`), one after the other.
    """

    samples: tuple[Sample, ...]
    strips: tuple[np.ndarray, ...]
    forest: Forest
    pictures: VisionInputs
    targets: tuple[Tensor, ...] | None
    shuffled_video_pixels: Tensor | None
    faults: tuple[Fault, ...]
    part_sizes: tuple[int, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PromptBatch:
        """The batch with patches and grids on `device`; called by Lightning. Token rows are moved when packed."""
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

    def shuffled(self) -> VisionInputs:
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
    control: Control | None = None,
    section: str = "dataset",
) -> Prompt | Fault:
    """Decodes the sample's media, if any, and processes its prompt; unreadable media result in a `Fault`.

    `reader` caches media across samples. With `shuffle`, the frames of a video are also processed in a random order.
    With a `control` of grey or none, the media are replaced with grey pictures or omitted. `section` is the settings'
    place in the configuration, for messages.

    Raises:
        UserError: the cause of the failure would affect all samples.
    """
    reader = reader or MediaReader()
    try:
        shown = [] if control == Control.none else _shown(sample, processor, settings, reader)
        shown = [grey(item) for item in shown] if control == Control.grey else shown
        said = said_before(sample, shown)
        question = prompt_text(replace(sample, problem=said + sample.problem), settings.prompts)
        content = content_of(question, sample, shown)
        ids, types = tokens_of(content, processor, settings.prompts.get("system"))
        given, target_ids = begun_with(processor.tokenizer, sample.begun, target)
        ids, types = torch.cat([ids, given]), torch.cat([types, torch.full_like(given, TEXT)])
    except MediaError as error:
        return Fault(sample.id, "unreadable media", str(error))
    except SampleError as error:
        return Fault(sample.id, "cannot be processed", f"{sample.path}: {error}")
    images, videos = ([item for item in shown if item.kind == kind] for kind in ("image", "video"))
    if len(ids) > settings.max_prompt_length:
        seen = int((types != TEXT).sum())
        told = said or "\n".join(text for item in shown for text in item.content if text is not None)
        lines = len(processor.tokenizer(told)["input_ids"]) if told else 0
        if any(file.kind == "video" for file in sample.files) and shown and settings.too_long == TooLong.thin:
            along = lines if sample.captioned == Subtitles.before else 0
            if len(shown) == 1:
                frames = fitting(shown[0], len(ids), seen, settings.max_prompt_length, along)
            else:
                frames = fitting_each(videos, len(ids), settings.max_prompt_length)
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
                    control=control,
                    section=section,
                )
        detail = too_long(len(ids), seen, lines, sample, settings, section)
        return Fault(sample.id, "prompt too long", detail)
    shuffled = None
    if videos and shuffle is not None:
        files = [file.path for file in sample.files if file.kind == "video"]
        shuffled = torch.cat(
            [shuffled_pixels(reader.video(file, settings.video), processor, settings.video, shuffle) for file in files]
        )
    image_grids, video_grids = ([grid for item in items for grid in item.grids.tolist()] for items in (images, videos))
    positions = rule.positions(types, image_grids, video_grids, [second for item in videos for second in item.seconds])
    kinds = sorted({item.kind for item in shown})
    kind = TEXT_ALONE if not kinds else MIXED if len(kinds) > 1 else kinds[0]
    first, second = (images, videos) if kind == MIXED else (shown, [])
    return Prompt(
        sample,
        kind,
        ids,
        types,
        positions,
        cat_given([item.pixels_PD for item in first]),
        cat_given([item.grids for item in first]),
        target_ids,
        strip_beside([item.strip_HWC for item in shown]),
        shuffled,
        cat_given([item.pixels_PD for item in second]),
        cat_given([item.grids for item in second]),
    )


def _shown(
    sample: Sample, processor: Qwen2_5_VLProcessor, settings: DatasetSettings, reader: MediaReader
) -> list[ProcessedMedia]:
    """The sample's processed media, cached for all questions about them. Adjacent images are processed together."""
    if sample.data_type == TEXT_ALONE:
        return []
    if sample.images:
        if not marks_places(prompt_text(sample, settings.prompts), sample):
            key = ("shown", sample.path, settings.image_max_pixels)
            return [reader.once(key, lambda: show_images(read_all(sample.images), processor, settings))]
        return [
            reader.once(
                ("shown", sample.path, place, settings.image_max_pixels),
                partial(lambda image: show_images([read_image(BytesIO(image))], processor, settings), image),
            )
            for place, image in enumerate(sample.images)
        ]
    found = []
    for file in sample.files:
        if file.kind == "video":
            make = partial(_show_video, sample, file.path, processor, settings.video, reader)
            between = sample.captions if sample.captioned == Subtitles.between else ()
            found.append(reader.once(("shown", file.path, between, settings.video), make))
        else:
            show = partial(_show_image, file.path, processor, settings)
            found.append(reader.once(("shown", file.path, settings.image_max_pixels), show))
    return found


def read_all(images: Sequence[bytes]) -> list[Image.Image]:
    """A sample's images that are stored in its file."""
    return [read_image(BytesIO(image)) for image in images]


def _show_image(path: Path, processor: Qwen2_5_VLProcessor, settings: DatasetSettings) -> ProcessedMedia:
    return show_images([read_image(path)], processor, settings)


def _show_video(
    sample: Sample, path: Path, processor: Qwen2_5_VLProcessor, settings: VideoSettings, reader: MediaReader
) -> ProcessedMedia:
    video = reader.video(path, settings)
    between = sample.captions if sample.captioned == Subtitles.between else ()
    if between or settings.shown == Shown.pictures:
        shown = show_captioned(video, between, processor, settings)
    else:
        shown = show_video(video, processor, settings)
    return replace(shown, at=tuple(video.times))


def content_of(question: str, sample: Sample, shown: Sequence[T]) -> list[str | T]:
    """The prompt's text and media in their order."""
    placed = marks_places(question, sample)
    if placed and not shown:
        return [without_marks(question)]
    return laid_out(question, shown, placed)


def marks_places(question: str, sample: Sample) -> bool:
    """Whether the prompt marks the places of the sample's media. Images are counted only if it marks any, since that
    reads them."""
    if not MARK.search(question):
        return False
    return is_placed(question, ["image"] * len(sample.images) or [file.kind for file in sample.files])


def said_before(sample: Sample, shown: Sequence[ShownMedium]) -> str:
    """The subtitles to put before the question, with a heading; "" if there are none."""
    captions: Sequence[Caption] = ()
    if sample.captioned == Subtitles.all:
        captions = sample.captions
    elif sample.captioned == Subtitles.before and shown:
        captions = shown_with(shown[0].at, sample.captions)
    return "Subtitles of the video:\n" + "\n".join(line.text for line in captions) + "\n\n" if captions else ""


def chat_of(content: Sequence[str | ShownMedium], processor: Any, system: str | None) -> str:
    """The prompt as text: the system message, if any, then a user turn with the media in their places."""
    turn: list[dict[str, str]] = []
    for item in content:
        turn += parts("image", [item]) if isinstance(item, str) else parts(item.kind, item.content)
    turns: Any = [{"role": "user", "content": turn}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    chat: Any = processor.apply_chat_template(turns, add_generation_prompt=True)
    return str(chat)


def tokens_of(
    content: Sequence[str | ProcessedMedia], processor: Qwen2_5_VLProcessor, system: str | None
) -> tuple[Tensor, Tensor]:
    """Token ids and types of a prompt.

    Raises:
        SampleError: the question spells out a control token, and the chat template changes its text.
        UserError: the system message or the chat template adds media marks.
    """

    def render(said: Sequence[str]) -> str:
        texts = iter(said)
        return chat_of([next(texts) if isinstance(item, str) else item for item in content], processor, system)

    texts = [item for item in content if isinstance(item, str)]
    media = [item for item in content if not isinstance(item, str)]
    chat = render(texts)
    data = places(processor.tokenizer, chat, texts, render)
    if not media:
        ids = torch.tensor(encode(processor.tokenizer, chat, data))
        return ids, torch.full_like(ids, TEXT)
    return asked(chat, media, processor, data)


def collate(items: Sequence[Prompt | Fault], parts: int = 1) -> PromptBatch:
    """Merges prompts into a batch that stores each medium once. If all items are faults, the batch has no prompts.

    The batch has so many `parts`, which divide the number of items.
    """
    prompts = [item for item in items if isinstance(item, Prompt)]
    first = {_medium(prompt): prompt for prompt in reversed(prompts) if prompt.grid_thw is not None}
    media = [first[key] for key in dict.fromkeys(map(_medium, prompts)) if key in first]
    starts: dict[tuple[tuple[object, ...], str], int] = {}
    count = 0
    for kind, of_kind in _TYPES.items():  # images come before videos, otherwise in order
        for prompt in media:
            if prompt.of_kind(kind) is not None:
                starts[_medium(prompt), kind] = count
                count += int((prompt.types_L == of_kind).sum())
    images, videos = ([found for p in media if (found := p.of_kind(kind)) is not None] for kind in _TYPES)
    return PromptBatch(
        samples=tuple(prompt.sample for prompt in prompts),
        strips=tuple(prompt.strip_HWC for prompt in prompts),
        forest=share([_segment(prompt, starts) for prompt in prompts]),
        pictures=VisionInputs(
            image_pixels=cat_given([pixels for pixels, _ in images]),
            image_grids=cat_given([grids for _, grids in images]),
            video_pixels=cat_given([pixels for pixels, _ in videos]),
            video_grids=cat_given([grids for _, grids in videos]),
        ),
        targets=tuple(p.target_ids for p in prompts if p.target_ids is not None) or None,
        shuffled_video_pixels=cat_given([p.shuffled_pixels_PD for p in media if p.of_kind("video") is not None]),
        faults=tuple(item for item in items if isinstance(item, Fault)),
        part_sizes=part_sizes(items, parts),
    )


def part_sizes(items: Sequence[object], parts: int) -> tuple[int, ...]:
    """The numbers of prompts, which are what is no `Fault`, in each of so many equal parts of the items."""
    each = len(items) // parts
    return tuple(sum(not isinstance(item, Fault) for item in items[n * each :][:each]) for n in range(parts))


def _medium(prompt: Prompt) -> tuple[object, ...]:
    """What a prompt shows: files, how, and how many of their frames (a long question may leave room for fewer)."""
    grids = [prompt.grid_thw, prompt.video_grid_thw]
    return prompt.kind, prompt.sample.files, *(n for grid in grids if grid is not None for n in grid.flatten().tolist())


def _segment(prompt: Prompt, starts: Mapping[tuple[tuple[object, ...], str], int]) -> Segment:
    rows_L = torch.full_like(prompt.types_L, -1)
    for kind, of_kind in _TYPES.items():
        seen = prompt.types_L == of_kind
        rows_L = torch.where(seen, starts.get((_medium(prompt), kind), 0) + seen.cumsum(0) - 1, rows_L)
    return Segment(prompt.ids_L, prompt.positions_3L, rows_L)


def cat_given(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenates the tensors that are not None; None if there are none."""
    given = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(given) if given else None
