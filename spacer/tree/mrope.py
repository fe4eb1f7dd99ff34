"""M-RoPE positions by the rule that the models were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

TEXT, IMAGE, VIDEO = 0, 1, 2  # token types, as transformers' processors mark them


def mrope_positions(
    types_L: Tensor,
    image_grids: Sequence[Sequence[int]] = (),
    video_grids: Sequence[Sequence[int]] = (),
    seconds_per_grid: Sequence[float] = (),
    *,
    merge: int = 2,
    tokens_per_second: float = 2.0,
    original: bool = True,
) -> Tensor:
    """Positions of a prompt on the axes time, height and width.

    Text counts up on all axes. A vision block starts where the text before it ended + 1; its time axis advances by
    floor(step · seconds · tokens_per_second). What follows starts at the largest position used so far *on any axis*
    + 1, time included (Qwen2-VL, arXiv 2409.12191, section 2.1; Qwen's own code). transformers 5 leaves time out
    there, so that after a long, sparsely sampled video it puts the question where the model never saw one.

    Args:
        types_L: token types of one prompt, 0 text, 1 image, 2 video.
        image_grids: (t, h, w) of each block of images in patches, in order.
        video_grids: the same of the blocks of videos.
        seconds_per_grid: seconds that one step in time stands for, for each video.
        merge: patches joined into a token along each side.
        original: False leaves time out of where text goes on, as transformers 5 does.

    Returns:
        positions_3L, int64.

    Raises:
        ValueError: the blocks in `types_L` do not fit the grids.
    """
    images = iter([(grid, 0.0) for grid in image_grids])
    videos = iter([(grid, s * tokens_per_second) for grid, s in zip(video_grids, seconds_per_grid, strict=True)])
    blocks: list[Tensor] = []
    start = 0
    for kind, run in groupby(types_L.tolist()):
        length = len(list(run))
        if kind == TEXT:
            blocks.append((torch.arange(length) + start).expand(3, -1))
        else:
            # neighbouring blocks of one kind form one run where nothing stands between them
            filled = 0
            while filled < length:
                try:
                    (t, h, w), pace = next(images if kind == IMAGE else videos)
                except StopIteration:
                    raise ValueError(f"{length} vision tokens, but the grids fill only {filled}") from None
                blocks.append(_block(t, h // merge, w // merge, pace) + start)
                filled += blocks[-1].shape[1]
                start = (int(blocks[-1].max()) + 1) if original else start + max(h, w) // merge
            if filled != length:
                raise ValueError(f"{length} vision tokens, but the grids make {filled}")
            continue
        start = int(blocks[-1].max()) + 1
    if next(images, None) is not None or next(videos, None) is not None:
        raise ValueError("there are more grids than blocks of vision tokens")
    return torch.cat(blocks, dim=1)


@dataclass(frozen=True)
class PositionRule:
    """How a family of models numbers the tokens of a prompt.

    The time axis of a video advances by one with each step, or by its seconds times `tokens_per_second`. Where times
    are text between the frames, each frame is a block of its own (`split_frames`). `original` makes no difference
    where a block is one step deep in time, as an image is. `step_seconds` takes the place of the seconds that a step
    really stands for.
    """

    merge: int
    tokens_per_second: float | None
    split_frames: bool
    original: bool = True
    step_seconds: float | None = None

    def positions(
        self,
        types_L: Tensor,
        image_grids: Sequence[Sequence[int]],
        video_grids: Sequence[Sequence[int]],
        seconds_per_grid: Sequence[float],
    ) -> Tensor:
        """Positions (3, L) of a prompt; arguments and errors as of `mrope_positions`."""
        if self.split_frames:
            video_grids = [(1, h, w) for t, h, w in video_grids for _ in range(t)]
        if self.split_frames or self.tokens_per_second is None:
            seconds_per_grid = [1.0] * len(video_grids)
        elif self.step_seconds is not None:
            seconds_per_grid = [self.step_seconds] * len(video_grids)
        return mrope_positions(
            types_L,
            image_grids,
            video_grids,
            seconds_per_grid,
            merge=self.merge,
            tokens_per_second=1.0 if self.tokens_per_second is None else self.tokens_per_second,
            original=self.original,
        )


def _block(t: int, h: int, w: int, pace: float) -> Tensor:
    time = (torch.arange(t) * pace).long()
    return torch.stack(torch.meshgrid(time, torch.arange(h), torch.arange(w), indexing="ij")).reshape(3, -1)
