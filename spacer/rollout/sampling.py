"""Token sampling with temperature and top-p, and log-probabilities of the sampled tokens.

Shape suffixes: R rows, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NUCLEUS = 1024  # most likely tokens to try first for top-p


@dataclass(frozen=True)
class Decoding:
    """Sampling options. `temperature` 0 is greedy."""

    temperature: float
    top_p: float
    max_new_tokens: int


def uniforms(seeds: Sequence[Sequence[int]], steps: int, device: torch.device) -> Tensor:
    """The random numbers of completions, B x steps, in [0, 1): each completion's of its own seed."""
    drawn = np.stack([np.random.default_rng(list(seed)).random(steps) for seed in seeds])
    return torch.from_numpy(drawn).to(device)


def draw(logits_RV: Tensor, decoding: Decoding, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Samples a token per row; returns it and its log-probability under logits / temperature, before top-p.

    Top-p keeps the most likely tokens up to the one at which their cumulative probability reaches `top_p`; the token is
    found by inverting their cumulative distribution at `uniform_R`, in [0, 1). At temperature 0 it is the most likely
    token, with its log-probability at temperature 1.
    """
    ids_R, logp_R, enough = draw_among(logits_RV, decoding, uniform_R, NUCLEUS)
    if not bool(enough.all()):
        ids_R, logp_R, _ = draw_among(logits_RV, decoding, uniform_R, None)
    return ids_R, logp_R


def draw_among(
    logits_RV: Tensor, decoding: Decoding, uniform_R: Tensor, width: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `draw`, but only among the `width` most likely tokens (None: all). Also returns whether these contain each
    row's nucleus, so that the result is exact.

    The nucleus is usually a few tokens; the whole vocabulary needs sorting only if it is larger than `width`. Never
    synchronizes with the host, and shapes depend only on the input's shapes.
    """
    logits_RV = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
    if decoding.temperature == 0:
        logp_RV = logits_RV.log_softmax(-1)
        ids_R = logits_RV.argmax(-1)
        return ids_R, logp_RV.gather(1, ids_R[:, None])[:, 0], torch.ones_like(ids_R, dtype=torch.bool)
    logp_RV = (logits_RV / decoding.temperature).log_softmax(-1)
    if width is None or logp_RV.shape[1] <= width:
        order_Rn = logp_RV.argsort(dim=-1, descending=True, stable=True)
        sums_Rn = logp_RV.gather(1, order_Rn).exp().double().cumsum(-1)
        enough_R = torch.ones_like(order_Rn[:, 0], dtype=torch.bool)
    else:
        best, order_Rn = logp_RV.topk(width, -1)
        sums_Rn = best.exp().double().cumsum(-1)
        enough_R = sums_Rn[:, -1] >= decoding.top_p
    reached_R1 = sums_Rn[:, -1:].clamp(max=decoding.top_p)
    # with NaN, which training reports later, the index would be out of bounds
    last_R1 = torch.searchsorted(sums_Rn, reached_R1).clamp_(max=sums_Rn.shape[1] - 1)
    places_R1 = torch.searchsorted(sums_Rn, uniform_R[:, None] * sums_Rn.gather(1, last_R1), right=True)
    ids_R = order_Rn.gather(1, places_R1.minimum(last_R1))[:, 0]
    return ids_R, logp_RV.gather(1, ids_R[:, None])[:, 0], enough_R
