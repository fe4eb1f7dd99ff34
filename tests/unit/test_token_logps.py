"""`spacer.models.token_logps.token_logps` against a log-softmax over the whole vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spacer.models.token_logps import token_logps


@pytest.mark.parametrize("chunk", [1, 4, 7, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_token_logps_equal_log_softmax(chunk: int, dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    full_BCV = (5 * torch.randn(3, 6, 11, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
    logits_BCV = full_BCV[:, :-1]  # not contiguous, as the logits of a shifted row are
    ids_BC = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(1))
    logp_BC = token_logps(logits_BCV, ids_BC, chunk=chunk)
    expected_BC = logits_BCV.to(wide).log_softmax(-1).gather(-1, ids_BC[..., None])[..., 0]
    assert logp_BC.dtype == wide
    torch.testing.assert_close(logp_BC, expected_BC)
    weight_BC = torch.arange(15.0).view(3, 5)
    (grad,) = torch.autograd.grad((logp_BC * weight_BC).sum(), full_BCV)
    (expected_grad,) = torch.autograd.grad((expected_BC * weight_BC).sum(), full_BCV)
    torch.testing.assert_close(grad, expected_grad)


def test_token_logps_refuses_a_chunk_of_nothing() -> None:
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        token_logps(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long), chunk=0)


class LargestFloat32(TorchDispatchMode):
    """Counts the elements of the largest float32 tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float32:
                self.elements = max(self.elements, tensor.numel())
        return result


def test_token_logps_never_widens_all_logits() -> None:
    logits_BCV = torch.randn(2, 32, 50, dtype=torch.bfloat16, requires_grad=True)
    ids_BC = torch.zeros(2, 32, dtype=torch.long)
    with LargestFloat32() as forward:
        total = token_logps(logits_BCV, ids_BC, chunk=8).sum()
    with LargestFloat32() as backward:
        total.backward()
    assert forward.elements == backward.elements == 8 * 50  # a chunk's, of 64 * 50
