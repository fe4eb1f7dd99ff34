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

from spacer.data.decode import Video
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

    `seconds` is what one step in time stands for, for a video. `frame_HWC` (uint8) is one picture, for people.
    """

    ids_L: Tensor
    types_L: Tensor
    pixels_PD: Tensor
    grids: Tensor
    seconds: tuple[float, ...]
    frame_HWC: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.pixels_PD.nbytes + self.frame_HWC.nbytes


def show_video(video: Video, processor: Qwen2_5_VLProcessor, settings: VideoSettings) -> Shown:
    """A video's sampled frames, at their own times."""
    chat = _chat(processor, ["video"])
    inputs = _process_video(processor, chat, video.frames_THWC, video, settings)
    ids_L, types_L = _between(inputs["input_ids"][0], inputs["mm_token_type_ids"][0], chat, processor)
    frame = video.frames_THWC[len(video.frames_THWC) // 2].copy()  # a view would keep all frames alive
    seconds = tuple(float(s) for s in inputs["second_per_grid_ts"])
    return Shown(ids_L, types_L, inputs["pixel_values_videos"], inputs["video_grid_thw"], seconds, frame)


def show_images(images: Sequence[Image.Image], processor: Qwen2_5_VLProcessor, settings: DatasetSettings) -> Shown:
    """One image or several, in their order."""
    chat = _chat(processor, ["image"] * len(images))
    size = {"shortest_edge": _SMALLEST, "longest_edge": settings.image_max_pixels}
    inputs = processor(text=[chat], images=list(images), images_kwargs={"size": size}, return_tensors="pt")
    ids_L, types_L = _between(inputs["input_ids"][0], inputs["mm_token_type_ids"][0], chat, processor)
    return Shown(ids_L, types_L, inputs["pixel_values"], inputs["image_grid_thw"], (), np.asarray(images[0]))


def shuffled_pixels(
    video: Video, processor: Qwen2_5_VLProcessor, settings: VideoSettings, rng: np.random.Generator
) -> Tensor:
    """The patches of the frames in an order that is drawn, at the times of the ordered ones (T-GRPO)."""
    order = rng.permutation(len(video.frames_THWC))
    chat = _chat(processor, ["video"])
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
    if int(torch.isin(ids_L, marks).sum()) != last - first + 1 or last - first + 1 != 3 * len(shown.grids):
        raise ValueError(f"the question holds marks of media, such as {START}, which only the template may set")
    types_L = torch.full_like(ids_L, TEXT)
    return (
        torch.cat([ids_L[:first], shown.ids_L, ids_L[last + 1 :]]),
        torch.cat([types_L[:first], shown.types_L, types_L[last + 1 :]]),
    )


def _chat(processor: Qwen2_5_VLProcessor, media: list[str]) -> Any:
    turn: Any = {"role": "user", "content": [{"type": kind} for kind in media]}
    return processor.apply_chat_template([turn])


def _between(ids_L: Tensor, types_L: Tensor, chat: str, processor: Qwen2_5_VLProcessor) -> tuple[Tensor, Tensor]:
    """What the processor has put in the place of the media, marks included."""
    plain_L = torch.tensor(processor.tokenizer(chat)["input_ids"])
    first, last = _marks(plain_L, processor)
    start, stop = first, len(ids_L) - (len(plain_L) - last - 1)
    assert torch.equal(ids_L[:start], plain_L[:first]) and torch.equal(ids_L[stop:], plain_L[last + 1 :])
    return ids_L[start:stop].clone(), types_L[start:stop].clone()


def _marks(ids_L: Tensor, processor: Qwen2_5_VLProcessor) -> tuple[int, int]:
    """Where the first mark of a medium begins and the last ends."""
    start, end = processor.tokenizer.convert_tokens_to_ids([START, END])
    return int((ids_L == start).nonzero()[0, 0]), int((ids_L == end).nonzero()[-1, 0])


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
    most = settings.max_pixels
    if settings.max_side is not None and max(height, width) > settings.max_side:
        scale = settings.max_side / max(height, width)
        most = min(most, max(_SMALLEST, int(height * scale * width * scale)))
    video_settings = {
        "size": {"shortest_edge": _SMALLEST, "longest_edge": most},
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
