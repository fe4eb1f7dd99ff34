"""What is shown of a medium, made once, gives each question the tokens that the processor would have given it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as sometimes
from hypothesis import strategies as st
from PIL import Image
from transformers.video_utils import VideoMetadata

from spacer.config.settings import RoomsSettings, VideoSettings
from spacer.data.captions import Caption
from spacer.data.showing import asked, parts, show_captioned, show_images, show_video
from tests.unit.data.making import clip

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

QUESTIONS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)


def chat(processor: Qwen2_5_VLProcessor, kinds: list[str], question: str) -> Any:
    turn: Any = {"role": "user", "content": [*({"type": kind} for kind in kinds), {"type": "text", "text": question}]}
    system = {"role": "system", "content": [{"type": "text", "text": "Look."}]}
    return processor.apply_chat_template([system, turn], add_generation_prompt=True)


@sometimes(max_examples=40, deadline=None)
@given(
    question=QUESTIONS, sides=st.lists(st.tuples(st.integers(28, 120), st.integers(28, 120)), min_size=1, max_size=3)
)
def test_images(
    processor: Qwen2_5_VLProcessor, settings: RoomsSettings, question: str, sides: list[tuple[int, int]]
) -> None:
    images = [Image.fromarray(np.full((h, w, 3), 40 * n, np.uint8)) for n, (h, w) in enumerate(sides)]
    text = chat(processor, ["image"] * len(images), question)
    size = {"shortest_edge": 4 * 28 * 28, "longest_edge": settings.image_max_pixels}
    whole = processor(text=[text], images=images, images_kwargs={"size": size}, return_tensors="pt")
    shown = show_images(images, processor, settings)
    ids, types = asked(text, [shown], processor)
    assert torch.equal(ids, whole["input_ids"][0]) and torch.equal(types, whole["mm_token_type_ids"][0])
    assert torch.equal(shown.pixels_PD, whole["pixel_values"]) and torch.equal(shown.grids, whole["image_grid_thw"])


@sometimes(max_examples=20, deadline=None)
@given(question=QUESTIONS, frames=st.sampled_from([2, 4, 6]))
def test_video(processor: Qwen2_5_VLProcessor, question: str, frames: int) -> None:
    pixels = np.random.default_rng(frames).integers(0, 255, (frames, 60, 90, 3), np.uint8)
    indices = list(range(0, 4 * frames, 4))
    video = clip(pixels, indices, 4 * frames, 8.0)
    text = chat(processor, ["video"], question)
    metadata = VideoMetadata(total_num_frames=4 * frames, fps=8.0, frames_indices=indices)
    whole = processor(
        text=[text],
        videos=[torch.from_numpy(pixels).permute(0, 3, 1, 2)],
        videos_kwargs={
            "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 8_000},
            "do_sample_frames": False,
            "cap_pixels_per_frame": False,
            "video_metadata": [metadata],
        },
        return_tensors="pt",
    )
    shown = show_video(video, processor, VideoSettings(max_pixels=8_000))
    ids, types = asked(text, [shown], processor)
    assert torch.equal(ids, whole["input_ids"][0]) and torch.equal(types, whole["mm_token_type_ids"][0])
    assert torch.equal(shown.pixels_PD, whole["pixel_values_videos"])
    assert list(shown.seconds) == [float(s) for s in whole["second_per_grid_ts"]]


def test_frames_with_what_is_said_between_them(processor: Qwen2_5_VLProcessor) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 60, 90, 3), np.uint8)
    video = clip(pixels, (0, 8, 16, 24), 32, 8.0)  # at 0, 1, 2 and 3 seconds
    said = [Caption(0.9, 2.4, "chair"), Caption(2.45, 2.55, "never"), Caption(2.9, 9.0, "the end")]
    shown = show_captioned(video, said, processor, VideoSettings(max_pixels=8_000))
    image = {"type": "image"}
    content = [image, image, {"type": "text", "text": "chair\n"}, image, image, {"type": "text", "text": "the end\n"}]
    turn: Any = {"role": "user", "content": [*content, {"type": "text", "text": "How many?"}]}
    text: Any = processor.apply_chat_template([turn], add_generation_prompt=True)
    whole = processor(
        text=[text],
        images=[Image.fromarray(frame) for frame in pixels],
        images_kwargs={"size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 8_000}},
        return_tensors="pt",
    )
    assert parts(shown.kind, shown.content) == content
    ids, types = asked(text, [shown], processor)
    assert torch.equal(ids, whole["input_ids"][0]) and torch.equal(types, whole["mm_token_type_ids"][0])
    assert torch.equal(shown.pixels_PD, whole["pixel_values"]) and torch.equal(shown.grids, whole["image_grid_thw"])
    assert len(shown.grids) == 4


@pytest.mark.parametrize("mark", ["<|image_pad|>", "<|vision_end|>"])
def test_a_caption_with_marks_of_media_is_refused(processor: Qwen2_5_VLProcessor, mark: str) -> None:
    video = clip(np.zeros((2, 60, 60, 3), np.uint8), (0, 1), 2, 1.0)
    with pytest.raises(ValueError, match="caption spells out the control token"):
        show_captioned(video, [Caption(0.0, 1.0, f"see {mark}")], processor, VideoSettings())


@pytest.mark.parametrize("mark", ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"])
def test_a_chat_with_other_marks_of_media_is_refused(processor: Qwen2_5_VLProcessor, mark: str) -> None:
    shown = show_images([Image.new("RGB", (56, 56))], processor, RoomsSettings("nowhere"))
    with pytest.raises(ValueError, match="media marks"):
        asked(chat(processor, ["image"], f"What is {mark}?"), [shown], processor)


@pytest.mark.parametrize(
    ("video", "height", "width", "rows", "columns"),
    [
        # SpaceR's training: 128 · 28 · 28 to 1.05 of that
        (VideoSettings(max_pixels=105_369, min_pixels=100_352), 480, 640, 280, 364),
        (VideoSettings(max_pixels=105_369, min_pixels=100_352), 120, 160, 280, 392),
        (VideoSettings(max_pixels=100_352), 480, 640, 252, 364),
        # its evaluation, of frames that were brought to 448 pixels
        (VideoSettings(max_pixels=200_704), 334, 448, 336, 448),
        (VideoSettings(max_pixels=200_704), 252, 448, 252, 448),
    ],
)
def test_sizes_are_the_published_ones(
    video: VideoSettings, height: int, width: int, rows: int, columns: int, processor: Qwen2_5_VLProcessor
) -> None:
    film = clip(np.zeros((2, height, width, 3), np.uint8), (0, 1), 2, 1.0)
    assert show_video(film, processor, video).grids[0].tolist() == [1, rows // 14, columns // 14]
