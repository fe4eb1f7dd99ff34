"""Whether a run's trees give what the plain computation gives: each completion in a row of its own, pixels and all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spacer.attention.interface import TREE
from spacer.data.parts import shown_at
from spacer.data.processing import PromptBatch
from spacer.errors import UserError
from spacer.models.forward import RowContext
from spacer.models.logps import row_logps
from spacer.models.unwrap import unwrap
from spacer.tree.forest import Completion
from spacer.tree.packing import pack

log = logging.getLogger(__name__)

# Mean difference of log-probabilities that rounding may make, by the precision that is computed in. A token that sees
# what it must not, or stands where it must not, makes differences of 0.05 to 0.16 in the models of the tests. All
# tokens of a prompt share the rounding of what they see: in bfloat16 the mean of five came to 0.04 with nothing wrong.
LIMITS = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.08}


class TreeMismatch(UserError):
    """Raised where the two computations differ by more than rounding."""


class SamplingDrift(UserError):
    """Raised where a policy in training gives its completions other log-probabilities than it did while sampling."""


class FirstBatchCheck:
    """`check_tree` of the first prompt of the first batch that it is called with, if it is wanted at all."""

    def __init__(self, wanted: bool) -> None:
        self.due = wanted

    def __call__(
        self,
        model: Any,
        batch: PromptBatch,
        completions: Sequence[Completion],
        context: RowContext,
        sampled: Sequence[Tensor] | None = None,
    ) -> None:
        """`completions` are those of all prompts, of which there may be none; all else is as of `check_tree`."""
        if self.due and completions:
            mine = [n for n, completion in enumerate(completions) if completion.prompt == 0]
            check_tree(model, batch, [completions[n] for n in mine], context, sampled and [sampled[n] for n in mine])
        self.due = False


@torch.no_grad()
def check_tree(
    model: Any,
    batch: PromptBatch,
    completions: Sequence[Completion],
    context: RowContext,
    sampled: Sequence[Tensor] | None = None,
) -> float | None:
    """Compares the log-probabilities of completions of one prompt; returns their mean difference.

    `sampled` are each completion's log-probabilities as its tokens were drawn, at the temperature of the context, and
    are held to the same computation.

    A completion that holds a token which stands for a picture is passed over, since the plain forward would look for
    the picture; None where that leaves none.

    Raises:
        TreeMismatch: the difference exceeds what the precision allows; gives both values.
    """
    config = unwrap(model).config
    standing_in = torch.tensor([config.image_token_id, config.video_token_id])
    numbers = [n for n, c in enumerate(completions) if not torch.isin(c.ids_C, standing_in).any()]
    fit = [completions[n] for n in numbers]
    if not fit:
        log.warning("self-check: every completion of the first prompt holds a picture's token; nothing was compared")
        return None
    was_training = model.training
    model.eval()
    try:
        rows = pack(batch.forest, fit, context.compute.row_tokens)
        found = torch.cat([row_logps(model, row, context) for row in rows])
        with _plain_attention(model):
            expected = torch.cat([plain_logps(model, batch, completion, context.temperature) for completion in fit])
    finally:
        model.train(was_training)
    question, bound = batch.samples[fit[0].prompt].id, limit(model, context.temperature)
    _hold("in the prefix tree", "", question, found, expected, bound)
    if sampled is not None:
        check_sampled(model, question, torch.cat([sampled[n] for n in numbers]), expected, context.temperature)
    return float((found - expected).abs().mean())


def check_sampled(model: Any, question: str, sampled: Tensor, expected: Tensor, temperature: float) -> None:
    """Compares a question's log-probabilities as its tokens were drawn with those of a forward pass.

    Raises:
        TreeMismatch: the difference exceeds what the precision allows; gives both values.
    """
    bound = sampled_limit(model, temperature)
    _hold("while decoding", "of decoding", question, sampled.to(expected.device), expected, bound)


def limit(model: Any, temperature: float) -> float:
    """The mean difference of log-probabilities that rounding may make in this model, as it is computed now.

    Below a temperature of 1 logits, and their rounding, are larger.
    """
    return LIMITS[_precision(model)] / min(1.0, temperature)


def sampled_limit(model: Any, temperature: float) -> float:
    """`limit` for log-probabilities of a rollout, which are kept in float32 whatever the model is in."""
    return max(limit(model, temperature), LIMITS[torch.float32] / min(1.0, temperature))


def check_drift(drift: float, model: Any, temperature: float) -> None:
    """Holds the policy that is trained to be the policy that sampled, before its first step.

    Raises:
        SamplingDrift: mean differences of a token's log-probability exceed what rounding may make; gives both values.
    """
    allowed = sampled_limit(model, temperature)
    if drift > allowed:  # what is no number is told of with the loss
        raise SamplingDrift(
            f"log-probabilities of completions differ by {drift:.2e} a token between sampling and training, where "
            f"{_precision(model)} allows {allowed:.0e}: the gradient would be that of another policy. Nothing of it "
            "was taken over. Try model.attn_implementation=sdpa, the plainest, or trainer.precision=32-true; "
            "trainer.self_check=false goes on regardless"
        )


def _hold(where: str, what: str, question: str, found: Tensor, expected: Tensor, bound: float) -> None:
    """TreeMismatch where two computations differ by more than `bound` a token."""
    difference = float((found - expected).abs().mean())
    if not difference <= bound:
        raise TreeMismatch(
            f"log-probabilities of question {question!r}: mean {float(found.mean()):.6f} {where}, "
            f"{float(expected.mean()):.6f} in the plain computation. They differ by {difference:.2e} a token, where "
            f"rounding allows {bound:.0e}. Try model.attn_implementation=sdpa, the plainest; trainer.self_check=false "
            "goes on regardless"
        )
    checked = f" {what}: off" if what else ": log-probabilities differ"
    log.info("self-check%s by %.1e a token, %.0e allowed", checked, difference, bound)


def plain_logps(model: Any, batch: PromptBatch, completion: Completion, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of a completion, under logits / temperature, through transformers' own forward on ids and
    pixels, at the same positions."""
    base = unwrap(model)
    prompt, count = batch.forest.prompt(completion.prompt), len(completion.ids_C)
    pictures, _ = shown_at(batch.pictures, prompt.vision_L, base.config.vision_config.spatial_merge_size)
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
    logp = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
    return logp.gather(1, completion.ids_C.to(device)[:, None])[:, 0]


@contextlib.contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """transformers' own attention in the text model, for as long as it lasts."""
    base = unwrap(model)
    base.set_attn_implementation({"text_config": "sdpa"})
    try:
        yield
    finally:
        base.set_attn_implementation({"text_config": TREE})


def _precision(model: Any) -> torch.dtype:
    base = unwrap(model)
    kind = base.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.dtype
