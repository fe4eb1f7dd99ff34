"""Completions written on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spacer.attention.kv_cache import Padding, attend_by_flash, attend_by_products
from spacer.data.processing import Prompt, collate
from spacer.models.forward import ComputeOptions
from spacer.models.selfcheck import LIMITS
from spacer.rollout.sampling import Decoding
from tests.cuda.test_rows import HEAD_DIM, joined
from tests.parity.families import FAMILIES, make, make_prompts
from tests.parity.test_rollout import Words, rolled
from tests.parity.test_tree import tree_logps

SHOWN = (("video", 3), ("image", 2), ("images", 1), ("text", 2), ("video", 1))


def asked(family: str) -> list[Prompt]:
    rng, model = np.random.default_rng(2), make(family, head_dim=HEAD_DIM)
    return [p for kind, count in SHOWN for p in make_prompts(family, model, rng, kind, count, torch.float64)]


@pytest.mark.parametrize("budget", [1, 10_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_likeliest_tokens_are_those_of_a_cpu(family: str, budget: int, device: torch.device) -> None:
    """Where in float64 they are those that transformers generates, by a test of their own."""
    greedy = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=20)
    expected = rolled(make(family, head_dim=HEAD_DIM), Words(), asked(family), greedy)
    model = make(family, torch.float32, HEAD_DIM).to(device)
    for decoding in ("torch", "graph"):
        compute = ComputeOptions("flex", budget, decoding=decoding)
        found = rolled(model, Words(), asked(family), greedy, compute=compute)
        assert torch.equal(found.ids_BC.cpu(), expected.ids_BC)
        assert len(set(found.lengths)) > 1


@pytest.mark.parametrize("decoding", ["torch", "graph", "flash_attn"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, LIMITS[torch.bfloat16])])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_kept_are_those_of_packed_rows(
    family: str, dtype: torch.dtype, near: float, decoding: str, device: torch.device
) -> None:
    if decoding == "flash_attn":
        pytest.importorskip("flash_attn")
        if dtype == torch.float32:
            pytest.skip("flash-attn computes in 16 bits")
    model, compute = make(family, dtype, HEAD_DIM).to(device), ComputeOptions("flex", 10_000, decoding=decoding)
    rollout = rolled(model, Words(), asked(family), Decoding(1.0, 0.95, 160), group=3, compute=compute)
    assert len(set(rollout.lengths)) > 3
    completions = rollout.completions(3)
    with torch.no_grad():
        again = joined(tree_logps(model, collate(asked(family)).to(device), completions, compute), completions)
    kept = torch.cat([row[:length] for row, length in zip(rollout.logp_BC, rollout.lengths, strict=True)])
    assert float((again - kept).abs().mean()) <= near


@pytest.mark.parametrize("queries", [1, 7, 56])
@pytest.mark.parametrize("lengths", [[300, 300, 300], [300, 17, 256]])
def test_flash_attention_gives_what_products_give(queries: int, lengths: list[int], device: torch.device) -> None:
    pytest.importorskip("flash_attn")
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (
        torch.randn(3, 2, n, 128, generator=generator, device=device, dtype=torch.bfloat16) for n in (queries, 300, 300)
    )
    padding = Padding.of(lengths, device)
    for part, expected in zip(
        attend_by_flash(q, k, v, padding, 0.09),
        attend_by_products(q.double(), k.double(), v.double(), padding, 0.09),
        strict=True,
    ):
        assert part.shape == expected.shape and part.dtype == torch.float32
        torch.testing.assert_close(part.double(), expected, rtol=2e-2, atol=2e-2)


def test_keys_with_a_large_common_bias_are_told_apart_in_16_bits(device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    bias = 26 * torch.randn(128, generator=generator, device=device)  # as large as in Qwen2.5-7B
    q, k, v = (
        (spread * torch.randn(3, 2, n, 128, generator=generator, device=device) + shift).bfloat16()
        for n, spread, shift in ((28, 2.5, 0.0), (600, 1.0, bias), (600, 1.0, 0.0))
    )
    exact, exact_lse = attend_by_products(q.double(), k.double(), v.double(), None, 128**-0.5)
    out, lse = attend_by_products(q, k, v, None, 128**-0.5)
    assert float((out.double() - exact).norm() / exact.norm()) < 0.005
    torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-5, atol=1e-3)
