"""A video or images → the model's input for them, shared by all questions about them.

The processor runs once per medium, without a question. The tokens that it expands the media into are then inserted
into each question's tokens. This is exact, since the marks around media are special tokens, which never merge with
their neighbours; the timestamp at the start of a video in Qwen3-VL's prompts is tokenized with the text before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.video_utils import VideoMetadata

from spacer.config.families import Time, family_of
from spacer.config.settings import DatasetSettings, VideoSettings
from spacer.data.captions import Caption, interleave
from spacer.data.strips import strip_of
from spacer.data.tokens import control_tokens, encode
from spacer.data.video import Video
from spacer.errors import SampleError, UserError
from spacer.tree.mrope import TEXT

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

START, END = "<|vision_start|>", "<|vision_end|>"
PADS = ("<|image_pad|>", "<|video_pad|>")  # placeholders between the two, which the processor expands
_SMALLEST = 4  # tokens per picture; the processor enlarges smaller ones to this


@dataclass(frozen=True)
class ProcessedMedia:
    """Processed media: tokens from the first mark to the last and their types, patches, grids (t, h, w) in patches.

    `content` lists the prompt's content in order: None for a medium of this `kind` (image or video), or text between
    media; `plain_L` are its tokens before the processor expands the placeholders. `seconds` is the duration of a
    temporal step of each video, if the model family encodes time in positions. `strip_HWC` (uint8) shows a few of the
    pictures, small and side by side, for people.
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
    at: tuple[float, ...] = ()  # seconds of the video at which each of its frames was taken
    lead: str = ""  # text that the processor puts before the first mark: the time of the first frames of Qwen3-VL
    lead_tokens: int = 0  # of a prompt, tokenized with what stands before

    @property
    def length(self) -> int:
        """Tokens in a prompt."""
        return self.lead_tokens + len(self.ids_L)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.pixels_PD.nbytes + self.strip_HWC.nbytes


def show_video(video: Video, processor: Qwen2_5_VLProcessor, settings: VideoSettings) -> ProcessedMedia:
    """A video's sampled frames, at their own times.

    Raises:
        SampleError: they are too narrow for the processor.
        UserError: the chat template has text before the video that merges with its first token.
    """
    chat = _chat(processor, "video", (None,))
    inputs = _process_video(processor, chat, video.frames_THWC, video, settings)
    told = family_of(processor).time == Time.seconds
    seconds = tuple(float(s) for s in inputs["second_per_grid_ts"]) if told else ()
    tokens = _between(inputs, chat, processor)
    patches, grids = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    plain_L, ids_L, types_L = tokens
    count, _ = _marks(ids_L, processor)
    return ProcessedMedia(
        *("video", (None,), plain_L, ids_L[count:], types_L[count:], patches, grids, seconds),
        strip_of(video.frames_THWC),
        lead=processor.tokenizer.decode(ids_L[:count]),
        lead_tokens=count,
    )


def show_captioned(
    video: Video, captions: Sequence[Caption], processor: Qwen2_5_VLProcessor, settings: VideoSettings
) -> ProcessedMedia:
    """A video's sampled frames as a sequence of images, interleaved with its subtitles.

    Raises:
        SampleError: a caption spells out a control token.
    """
    said = "\n".join(caption.text for caption in captions)
    if token := next((token for token in control_tokens(processor.tokenizer) if token in said), None):
        raise SampleError(f"a caption spells out the control token {token}, which only the chat template may set")
    woven = interleave(video.times, captions)
    content = tuple(None if isinstance(item, int) else f"{item}\n" for item in woven)
    frames = [Image.fromarray(frame) for frame in video.frames_THWC]
    strip = strip_of(video.frames_THWC)
    return _as_images(frames, content, processor, settings.max_pixels, strip, least=settings.min_pixels)


def show_images(
    images: Sequence[Image.Image], processor: Qwen2_5_VLProcessor, settings: DatasetSettings
) -> ProcessedMedia:
    """One image or several, in order.

    Raises:
        SampleError: one is too narrow for the processor.
        UserError: the chat template has text before the images that merges with their first token.
    """
    return _as_images(images, (None,) * len(images), processor, settings.image_max_pixels, strip_of(images))


def shuffled_pixels(
    video: Video, processor: Qwen2_5_VLProcessor, settings: VideoSettings, rng: np.random.Generator
) -> Tensor:
    """The patches of the frames in random order, with the times of the ordered ones (T-GRPO)."""
    order = rng.permutation(len(video.frames_THWC))
    chat = _chat(processor, "video", (None,))
    pixels: Tensor = _process_video(processor, chat, video.frames_THWC[order], video, settings)["pixel_values_videos"]
    return pixels


def asked(
    chat: str, shown: Sequence[ProcessedMedia], processor: Qwen2_5_VLProcessor, data: Sequence[range] = ()
) -> tuple[Tensor, Tensor]:
    """Ids and types of a prompt: the chat's tokens, with the placeholders of media replaced by the processed
    media, in order.

    `data` are the spans of the chat in which control tokens are plain text (`spacer.data.tokens.encode`).

    Raises:
        UserError: the chat's media marks are not those of `shown`.
    """
    chat, data = _led(chat, shown, data)
    ids_L = torch.tensor(encode(processor.tokenizer, chat, data))
    marks = torch.tensor(processor.tokenizer.convert_tokens_to_ids([START, *PADS, END]))
    places_M = torch.isin(ids_L, marks).nonzero()[:, 0].tolist()
    counts = [int(torch.isin(item.plain_L, marks).sum()) for item in shown]
    ids: list[Tensor] = []
    types: list[Tensor] = []
    at = taken = 0
    fits = len(places_M) == sum(counts)
    for item, count in zip(shown, counts, strict=True):
        if not fits:
            break
        first, last = places_M[taken], places_M[taken + count - 1]
        fits = torch.equal(ids_L[first : last + 1], item.plain_L)
        ids += [ids_L[at:first], item.ids_L]
        types += [torch.full_like(ids_L[at:first], TEXT), item.types_L]
        at, taken = last + 1, taken + count
    if not fits:
        raise UserError(
            f"prompts have {len(places_M)} media marks, such as {START}, but the media have {sum(counts)}: leave "
            "them out of the prompt `system`, and, except around media, out of the model's chat template"
        )
    rest = ids_L[at:]
    return torch.cat([*ids, rest]), torch.cat([*types, torch.full_like(rest, TEXT)])


def _led(chat: str, shown: Sequence[ProcessedMedia], data: Sequence[range]) -> tuple[str, list[range]]:
    """The chat with each medium's `lead` before its first mark, and where data stand in it then."""
    starts = [match.start() for match in re.finditer(re.escape(START), chat)]
    starts = [start for start in starts if not any(start in span for span in data)]
    moved = list(data)
    taken = grown = 0
    for item in shown:
        if item.lead and taken < len(starts):
            at, more = starts[taken] + grown, len(item.lead)
            chat = chat[:at] + item.lead + chat[at:]
            grown += more
            moved = [range(s.start + more, s.stop + more) if s.start >= at else s for s in moved]
        taken += sum(text is None for text in item.content)
    return chat, moved


def parts(kind: str, content: Sequence[str | None]) -> list[dict[str, str]]:
    """`ProcessedMedia.content` in the format of chat templates."""
    return [{"type": kind} if text is None else {"type": "text", "text": text} for text in content]


def _chat(processor: Qwen2_5_VLProcessor, kind: str, content: Sequence[str | None]) -> Any:
    turn: Any = {"role": "user", "content": parts(kind, content)}
    return processor.apply_chat_template([turn])


def _between(inputs: Any, chat: str, processor: Qwen2_5_VLProcessor) -> tuple[Tensor, Tensor, Tensor]:
    """The chat's tokens from the first mark to the last; the processor's expansion of them; and its token types."""
    ids_L, types_L = inputs["input_ids"][0], inputs["mm_token_type_ids"][0]
    plain_L = torch.tensor(processor.tokenizer(chat)["input_ids"])
    first, last = _marks(plain_L, processor)
    start, stop = first, len(ids_L) - (len(plain_L) - last - 1)
    if not (torch.equal(ids_L[:start], plain_L[:first]) and torch.equal(ids_L[stop:], plain_L[last + 1 :])):
        raise UserError(
            "the model's chat template has text before a medium that merges with its first token: put a newline there"
        )
    return plain_L[first : last + 1].clone(), ids_L[start:stop].clone(), types_L[start:stop].clone()


def _marks(ids_L: Tensor, processor: Qwen2_5_VLProcessor) -> tuple[int, int]:
    """The indices of the first start mark and the last end mark of media."""
    start, end = processor.tokenizer.convert_tokens_to_ids([START, END])
    return int((ids_L == start).nonzero()[0, 0]), int((ids_L == end).nonzero()[-1, 0])


def _as_images(
    images: Sequence[Image.Image],
    content: tuple[str | None, ...],
    processor: Qwen2_5_VLProcessor,
    most: int,
    strip_HWC: np.ndarray,
    *,
    least: int | None = None,
) -> ProcessedMedia:
    """Images of `least` to `most` pixels each, at their places in the content."""
    chat = _chat(processor, "image", content)
    bounds = image_bounds(processor, most, least)
    inputs = processed(processor, text=[chat], images=list(images), images_kwargs=bounds)
    tokens = _between(inputs, chat, processor)
    return ProcessedMedia("image", content, *tokens, inputs["pixel_values"], inputs["image_grid_thw"], (), strip_HWC)


def _smallest(processor: Qwen2_5_VLProcessor) -> int:
    """Pixels of the smallest picture. A token covers patch_size * merge_size pixels in each direction."""
    images = processor.image_processor
    return _SMALLEST * int(images.patch_size * images.merge_size) ** 2


def _process_video(
    processor: Qwen2_5_VLProcessor, chat: str, frames_THWC: np.ndarray, video: Video, settings: VideoSettings
) -> Any:
    bounds = {**video_bounds(processor, len(frames_THWC), settings), "video_metadata": [metadata_of(video)]}
    videos = [as_channels_first(frames_THWC)]
    return processed(processor, text=[as_trained(chat, processor)], videos=videos, videos_kwargs=bounds)


def as_trained(chat: str, processor: Any) -> str:
    """The chat with a video's marks as the family was trained."""
    if family_of(processor).time == Time.text:
        # as in the authors' code and in transformers before 5: only each pair of frames has marks around it
        return chat.replace(f"{START}{PADS[1]}{END}", PADS[1])
    return chat


def video_bounds(processor: Any, count: int, settings: VideoSettings) -> dict[str, Any]:
    """The processor's options for a video of `count` frames that are sampled already."""
    bounded = count if family_of(processor).bounds_whole_videos else 1
    least, most = settings.min_pixels or _smallest(processor), settings.max_pixels
    return {
        "size": {"shortest_edge": bounded * least, "longest_edge": bounded * most},
        "do_sample_frames": False,
        "cap_pixels_per_frame": False,  # `size` already bounds each frame
    }


def image_bounds(processor: Any, most: int, least: int | None = None) -> dict[str, Any]:
    """The processor's options for images of at most so many pixels each."""
    return {"size": {"shortest_edge": least or _smallest(processor), "longest_edge": most}}


def metadata_of(video: Video) -> VideoMetadata:
    """When a video's frames were taken, for processors, which compute a frame's time as index / fps, and the time step
    as total / (count · fps)."""
    count, height, width = video.frames_THWC.shape[:3]
    times: Any = list(video.times)
    return VideoMetadata(
        total_num_frames=count * video.step,
        fps=1.0,
        duration=video.seconds,
        frames_indices=times,
        height=height,
        width=width,
    )


def as_channels_first(frames_THWC: np.ndarray) -> Tensor:
    """Frames as processors take them, TCHW."""
    return torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)


def processed(processor: Any, **inputs: Any) -> Any:
    """Runs the processor. That it works in general was checked before (`spacer.data.trial`).

    Raises:
        SampleError: the processor rejects these media, e.g. because they are too narrow.
    """
    try:
        return processor(**inputs, return_tensors="pt")
    except ValueError as error:
        raise SampleError(str(error)) from error
