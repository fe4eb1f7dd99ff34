"""What the cache of a rollout attends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spacer.attention.kv_cache import Padding, attend, attend_by_products


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("padded", [False, True])
def test_the_kernel_of_a_cpu_gives_what_products_give_anywhere(dtype: torch.dtype, near: float, padded: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, n, 16, generator=generator, dtype=torch.float64) for n in (6, 70, 70))
    padding = Padding.of([70, 50, 70] if padded else [70, 70, 70], torch.device("cpu"))
    assert (padding is not None) == padded
    scores = q @ k.transpose(-1, -2) * 0.3
    if padded:
        scores[1, ..., 50:] = -torch.inf
    for function in (attend, attend_by_products):
        out, lse = function(q.to(dtype), k.to(dtype), v.to(dtype), padding, 0.3)
        assert out.dtype == lse.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(out.double(), scores.softmax(-1) @ v, rtol=near, atol=near)
        torch.testing.assert_close(lse.double(), scores.logsumexp(-1, keepdim=True), rtol=near, atol=near)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("function", [attend, attend_by_products])
def test_keys_with_a_large_common_bias_are_told_apart_in_16_bits(function: Callable[..., Any], autocast: bool) -> None:
    """Biases of keys have a standard deviation of 27 in Qwen2.5-7B."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    k = (normal(1, 2, 600, 128) + 26 * normal(128)).bfloat16()
    q, v = (2.5 * normal(1, 2, 28, 128)).bfloat16(), normal(1, 2, 600, 128).bfloat16()
    scores = q.double() @ k.double().transpose(-1, -2) * 128**-0.5
    exact = scores.softmax(-1) @ v.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out, lse = function(q, k, v, None, 128**-0.5)
    assert float((out.double() - exact).norm() / exact.norm()) < 0.005
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1, keepdim=True), rtol=1e-5, atol=1e-3)
