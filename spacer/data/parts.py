"""Parts of a batch: some of its prompts, with the pictures that they show.

Shape suffixes: L tokens of a segment, M vision tokens, N and P pictures and their patches.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from spacer.data.processing import PromptBatch, VisionInputs, cat_given
from spacer.tree.forest import Forest, Segment


def part_of(batch: PromptBatch, number: int, merge: int) -> tuple[PromptBatch, Tensor]:
    """A part of the batch, and the places of its vision features among the batch's (M,).

    A vision token stands for `merge` x `merge` patches. What prompts of several parts show is in each of these.
    """
    start = sum(batch.part_sizes[:number])
    chosen = range(start, start + batch.part_sizes[number])
    forest = batch.forest.only(chosen)
    vision_L = torch.cat([torch.zeros(0, dtype=torch.long), *(segment.vision_L for segment in forest.segments)])
    pictures, features_M = shown_at(batch.pictures, vision_L, merge)
    part = attrs.evolve(
        batch,
        samples=tuple(batch.samples[n] for n in chosen),
        strips=tuple(batch.strips[n] for n in chosen),
        forest=_renumbered(forest, features_M),
        pictures=pictures,
        targets=batch.targets and tuple(batch.targets[n] for n in chosen),
        shuffled_video_pixels=None,
        faults=(),
        part_sizes=(len(chosen),),
    )
    return part, features_M


def shown_at(pictures: VisionInputs, vision_L: Tensor, merge: int) -> tuple[VisionInputs, Tensor]:
    """The pictures that tokens show, given the feature that stands at each (-1: none), and the places of all features
    of these pictures (M,)."""
    wanted = set(vision_L.tolist())
    first = 0
    found: list[Tensor | None] = []
    places = [torch.zeros(0, dtype=torch.long)]
    for pixels_PD, grids_N3 in (
        (pictures.image_pixels, pictures.image_grids),
        (pictures.video_pixels, pictures.video_grids),
    ):
        if pixels_PD is None or grids_N3 is None:
            found += [None, None]
            continue
        sizes = grids_N3.prod(1).tolist()
        kept = []
        for n, size in enumerate(sizes):
            if first in wanted:
                kept.append(n)
                places.append(torch.arange(first, first + size // merge**2))
            first += size // merge**2
        patches = pixels_PD.split(sizes)
        found += [cat_given([patches[n] for n in kept]), grids_N3[kept] if kept else None]
    return VisionInputs(*found), torch.cat(places)


def _renumbered(forest: Forest, features_M: Tensor) -> Forest:
    """The forest with each feature's place among `features_M`, which ascend, at its tokens."""
    moved = (
        Segment(
            s.ids_L, s.positions_3L, torch.where(s.vision_L < 0, -1, torch.bucketize(s.vision_L, features_M)), s.parent
        )
        for s in forest.segments
    )
    return Forest(tuple(moved), forest.ends)
