"""Advantages and log-probabilities → the policy loss of GRPO and its variants. Shapes as in `spacer.objective`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spacer.config.choices import KlEstimate, LossMean, Ratio, Surrogate
from spacer.config.settings import ObjectiveSettings


@dataclass(frozen=True, kw_only=True)
class PolicyBatch:
    """The input of `policy_loss`: complete completions, possibly only part of a batch."""

    logp_BC: Tensor  # the policy's log-probability of each sampled token, with gradient
    advantages_B: Tensor
    mask_BC: Tensor  # bool, the tokens that count; a row without any is padding
    old_logp_BC: Tensor | None = None  # under the sampling policy; None if on-policy: the ratio is 1, with gradient
    ref_logp_BC: Tensor | None = None  # under the reference model; None needs beta = 0
    truncated_B: Tensor | None = None  # bool; needed by mask_truncated
    zero_variance_B: Tensor | None = None  # bool; needed by drop_zero_variance

    def __post_init__(self) -> None:
        shape_BC = self.logp_BC.shape
        assert len(shape_BC) == 2 and self.mask_BC.dtype == torch.bool, (shape_BC, self.mask_BC.dtype)
        for name, tensor in vars(self).items():
            assert tensor is None or tensor.shape == shape_BC[: 2 if name.endswith("_BC") else 1], (name, tensor.shape)


@dataclass(frozen=True)
class PolicyLoss:
    """The output of `policy_loss`: the scalar to differentiate, and detached scalars to log."""

    loss: Tensor
    metrics: dict[str, Tensor]


def kept_completions(
    mask_BC: Tensor, settings: ObjectiveSettings, *, truncated_B: Tensor | None, zero_variance_B: Tensor | None
) -> Tensor:
    """Bool (B,): the completions in the loss: those with at least one token that the settings do not drop.

    Truncated completions still count in their group's advantages; only their own loss is dropped, as in DAPO's overlong
    filtering. Raises ValueError if a setting needs a tensor that is not given.
    """
    keep_B = mask_BC.any(1)
    if settings.mask_truncated:
        if truncated_B is None:
            raise ValueError("objective.mask_truncated needs truncated_B: which completions never ended")
        keep_B = keep_B & ~truncated_B
    if settings.drop_zero_variance:
        if zero_variance_B is None:
            raise ValueError("objective.drop_zero_variance needs zero_variance_B: whose group has equal rewards")
        keep_B = keep_B & ~zero_variance_B
    return keep_B


def loss_denominator(mask_BC: Tensor, keep_B: Tensor, settings: ObjectiveSettings) -> Tensor:
    """The denominator of the summed loss, a float32 scalar. Completions that are not kept do not count.

    completion: the number of completions (GRPO); token: the number of their tokens (DAPO);
    budget: the number of completions times max_completion_length, independent of their lengths (Dr. GRPO).
    """
    if LossMean(settings.loss_mean) == LossMean.token:
        return (mask_BC & keep_B[:, None]).sum().float()
    per_completion = settings.max_completion_length if settings.loss_mean == LossMean.budget else 1
    return keep_B.sum().float() * per_completion


def policy_loss(batch: PolicyBatch, settings: ObjectiveSettings, denominator: Tensor | None = None) -> PolicyLoss:
    """Sum over kept tokens of -(gain - beta KL), averaged.

    ratio = exp(logp - old_logp), or for `ratio: sequence` exp of its mean over the completion's tokens (GSPO eq. 7);
    clipped = clip(ratio, 1 - clip_low, 1 + clip_high), a bound of None being no bound. The gain of a token, by
    `surrogate`, with sg for no gradient:

    - `ppo`: min(ratio A, clipped A) (GRPO eq. 3, DAPO eq. 10);
    - `cispo`: sg(clipped) A logp (MiniMax-M1, arXiv 2506.13585);
    - `sapo`: 4/τ σ(τ (ratio - 1)) A, where τ goes by the sign of A (SAPO, arXiv 2511.20347).

    KL, by `kl`, is -d, d² / 2 or exp(d) - d - 1 (GRPO eq. 4), with d = ref_logp - logp clamped to ±kl_clamp. Under
    `completion` a token weighs 1 / its completion's length.

    The loss is a sum over completions divided by `denominator`, by default `loss_denominator` of this batch. To get a
    batch's gradient from its parts, pass the whole batch's denominator for each part and sum; under DDP, which averages
    gradients over ranks, pass the mean of the ranks' denominators. If nothing is kept, the loss is 0, with a graph.

    Metrics are means over all completions, including dropped ones: `ratio_mean`, `clip_fraction`, of which
    `clip_low_fraction` and `clip_high_fraction` are at either bound, and `kl` (if ref_logp is given), averaged over
    tokens first; `completion_length_mean`, `kept_share`, `truncated_share` (if truncated is given).
    Raises ValueError if a setting needs a tensor that is not given.
    """
    if settings.beta and batch.ref_logp_BC is None:
        raise ValueError(f"objective.beta = {settings.beta} needs ref_logp_BC, the reference model's log-probabilities")
    mask_BC = batch.mask_BC
    keep_B = kept_completions(mask_BC, settings, truncated_B=batch.truncated_B, zero_variance_B=batch.zero_variance_B)
    if denominator is None:
        denominator = loss_denominator(mask_BC, keep_B, settings)
    length_B = mask_BC.sum(1).clamp(min=1)  # padding rows have no tokens

    # Padding may have any value, even -inf: overwrite it before any arithmetic, as 0 * inf is NaN in the backward pass.
    logp_BC = batch.logp_BC.masked_fill(~mask_BC, 0.0)
    old_logp_BC = logp_BC if batch.old_logp_BC is None else batch.old_logp_BC.masked_fill(~mask_BC, 0.0)
    log_ratio_BC = logp_BC - old_logp_BC.detach()
    if Ratio(settings.ratio) == Ratio.sequence:  # one per completion, repeated for each token
        log_ratio_BC = (log_ratio_BC.sum(1) / length_B)[:, None].expand_as(log_ratio_BC)
    ratio_BC = log_ratio_BC.exp()

    gain_BC, clipped_BC = _gain(logp_BC, ratio_BC, batch.advantages_B[:, None], settings)
    per_token_BC = {
        "ratio_mean": ratio_BC,
        "clip_fraction": clipped_BC,
        "clip_low_fraction": clipped_BC & (ratio_BC < 1),
        "clip_high_fraction": clipped_BC & (ratio_BC > 1),
    }
    if batch.ref_logp_BC is not None:
        d_BC = (batch.ref_logp_BC.masked_fill(~mask_BC, 0.0) - logp_BC).clamp(-settings.kl_clamp, settings.kl_clamp)
        per_token_BC["kl"] = _kl(d_BC, settings.kl)
        gain_BC = gain_BC - settings.beta * per_token_BC["kl"]

    weight_B = keep_B.to(gain_BC.dtype)
    if settings.loss_mean == LossMean.completion:
        weight_B = weight_B / length_B
    # If nothing is kept, the sum is 0, and any nonzero divisor will do.
    loss = -(gain_BC * mask_BC * weight_B[:, None]).sum() / denominator.masked_fill(denominator == 0, 1.0)

    with torch.no_grad():
        values_B = {name: (value_BC * mask_BC).sum(1) / length_B for name, value_BC in per_token_BC.items()}
        values_B |= {"completion_length_mean": length_B, "kept_share": keep_B}
        if batch.truncated_B is not None:
            values_B["truncated_share"] = batch.truncated_B
        real_B = mask_BC.any(1)  # not padding
        metrics = {name: (value_B * real_B).sum() / real_B.sum().clamp(min=1) for name, value_B in values_B.items()}
    return PolicyLoss(loss, metrics)


def _gain(
    logp_BC: Tensor, ratio_BC: Tensor, advantages_B1: Tensor, settings: ObjectiveSettings
) -> tuple[Tensor, Tensor]:
    """What each token adds to the objective, and whether its ratio is clipped."""
    low = 0.0 if settings.clip_low is None else 1 - settings.clip_low
    high = math.inf if settings.clip_high is None else 1 + settings.clip_high
    bounded_BC = ratio_BC.clamp(low, high)
    surrogate = Surrogate(settings.surrogate)
    if surrogate == Surrogate.cispo:
        return bounded_BC.detach() * advantages_B1 * logp_BC, bounded_BC != ratio_BC
    if surrogate == Surrogate.sapo:
        tau_B1 = torch.full_like(advantages_B1, settings.sapo_tau_negative)
        tau_B1 = tau_B1.masked_fill(advantages_B1 > 0, settings.sapo_tau_positive)
        gate_BC = torch.sigmoid(tau_B1 * (ratio_BC - 1)) * 4 / tau_B1
        return gate_BC * advantages_B1, torch.zeros_like(ratio_BC, dtype=torch.bool)
    free_BC = ratio_BC * advantages_B1
    gain_BC = torch.minimum(free_BC, bounded_BC * advantages_B1)
    return gain_BC, gain_BC < free_BC


def _kl(d_BC: Tensor, estimate: KlEstimate) -> Tensor:
    if KlEstimate(estimate) == KlEstimate.k1:
        return -d_BC
    return d_BC.square() / 2 if KlEstimate(estimate) == KlEstimate.k2 else d_BC.exp() - d_BC - 1
