"""The vision tower: patches of images and videos → the language model's vision features.

Shape suffixes: M vision tokens of a batch, H hidden, P patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spacer.cpu.lanes import side_by_side
from spacer.cpu.products import linear
from spacer.data.processing import VisionInputs
from spacer.models.families import family_of
from spacer.models.unwrap import unwrap

PATCHES = 4096  # that go through the vision tower at once, unless one frame has more


@dataclass(frozen=True)
class VisionFeatures:
    """Features of a batch's vision tokens, images before videos: embeddings, and what further layers of the language
    model take in where the family has such (`spacer.models.families`)."""

    embeds_MH: Tensor | None = None
    deeper_MH: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> VisionFeatures:
        """The features as `tensors` gives them."""
        return cls(tensors[0], tuple(tensors[1:])) if tensors else cls()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All features."""
        return () if self.embeds_MH is None else (self.embeds_MH, *self.deeper_MH)

    @property
    def trained(self) -> bool:
        """Whether the vision tower is to have their gradient."""
        return any(x.requires_grad for x in self.tensors)

    def detach(self) -> VisionFeatures:
        """The same values, cut off from the vision tower."""
        return VisionFeatures.of([x.detach() for x in self.tensors])

    def take(self, features_N: Tensor) -> VisionFeatures:
        """Some of the features, cut off from the others: to be given a gradient, if the tower is trained."""
        return VisionFeatures.of(
            [x.detach()[features_N.to(x.device)].requires_grad_(x.requires_grad) for x in self.tensors]
        )


class PatchProjection(torch.nn.Conv3d):
    """The vision tower's first layer, whose kernel is as large as the patches that it is given, as the matrix product
    that it is: several times as fast as a convolution. Parameters keep their names and shapes."""

    @classmethod
    def of(cls, layer: torch.nn.Conv3d) -> PatchProjection:
        """The same layer, sharing its parameters."""
        with torch.device("meta"):
            made = cls(layer.in_channels, layer.out_channels, kernel_size=1, bias=False)
        made.weight, made.bias = layer.weight, layer.bias
        return made

    def forward(self, patches: Tensor) -> Tensor:
        """N x channels x frames x height x width → N x out x 1 x 1 x 1."""
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


@dataclass(frozen=True)
class Portion:
    """Pictures, or frames of a video, that go through the vision tower together."""

    video: bool
    pixels_PD: Tensor
    grids_N3: Tensor

    def tokens(self, model: Any) -> int:
        """How many features they have."""
        return int(self.grids_N3.prod(1).sum()) // unwrap(model).config.vision_config.spatial_merge_size ** 2

    def encode(self, model: Any) -> tuple[Tensor, ...]:
        """Their features, as `VisionFeatures.tensors`."""
        base = unwrap(model)
        features = base.get_video_features if self.video else base.get_image_features
        return family_of(base.config).features(features(self.pixels_PD, self.grids_N3, return_dict=True))


def encode_vision(model: Any, pictures: VisionInputs, lanes: int = 1, passes: int = 0) -> VisionFeatures:
    """Each image and video through the vision tower once, so many portions at once; `passes` as in `portions`."""
    found = side_by_side(lambda portion: portion.encode(model), portions(model, pictures, passes), lanes)
    return VisionFeatures.of([torch.cat(parts) for parts in zip(*found, strict=True)])


def portions(model: Any, pictures: VisionInputs, passes: int = 0) -> list[Portion]:
    """Images and then videos, a few thousand patches at a time: the tower attends within a frame (a pair of a video's),
    so that long videos may be cut between them.

    Where there are fewer than `passes`, blank pictures make up the number; their features come last, where no token
    stands for them.
    """
    found = _pictured(pictures)
    return found + [Portion(False, *_blank(unwrap(model)))] * (passes - len(found))


def count_passes(pictures: VisionInputs) -> int:
    """How many forward passes of the vision tower `encode_vision` takes."""
    return len(_pictured(pictures))


def _pictured(pictures: VisionInputs) -> list[Portion]:
    """Portions of what there is."""
    return [
        *(Portion(False, *part) for part in _portions(pictures.image_pixels, pictures.image_grids)),
        *(Portion(True, *part) for part in _portions(pictures.video_pixels, pictures.video_grids)),
    ]


def _blank(base: Any) -> tuple[Tensor, Tensor]:
    """The smallest picture there is, of one token, as patches and grid."""
    vision = base.config.vision_config
    side, device = vision.spatial_merge_size, base.lm_head.weight.device
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return torch.zeros(side**2, values, device=device), torch.tensor([[1, side, side]], device=device)


def _portions(pixels: Tensor | None, grids: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole pictures, as many as `PATCHES` allow; a video that has more by itself in even parts of its frames."""
    if pixels is None or grids is None:
        return
    parts = [part for grid in grids.tolist() for part in _cut(*grid)]
    patches = [frames * height * width for frames, height, width in parts]
    first = start = stop = 0
    for place, count in enumerate(patches):
        if place > first and stop + count - start > PATCHES:
            yield pixels[start:stop], grids.new_tensor(parts[first:place])
            first, start = place, stop
        stop += count
    yield pixels[start:stop], grids.new_tensor(parts[first:])


def _cut(frames: int, height: int, width: int) -> list[tuple[int, int, int]]:
    """Grids of a picture's parts, each of at most `PATCHES` patches or of one frame."""
    at_most = max(1, PATCHES // (height * width))
    count = -(-frames // at_most)
    return [((frames * (n + 1)) // count - (frames * n) // count, height, width) for n in range(count)]
