"""Rewards → advantages within a prompt's group. Shapes as in `spacer.objective`."""

from __future__ import annotations

import torch
from torch import Tensor

from spacer.config.choices import Advantage


def group_advantages(rewards_NG: Tensor, *, kind: Advantage = Advantage.std, eps: float = 1e-4) -> Tensor:
    """Advantages (N, G): `std` is (r - mean) / (std + eps) with ddof = 1 (GRPO), `mean` is r - mean (Dr. GRPO). For
    `terms`, `term_advantages` takes the terms of the reward.

    Raises ValueError for fewer than two completions per prompt and for a reward that is not finite.
    >>> import torch
    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), kind=Advantage.mean).tolist()
    [[0.5, -0.5, -0.5, 0.5]]
    """
    _check_rewards(rewards_NG)
    kind = Advantage(kind)
    if kind == Advantage.terms:
        raise ValueError("objective.advantage=terms is of the terms of the reward: call term_advantages")
    centred_NG = rewards_NG - rewards_NG.mean(1, keepdim=True)
    centred_NG = centred_NG.masked_fill(_all_equal(rewards_NG)[:, None], 0.0)  # else rounding noise / eps
    return centred_NG if kind == Advantage.mean else centred_NG / (rewards_NG.std(1, keepdim=True) + eps)


def term_advantages(terms_NGK: Tensor, weights_K: Tensor, *, eps: float = 1e-4) -> Tensor:
    """Advantages (N, G): each of K terms normalised within its group, then weighted and summed (GDPO, 2601.05242).

    A term that is rare or small then counts as much as its weight says, and combinations of terms that come to the same
    total keep different advantages. NaN is where a term does not apply: it counts for the completions that have it.
    GDPO then divides by the std over the batch, which is left out, so that a step does not depend on how it is divided
    into batches. Raises ValueError for fewer than two completions per prompt, and for an infinite term.

    >>> import torch
    >>> terms_NGK = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])  # right but bare, and wrong in the right form
    >>> term_advantages(terms_NGK, torch.tensor([1.0, 0.5]), eps=0.0).tolist()
    [[0.3535533845424652, -0.3535533845424652]]
    """
    held_NGK = ~terms_NGK.isnan()
    _check_rewards(terms_NGK.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).sum(2))
    count_NK = held_NGK.sum(1)
    values_NGK = terms_NGK.masked_fill(~held_NGK, 0.0)
    mean_NK = values_NGK.sum(1) / count_NK.clamp(min=1)
    centred_NGK = (values_NGK - mean_NK[:, None]).masked_fill(~held_NGK, 0.0)
    lowest_NK = terms_NGK.nan_to_num(nan=torch.inf).amin(1)
    highest_NK = terms_NGK.nan_to_num(nan=-torch.inf).amax(1)
    centred_NGK = centred_NGK.masked_fill((highest_NK <= lowest_NK)[:, None], 0.0)  # else rounding noise / eps
    std_NK = (centred_NGK.square().sum(1) / (count_NK - 1).clamp(min=1)).sqrt()
    return (centred_NGK / (std_NK[:, None] + eps).clamp(min=torch.finfo(std_NK.dtype).tiny) * weights_K).sum(2)


def zero_variance(rewards_NG: Tensor) -> Tensor:
    """Bool (B,): whether all rewards of the completion's group are equal, so that there is no learning signal.
    >>> import torch
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


def _all_equal(rewards_NG: Tensor) -> Tensor:
    return rewards_NG.amax(1) == rewards_NG.amin(1)  # exact, while a std of equal numbers may round to more than 0


def _check_rewards(rewards_NG: Tensor) -> None:
    assert rewards_NG.ndim == 2, rewards_NG.shape
    if rewards_NG.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 completions, got {rewards_NG.shape[1]}: see objective.group_size")
    bad = [f"{rewards_NG[n, g]} (prompt {n}, completion {g})" for n, g in (~rewards_NG.isfinite()).nonzero().tolist()]
    if bad:
        raise ValueError(f"rewards must be finite, got {', '.join(bad)}")
