"""Group-relative policy optimisation and its variants: rewards → advantages → loss. Pure functions of tensors.

Shape suffixes:
    N prompts, G completions per prompt, B = N * G completions (the G of the first prompt, then of the second, …),
    C completion tokens (padded to the longest completion), V vocabulary.

Sources: GRPO arXiv 2402.03300, Dr. GRPO 2503.20783, DAPO 2503.14476, GSPO 2507.18071, SpaceR 2504.01805. Departures:
- The KL estimate's exponent is clamped, and without clip bounds the ratio is not clipped, as in SpaceR's release.
- A group of equal rewards has advantages of exactly 0, not rounding noise divided by eps.
- DAPO samples until the batch is full of groups that differ; `drop_zero_variance` leaves the others out instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spacer.choices import Advantage, LossMean, Ratio
from spacer.settings import ObjectiveSettings

CHUNK = 256  # tokens whose probabilities over the vocabulary are held at once in float32


@dataclass(frozen=True, kw_only=True)
class PolicyBatch:
    """What `policy_loss` takes: any whole completions, so also a part of a batch."""

    logp_BC: Tensor  # the policy's log-probability of each sampled token, with gradient
    advantages_B: Tensor
    mask_BC: Tensor  # bool, the tokens that count; a row without any is padding
    old_logp_BC: Tensor | None = None  # under the policy that sampled; None on-policy: the ratio is 1, with gradient
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
    """What `policy_loss` gives: the scalar to differentiate, and detached scalars to log."""

    loss: Tensor
    metrics: dict[str, Tensor]


def group_advantages(rewards_NG: Tensor, *, kind: Advantage = Advantage.std, eps: float = 1e-4) -> Tensor:
    """Advantages (N, G): `std` is (r - mean) / (std + eps) with ddof = 1 (GRPO), `mean` is r - mean (Dr. GRPO).

    Raises ValueError for fewer than two completions a prompt and for a reward that is not finite.
    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), kind=Advantage.mean).tolist()
    [[0.5, -0.5, -0.5, 0.5]]
    """
    _check_rewards(rewards_NG)
    kind = Advantage(kind)
    centred_NG = rewards_NG - rewards_NG.mean(1, keepdim=True)
    centred_NG = centred_NG.masked_fill(_all_equal(rewards_NG)[:, None], 0.0)  # else rounding noise, over eps
    return centred_NG if kind == Advantage.mean else centred_NG / (rewards_NG.std(1, keepdim=True) + eps)


def zero_variance(rewards_NG: Tensor) -> Tensor:
    """Bool (B,): whether all rewards of the completion's group are equal, so that they teach nothing.
    >>> zero_variance(torch.tensor([[1.0, 1.0], [0.0, 1.0]])).tolist()
    [True, True, False, False]
    """
    return _all_equal(rewards_NG).repeat_interleave(rewards_NG.shape[1])


def group_stats(rewards_NG: Tensor, answers_NG: Tensor) -> dict[str, Tensor]:
    """Scalars to log: mean total reward, mean over groups of its std (ddof = 1), and the share of groups whose answer
    rewards are all 1, all 0, and whose total rewards are all equal. Raises ValueError as `group_advantages` does.
    """
    _check_rewards(rewards_NG)
    assert answers_NG.shape == rewards_NG.shape, (answers_NG.shape, rewards_NG.shape)
    return {
        "reward_mean": rewards_NG.mean(),
        "reward_std": rewards_NG.std(1).mean(),
        "groups_all_right": (answers_NG == 1).all(1).to(rewards_NG.dtype).mean(),
        "groups_all_wrong": (answers_NG == 0).all(1).to(rewards_NG.dtype).mean(),
        "groups_zero_variance": _all_equal(rewards_NG).to(rewards_NG.dtype).mean(),
    }


def completion_mask(ids_BC: Tensor, eos_token_ids: Sequence[int]) -> Tensor:
    """Bool (B, C): true up to and including the first end-of-sequence token; ValueError without such a token.
    >>> completion_mask(torch.tensor([[5, 2, 5], [5, 5, 5]]), [2]).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    is_eos_BC = _is_eos(ids_BC, eos_token_ids).int()
    return is_eos_BC.cumsum(1) - is_eos_BC == 0  # no end before this token


def truncated(ids_BC: Tensor, eos_token_ids: Sequence[int]) -> Tensor:
    """Bool (B,): whether the completion never ended; ValueError without an end-of-sequence token."""
    return ~_is_eos(ids_BC, eos_token_ids).any(1)


def token_logps(logits_BCV: Tensor, ids_BC: Tensor, chunk: int = CHUNK) -> Tensor:
    """Log-probability (B, C), in float32 at least, of each id under the logits at its own position.

    Done `chunk` tokens at a time, forward and backward, so that neither holds a float32 copy of bfloat16 logits: beyond
    the logits and their gradient there are a few float32 tensors of chunk x V. Raises ValueError for chunk < 1.
    >>> token_logps(torch.zeros(1, 2, 4), torch.tensor([[0, 3]])).exp().tolist()
    [[0.25, 0.25]]
    """
    assert logits_BCV.shape[:2] == ids_BC.shape, (logits_BCV.shape, ids_BC.shape)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    logp_BC: Tensor = _TokenLogps.apply(logits_BCV, ids_BC, chunk)
    return logp_BC


def kept_completions(
    mask_BC: Tensor, settings: ObjectiveSettings, *, truncated_B: Tensor | None, zero_variance_B: Tensor | None
) -> Tensor:
    """Bool (B,): the completions that the loss counts, those with at least one token and that the settings do not drop.

    Truncated completions still take part in their group's advantages: only their own loss is left out, as in DAPO's
    overlong filtering. Raises ValueError where a setting needs a tensor that is not given.
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
    """What the summed loss is divided by, a float32 scalar. Completions that are not kept count in none of them.

    completion: the number of completions (GRPO); token: the number of their tokens (DAPO);
    budget: the number of completions times max_completion_length, whatever their lengths (Dr. GRPO).
    """
    if LossMean(settings.loss_mean) == LossMean.token:
        return (mask_BC & keep_B[:, None]).sum().float()
    per_completion = settings.max_completion_length if settings.loss_mean == LossMean.budget else 1
    return keep_B.sum().float() * per_completion


def policy_loss(batch: PolicyBatch, settings: ObjectiveSettings, denominator: Tensor | None = None) -> PolicyLoss:
    """Sum over kept tokens of -(min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) - beta KL), averaged.

    ratio = exp(logp - old_logp), or for `ratio: sequence` exp of its mean over the completion's tokens (GSPO eq. 7);
    KL = exp(d) - d - 1 with d = ref_logp - logp clamped to ±kl_clamp (GRPO eq. 4); min and clip as in GRPO eq. 3 and
    DAPO eq. 10, a bound of None being no bound. Under `completion` a token weighs 1 / its completion's length.

    The loss is a sum over completions divided by `denominator`, by default `loss_denominator` of this batch. For the
    gradient of a whole batch from its parts, give each part the whole batch's denominator and add up; under DDP, which
    averages gradients over ranks, give the ranks' mean denominator. Where nothing is kept the loss is 0, with a graph.

    Metrics, means over all completions, dropped ones too: `ratio_mean`, `clip_fraction` and `kl` (if ref_logp is given)
    over tokens first, `completion_length_mean`, `kept_share`, `truncated_share` (if truncated is given).
    Raises ValueError where a setting needs a tensor that is not given.
    """
    if settings.beta and batch.ref_logp_BC is None:
        raise ValueError(f"objective.beta = {settings.beta} needs ref_logp_BC, the reference model's log-probabilities")
    mask_BC = batch.mask_BC
    keep_B = kept_completions(mask_BC, settings, truncated_B=batch.truncated_B, zero_variance_B=batch.zero_variance_B)
    if denominator is None:
        denominator = loss_denominator(mask_BC, keep_B, settings)
    length_B = mask_BC.sum(1).clamp(min=1)  # rows of padding have no tokens

    # Padding may hold anything, even -inf: overwrite it before any arithmetic, as 0 * inf is NaN in the backward pass.
    logp_BC = batch.logp_BC.masked_fill(~mask_BC, 0.0)
    old_logp_BC = logp_BC if batch.old_logp_BC is None else batch.old_logp_BC.masked_fill(~mask_BC, 0.0)
    log_ratio_BC = logp_BC - old_logp_BC.detach()
    if Ratio(settings.ratio) == Ratio.sequence:  # one for the completion, standing at each of its tokens
        log_ratio_BC = (log_ratio_BC.sum(1) / length_B)[:, None].expand_as(log_ratio_BC)
    ratio_BC = log_ratio_BC.exp()

    low = 0.0 if settings.clip_low is None else 1 - settings.clip_low
    high = math.inf if settings.clip_high is None else 1 + settings.clip_high
    free_BC = ratio_BC * batch.advantages_B[:, None]
    gain_BC = torch.minimum(free_BC, ratio_BC.clamp(low, high) * batch.advantages_B[:, None])
    per_token_BC = {"ratio_mean": ratio_BC, "clip_fraction": gain_BC < free_BC}
    if batch.ref_logp_BC is not None:
        d_BC = (batch.ref_logp_BC.masked_fill(~mask_BC, 0.0) - logp_BC).clamp(-settings.kl_clamp, settings.kl_clamp)
        per_token_BC["kl"] = d_BC.exp() - d_BC - 1
        gain_BC = gain_BC - settings.beta * per_token_BC["kl"]

    weight_B = keep_B.to(gain_BC.dtype)
    if settings.loss_mean == LossMean.completion:
        weight_B = weight_B / length_B
    # Nothing kept: the sum is 0 already, so any divisor but 0 will do.
    loss = -(gain_BC * mask_BC * weight_B[:, None]).sum() / denominator.masked_fill(denominator == 0, 1.0)

    with torch.no_grad():
        values_B = {name: (value_BC * mask_BC).sum(1) / length_B for name, value_BC in per_token_BC.items()}
        values_B |= {"completion_length_mean": length_B, "kept_share": keep_B}
        if batch.truncated_B is not None:
            values_B["truncated_share"] = batch.truncated_B
        real_B = mask_BC.any(1)  # not a row of padding
        metrics = {name: (value_B * real_B).sum() / real_B.sum().clamp(min=1) for name, value_B in values_B.items()}
    return PolicyLoss(loss, metrics)


def _all_equal(rewards_NG: Tensor) -> Tensor:
    return rewards_NG.amax(1) == rewards_NG.amin(1)  # exact, where a std of equal numbers may round to more than 0


def _check_rewards(rewards_NG: Tensor) -> None:
    assert rewards_NG.ndim == 2, rewards_NG.shape
    if rewards_NG.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 completions, got {rewards_NG.shape[1]}: see objective.group_size")
    bad = [f"{rewards_NG[n, g]} (prompt {n}, completion {g})" for n, g in (~rewards_NG.isfinite()).nonzero().tolist()]
    if bad:
        raise ValueError(f"rewards must be finite, got {', '.join(bad)}")


def _is_eos(ids_BC: Tensor, eos_token_ids: Sequence[int]) -> Tensor:
    if not eos_token_ids:
        raise ValueError("eos_token_ids is empty: no completion could ever end")
    return torch.isin(ids_BC, torch.tensor(list(eos_token_ids), device=ids_BC.device))


class _TokenLogps(torch.autograd.Function):
    """logit - logsumexp, for which autograd would keep a float32 B x C x V tensor."""

    @staticmethod
    def forward(ctx: Any, logits_BCV: Tensor, ids_BC: Tensor, chunk: int) -> Tensor:
        ctx.step = max(1, chunk // max(1, len(ids_BC)))  # positions, each in all B completions
        dtype = torch.promote_types(logits_BCV.dtype, torch.float32)
        lse_BC = torch.cat([part.to(dtype).logsumexp(-1) for part in torch.split(logits_BCV, ctx.step, 1)], 1)
        ctx.save_for_backward(logits_BCV, ids_BC, lse_BC)
        return logits_BCV.gather(-1, ids_BC[..., None])[..., 0].to(dtype) - lse_BC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BC: Tensor) -> tuple[Tensor, None, None]:
        logits_BCV, ids_BC, lse_BC = ctx.saved_tensors
        grad_BCV = torch.empty_like(logits_BCV)
        tensors = (grad_BCV, logits_BCV, ids_BC[..., None], lse_BC[..., None], grad_BC[..., None])
        parts = (torch.split(tensor, ctx.step, 1) for tensor in tensors)
        for out, logits, ids, lse, grad in zip(*parts, strict=True):
            softmax = (logits.to(lse.dtype) - lse).exp_()
            out.copy_(softmax.mul_(-grad).scatter_add_(-1, ids, grad))  # (onehot - softmax) * grad
        return grad_BCV, None, None
