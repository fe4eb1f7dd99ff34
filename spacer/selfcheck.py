"""Whether a run's trees give what the plain computation gives: each completion in a row of its own, pixels and all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spacer.attended import RolloutAttention
from spacer.attention import TREE
from spacer.data.processing import Pictures, PromptBatch
from spacer.errors import UserError
from spacer.modeling import Packing, Vision, plain, row_logps
from spacer.tree import Completion, pack

log = logging.getLogger(__name__)

# Mean difference of log-probabilities that rounding may make, by the precision that is computed in. A token that sees
# what it must not, or stands where it must not, makes differences of 0.05 to 0.16 in the models of the tests. All
# tokens of a prompt share the rounding of what they see: in bfloat16 the mean of five came to 0.04 with nothing wrong.
LIMITS = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.08}


class TreeMismatch(UserError):
    """Raised where the two computations differ by more than rounding."""


class FirstBatchCheck:
    """`check_tree` of the first prompt of the first batch that it is called with, if it is wanted at all."""

    def __init__(self, wanted: bool) -> None:
        self.due = wanted

    def __call__(
        self,
        model: Any,
        batch: PromptBatch,
        vision: Vision,
        completions: Sequence[Completion],
        packing: Packing,
        attended: RolloutAttention | None = None,
    ) -> None:
        """`completions` are those of all prompts, of which there may be none, with what attention came to as they were
        written, if it is kept; errors as of `check_tree`."""
        if self.due and completions:
            # the first prompt's completions are the rollout's first
            check_tree(model, batch, vision, [c for c in completions if c.prompt == 0], packing, attended)
        self.due = False


@torch.no_grad()
def check_tree(
    model: Any,
    batch: PromptBatch,
    vision: Vision,
    completions: Sequence[Completion],
    packing: Packing,
    attended: RolloutAttention | None = None,
) -> float | None:
    """Compares the log-probabilities of completions of one prompt; returns their mean difference.

    `attended` is what attention came to as these completions were written, where training goes on from that; then the
    trees are compared both with it and without, and the difference is with it.

    A completion that holds a token which stands for a picture is passed over, since the plain forward would look for
    the picture; None where that leaves none.

    Raises:
        TreeMismatch: the difference exceeds what the precision allows; names both figures.
    """
    config = plain(model).config
    standing_in = torch.tensor([config.image_token_id, config.video_token_id])
    numbers = [n for n, c in enumerate(completions) if not torch.isin(c.ids_C, standing_in).any()]
    fit = [completions[n] for n in numbers]
    if not fit:
        log.warning("self-check: every completion of the first prompt holds a picture's token; nothing was compared")
        return None
    was_training = model.training
    model.eval()
    try:
        rows = pack(batch.forest, fit, packing.row_tokens)
        found = [torch.cat([row_logps(model, row, vision, packing) for row in rows])]
        if attended is not None:
            known = ((row, attended.over(row, numbers)) for row in rows)
            found.append(torch.cat([row_logps(model, row, vision, packing, known=layers) for row, layers in known]))
        with _plain_attention(model):
            expected = torch.cat([plain_logps(model, batch, completion) for completion in fit])
    finally:
        model.train(was_training)
    for in_tree in found:
        difference = float((in_tree - expected).abs().mean())
        precision = _precision(model)
        if not difference <= LIMITS[precision]:
            raise TreeMismatch(
                f"log-probabilities of question {batch.samples[fit[0].prompt].id!r}: mean {float(in_tree.mean()):.6f} "
                f"in the prefix tree, {float(expected.mean()):.6f} in the plain computation. They differ by "
                f"{difference:.2e} a token, where {precision} allows {LIMITS[precision]:.0e}. Try "
                "model.attn_implementation=sdpa, the plainest; trainer.self_check=false goes on regardless"
            )
        checked = ": log-probabilities differ" if in_tree is found[0] else " with attention kept: off"
        log.info("self-check%s by %.1e a token, %.0e allowed", checked, difference, LIMITS[precision])
    return difference


def plain_logps(model: Any, batch: PromptBatch, completion: Completion) -> Tensor:
    """Log-probabilities of a completion through transformers' own forward on ids and pixels, at the same positions."""
    base = plain(model)
    prompt, count = batch.forest.prompt(completion.prompt), len(completion.ids_C)
    pictures = pictures_of(batch, completion.prompt, base.config.vision_config.spatial_merge_size)
    device = base.lm_head.weight.device
    positions = torch.cat([prompt.positions_3L, prompt.positions_3L[:, -1:] + torch.arange(1, count + 1)], 1)
    logits = base(
        input_ids=torch.cat([prompt.ids_L, completion.ids_C])[None].to(device),
        position_ids=positions[:, None].to(device),
        pixel_values=pictures.image_pixels,
        image_grid_thw=pictures.image_grids,
        pixel_values_videos=pictures.video_pixels,
        video_grid_thw=pictures.video_grids,
        use_cache=False,
        logits_to_keep=count + 1,
    ).logits[0, :-1]
    logp = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return logp.gather(1, completion.ids_C.to(device)[:, None])[:, 0]


def pictures_of(batch: PromptBatch, prompt: int, merge: int) -> Pictures:
    """The pictures that one prompt of a batch is about."""
    vision_L = batch.forest.prompt(prompt).vision_L
    wanted = set(vision_L[vision_L >= 0].tolist())
    found: list[Tensor | None] = []
    feature = 0
    for pixels, grids in (
        (batch.pictures.image_pixels, batch.pictures.image_grids),
        (batch.pictures.video_pixels, batch.pictures.video_grids),
    ):
        patch, patches, kept = 0, [], []
        for grid in () if grids is None else grids:
            count = int(grid.prod())
            if feature in wanted:
                assert pixels is not None
                patches.append(pixels[patch : patch + count])
                kept.append(grid)
            patch, feature = patch + count, feature + count // merge**2
        found += [torch.cat(patches) if patches else None, torch.stack(kept) if kept else None]
    return Pictures(*found)


@contextlib.contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """transformers' own attention in the text model, for as long as it lasts."""
    base = plain(model)
    base.set_attn_implementation({"text_config": "sdpa"})
    try:
        yield
    finally:
        base.set_attn_implementation({"text_config": TREE})


def _precision(model: Any) -> torch.dtype:
    weight = plain(model).lm_head.weight
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
