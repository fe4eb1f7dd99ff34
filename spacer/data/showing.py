"""A video or images → what a model sees of them, the same for every question about them.

The processor meets each medium once, with no question. The tokens that it puts in the place of the media then go into
each question's own tokens. That is exact, since the marks around media are special tokens, which no other token joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.video_utils import VideoMetadata

from spacer.data.captions import Caption, interleave
from spacer.data.decode import Video
from spacer.data.strips import strip_of
from spacer.positions import TEXT
from spacer.settings import DatasetSettings, VideoSettings

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

START, END = "<|vision_start|>", "<|vision_end|>"
PADS = ("<|image_pad|>", "<|video_pad|>")  # what stands between the two until the processor has filled it
_SMALLEST = 4 * 28 * 28  # pixels of a picture, which the processor enlarges smaller ones to


@dataclass(frozen=True)
class Shown:
    """Media made ready: tokens from the first mark to the last and their types, patches, grids (t, h, w) in patches.

    `content` is what stands in a prompt, in order: None for a medium of this `kind` (image or video), or text between
    them; `plain_L` is how it is tokenized before the processor fills it. `seconds` is what one step in time stands for,
    for a video. `strip_HWC` (uint8) is a few of the pictures, small and side by side, for people.
    """

    kind: str
    content: tuple[str | None, ...]
    plain_L: Tensor
    ids_L: Tensor
    types_L: Tensor
    pixels_PD: Tensor
    grids: Tensor
    seconds: tuple[float, ...]
    strip_HWC: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.pixels_PD.nbytes + self.strip_HWC.nbytes


def show_video(video: Video, processor: Qwen2_5_VLProcessor, settings: VideoSettings) -> Shown:
    """A video's sampled frames, at their own times."""
    chat = _chat(processor, "video", (None,))
    inputs = _process_video(processor, chat, video.frames_THWC, video, settings)
    seconds = tuple(float(s) for s in inputs["second_per_grid_ts"])
    tokens = _between(inputs, chat, processor)
    patches, grids = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    return Shown("video", (None,), *tokens, patches, grids, seconds, strip_of(video.frames_THWC))


def show_captioned(
    video: Video, captions: Sequence[Caption], processor: Qwen2_5_VLProcessor, settings: VideoSettings
) -> Shown:
    """A video's sampled frames as images in their order, with what is said between them.

    Raises:
        ValueError: a caption holds marks of media.
    """
    if any(mark in caption.text for caption in captions for mark in (START, *PADS, END)):
        raise ValueError(f"a caption holds marks of media, such as {START}")
    woven = interleave([index / video.fps for index in video.indices], captions)
    content = tuple(None if isinstance(item, int) else f"{item}\n" for item in woven)
    frames = [Image.fromarray(frame) for frame in video.frames_THWC]
    height, width = video.frames_THWC.shape[1:3]
    return _as_images(frames, content, processor, _most_pixels(height, width, settings), strip_of(video.frames_THWC))


def show_images(images: Sequence[Image.Image], processor: Qwen2_5_VLProcessor, settings: DatasetSettings) -> Shown:
    """One image or several, in their order."""
    return _as_images(images, (None,) * len(images), processor, settings.image_max_pixels, strip_of(images))


def shuffled_pixels(
    video: Video, processor: Qwen2_5_VLProcessor, settings: VideoSettings, rng: np.random.Generator
) -> Tensor:
    """The patches of the frames in an order that is drawn, at the times of the ordered ones (T-GRPO)."""
    order = rng.permutation(len(video.frames_THWC))
    chat = _chat(processor, "video", (None,))
    pixels: Tensor = _process_video(processor, chat, video.frames_THWC[order], video, settings)["pixel_values_videos"]
    return pixels


def asked(chat: str, shown: Shown, processor: Qwen2_5_VLProcessor) -> tuple[Tensor, Tensor]:
    """Ids and types of a prompt: the chat's tokens, with what is shown in the place of its media.

    Raises:
        ValueError: the question itself holds marks of media.
    """
    ids_L = torch.tensor(processor.tokenizer(chat)["input_ids"])
    first, last = _marks(ids_L, processor)
    marks = torch.tensor(processor.tokenizer.convert_tokens_to_ids([START, *PADS, END]))
    count = int(torch.isin(ids_L, marks).sum())
    if count != 3 * len(shown.grids) or not torch.equal(ids_L[first : last + 1], shown.plain_L):
        raise ValueError(f"the question holds marks of media, such as {START}, which only the template may set")
    types_L = torch.full_like(ids_L, TEXT)
    return (
        torch.cat([ids_L[:first], shown.ids_L, ids_L[last + 1 :]]),
        torch.cat([types_L[:first], shown.types_L, types_L[last + 1 :]]),
    )


def parts(kind: str, content: Sequence[str | None]) -> list[dict[str, str]]:
    """`Shown.content` as a chat template takes it."""
    return [{"type": kind} if text is None else {"type": "text", "text": text} for text in content]


def _chat(processor: Qwen2_5_VLProcessor, kind: str, content: Sequence[str | None]) -> Any:
    turn: Any = {"role": "user", "content": parts(kind, content)}
    return processor.apply_chat_template([turn])


def _between(inputs: Any, chat: str, processor: Qwen2_5_VLProcessor) -> tuple[Tensor, Tensor, Tensor]:
    """The chat's tokens from the first mark to the last; what the processor has put in their place, and its types."""
    ids_L, types_L = inputs["input_ids"][0], inputs["mm_token_type_ids"][0]
    plain_L = torch.tensor(processor.tokenizer(chat)["input_ids"])
    first, last = _marks(plain_L, processor)
    start, stop = first, len(ids_L) - (len(plain_L) - last - 1)
    assert torch.equal(ids_L[:start], plain_L[:first]) and torch.equal(ids_L[stop:], plain_L[last + 1 :])
    return plain_L[first : last + 1].clone(), ids_L[start:stop].clone(), types_L[start:stop].clone()


def _marks(ids_L: Tensor, processor: Qwen2_5_VLProcessor) -> tuple[int, int]:
    """Where the first mark of a medium begins and the last ends."""
    start, end = processor.tokenizer.convert_tokens_to_ids([START, END])
    return int((ids_L == start).nonzero()[0, 0]), int((ids_L == end).nonzero()[-1, 0])


def _as_images(
    images: Sequence[Image.Image],
    content: tuple[str | None, ...],
    processor: Qwen2_5_VLProcessor,
    most: int,
    strip_HWC: np.ndarray,
) -> Shown:
    """Images of at most so many pixels each, in their places among the content."""
    chat = _chat(processor, "image", content)
    size = {"shortest_edge": _SMALLEST, "longest_edge": most}
    inputs = processor(text=[chat], images=list(images), images_kwargs={"size": size}, return_tensors="pt")
    tokens = _between(inputs, chat, processor)
    return Shown("image", content, *tokens, inputs["pixel_values"], inputs["image_grid_thw"], (), strip_HWC)


def _most_pixels(height: int, width: int, settings: VideoSettings) -> int:
    """The bound on a frame's pixels that keeps its longer side, too, within its bound."""
    if settings.max_side is None or max(height, width) <= settings.max_side:
        return settings.max_pixels
    scale = settings.max_side / max(height, width)
    return min(settings.max_pixels, max(_SMALLEST, int(height * scale * width * scale)))


def _process_video(
    processor: Qwen2_5_VLProcessor, chat: str, frames_THWC: np.ndarray, video: Video, settings: VideoSettings
) -> Any:
    height, width = frames_THWC.shape[1:3]
    metadata = VideoMetadata(
        total_num_frames=video.total_frames,
        fps=video.fps,
        duration=video.total_frames / video.fps,
        frames_indices=list(video.indices),
        height=height,
        width=width,
    )
    video_settings = {
        "size": {"shortest_edge": _SMALLEST, "longest_edge": _most_pixels(height, width, settings)},
        "do_sample_frames": False,  # decord sampled them
        "cap_pixels_per_frame": False,  # the bound is one of a frame
        "video_metadata": [metadata],
    }
    return processor(
        text=[chat],
        videos=[torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)],
        videos_kwargs=video_settings,
        return_tensors="pt",
    )
