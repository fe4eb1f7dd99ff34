"""Rewards → advantages within a prompt's group. Shapes as in `spacer.objective`."""

from __future__ import annotations

from torch import Tensor

from spacer.config.choices import Advantage


def group_advantages(rewards_NG: Tensor, *, kind: Advantage = Advantage.std, eps: float = 1e-4) -> Tensor:
    """Advantages (N, G): `std` is (r - mean) / (std + eps) with ddof = 1 (GRPO), `mean` is r - mean (Dr. GRPO).

    Raises ValueError for fewer than two completions per prompt and for a reward that is not finite.
    >>> import torch
    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), kind=Advantage.mean).tolist()
    [[0.5, -0.5, -0.5, 0.5]]
    """
    _check_rewards(rewards_NG)
    kind = Advantage(kind)
    centred_NG = rewards_NG - rewards_NG.mean(1, keepdim=True)
    centred_NG = centred_NG.masked_fill(_all_equal(rewards_NG)[:, None], 0.0)  # else rounding noise / eps
    return centred_NG if kind == Advantage.mean else centred_NG / (rewards_NG.std(1, keepdim=True) + eps)


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
