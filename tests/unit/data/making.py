"""Samples, prompts and data sets made by hand, and what can be read off their batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spacer.config.settings import VideoSettings
from spacer.data.loading import SampleDraw
from spacer.data.processing import Prompt, PromptBatch, VisionInputs, collate
from spacer.data.samples import Sample
from spacer.data.video import Video
from spacer.errors import MediaError
from spacer.tree.mrope import IMAGE, TEXT, VIDEO, PositionRule

MERGE = 2  # patches joined along each side of a vision token
RULE = PositionRule(merge=MERGE, tokens_per_second=2.0, split_frames=False)
OPENING, SEEN = 1, 7  # ids of the token before a picture and of those in its place


def sample(identity: str = "0", **changes: Any) -> Sample:
    """A question about a video, one that counts unless `changes` say otherwise."""
    values: dict[str, Any] = {
        "id": identity,
        "problem": "How many?",
        "problem_type": "numerical",
        "options": (),
        "solution": "3",
        "data_type": "video",
        "path": Path("/none.mp4"),
        "source": "rooms",
        "scene": "s",
        "question_type": "object_counting",
        "reasoning": None,
        "true_map": None,
    }
    return Sample(**{**values, **changes})


def words(ids: Sequence[int], **changes: Any) -> Prompt:
    """A prompt of the given tokens, without a picture."""
    values: dict[str, Any] = {
        "sample": sample(str(ids[0]), data_type="text", path=Path(str(ids[0]))),
        "kind": "text",
        "ids_L": torch.tensor(ids),
        "types_L": torch.zeros(len(ids), dtype=torch.long),
        "positions_3L": torch.arange(len(ids)) + torch.tensor([[0], [1000], [2000]]),
        "pixels_PD": None,
        "grid_thw": None,
        "target_ids": None,
        "strip_HWC": np.full((1, 1, 3), ids[0], np.uint8),
    }
    return Prompt(**{**values, **changes})


def about(file: str, ids: Sequence[int], *, mark: float, wide: int = 1, **changes: Any) -> Prompt:
    """`ids` asked after the image (.png) or video in `file`: `wide` tokens, whose patches are mark, mark + 1 …"""
    kind = "image" if file.endswith(".png") else "video"
    whole = [OPENING, *[SEEN] * wide, *ids]
    types = torch.full((len(whole),), TEXT)
    types[1 : 1 + wide] = IMAGE if kind == "image" else VIDEO
    values: dict[str, Any] = {
        "sample": sample(str(ids[0]), data_type=kind, path=Path(file)),
        "kind": kind,
        "types_L": types,
        "pixels_PD": (mark + torch.arange(wide)).repeat_interleave(MERGE**2)[:, None].expand(-1, 2),
        "grid_thw": torch.tensor([[1, MERGE, MERGE * wide]]),
        "strip_HWC": np.full((1, 1, 3), ids[0], np.uint8),
    }
    return words(whole, **{**values, **changes})


class Numbered:
    """Stands in for `PromptDataset`: a prompt says which sample it is and at which position it was used.

    `each` samples running are about one file.
    """

    def __init__(self, count: int, workers: int = 1, each: int = 4) -> None:
        self.samples = [sample(str(number), path=Path(f"/{number // each}.mp4")) for number in range(count)]
        self.workers = workers

    def __len__(self) -> int:
        return len(self.samples)

    def collate(self, items: Any, parts: int = 1) -> PromptBatch:
        return collate(items, parts)

    def __getitem__(self, use: SampleDraw) -> Prompt:
        return words([use.position], sample=self.samples[use.index])


def clip(frames_THWC: np.ndarray, indices: Sequence[int], total_frames: int, fps: float) -> Video:
    """A video of which frames at these indices were sampled, evenly."""
    times = tuple(index / fps for index in indices)
    return Video(frames_THWC, times, total_frames / len(indices) / fps, total_frames / fps)


class Decoder:
    """Stands in for `read_video` and counts: two seconds of noise, 56 pixels wide and high, or a broken file."""

    def __init__(self) -> None:
        self.decoded: Counter[str] = Counter()

    def __call__(self, path: Path, settings: VideoSettings) -> Video:
        self.decoded[path.stem] += 1
        if path.stem == "broken":
            raise MediaError(f"{path}: cannot be decoded: {self.decoded[path.stem]}")
        frames = np.random.default_rng(list(path.stem.encode())).integers(0, 256, (4, 56, 56, 3), np.uint8)
        return clip(frames, (0, 2, 4, 6), 8, 4.0)


def shown(batch: PromptBatch, pictures: VisionInputs | None = None) -> list[Tensor]:
    """For each prompt, the patches (tokens, 4, D) that its `vision_L` leads to: rows are those of images, then videos.

    Of `pictures`, if given, instead of the batch's own.
    """
    found = pictures or batch.pictures
    patches = [pixels for pixels in (found.image_pixels, found.video_pixels) if pixels is not None]
    features = torch.cat(patches).unflatten(0, (-1, MERGE**2))
    rows = [batch.forest.prompt(n).vision_L for n in range(len(batch.samples))]
    return [features[vision_L[vision_L >= 0]] for vision_L in rows]
