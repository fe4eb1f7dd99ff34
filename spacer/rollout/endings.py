"""Where completions end: at the first end token, or truncated at the maximum length. B completions, C tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def completion_mask(ids_BC: Tensor, eos_token_ids: Sequence[int]) -> Tensor:
    """Bool (B, C): true up to and including the first end token. Raises ValueError if `eos_token_ids` is empty.
    >>> completion_mask(torch.tensor([[5, 2, 5], [5, 5, 5]]), [2]).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    is_eos_BC = _is_eos(ids_BC, eos_token_ids).int()
    return is_eos_BC.cumsum(1) - is_eos_BC == 0  # no end token before this one


def truncated(ids_BC: Tensor, eos_token_ids: Sequence[int]) -> Tensor:
    """Bool (B,): whether the completion has no end token. Raises ValueError if `eos_token_ids` is empty."""
    return ~_is_eos(ids_BC, eos_token_ids).any(1)


def _is_eos(ids_BC: Tensor, eos_token_ids: Sequence[int]) -> Tensor:
    if not eos_token_ids:
        raise ValueError("eos_token_ids is empty: no completion could ever end")
    return torch.isin(ids_BC, torch.tensor(list(eos_token_ids), device=ids_BC.device))
