"""The supported model families, as far as data and configuration have to know them. Imports nothing heavy.

The code that computes a family's models is in `spacer/models/families/`, in a module with the name of its `model_type`;
sizes of patches and layers and the numbers of tokens are read from a model's own configuration and processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Time(StrEnum):
    """How a prompt encodes the times of a video's frames."""

    steps = "steps"  # not at all: positions count frame pairs
    seconds = "seconds"  # positions advance with the seconds between frame pairs
    text = "text"  # as text before each frame pair, which is then a block of its own between markers


@dataclass(frozen=True)
class Family:
    """A model family, by its names in transformers.

    `token_px` is the side in pixels that a vision token covers in the published models. `bounds_whole_videos` says
    whether the video processor's pixel bounds apply to all frames together rather than to each.
    """

    name: str
    model_type: str
    processor: str
    time: Time
    token_px: int
    bounds_whole_videos: bool = False


FAMILIES = {
    family.model_type: family
    for family in (
        Family("Qwen2-VL", "qwen2_vl", "Qwen2VLProcessor", Time.steps, token_px=28),
        Family("Qwen2.5-VL", "qwen2_5_vl", "Qwen2_5_VLProcessor", Time.seconds, token_px=28),
        Family("Qwen3-VL", "qwen3_vl", "Qwen3VLProcessor", Time.text, token_px=32, bounds_whole_videos=True),
    )
}
NAMES = ", ".join(f"{family.name} ({model_type})" for model_type, family in FAMILIES.items())
SMALLEST_TOKEN_PX = min(family.token_px for family in FAMILIES.values())


def family_of(processor: Any) -> Family:
    """The family of a processor, determined by its class, or else by the nearest class that it derives from.

    Raises:
        ValueError: it belongs to no supported family.
    """
    of_class = {family.processor: family for family in reversed(FAMILIES.values())}
    for kind in type(processor).__mro__:
        if kind.__name__ in of_class:
            return of_class[kind.__name__]
    raise ValueError(f"{type(processor).__name__} is the processor of no supported family: {NAMES}")
