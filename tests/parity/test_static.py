"""Decoding that keeps its shapes: against the other loop, token for token, and how much of it a GPU would be told."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from spacer.attention import pages
from spacer.attention.kv_cache import LeafCache
from spacer.data.processing import Prompt
from spacer.models.families import family_of
from spacer.models.forward import ComputeOptions
from spacer.planning import duration
from spacer.rollout import sampling, static
from spacer.rollout.sampling import Decoding
from tests.parity import families
from tests.parity.families import EOS, FAMILIES, exact, make, make_prompts
from tests.parity.test_rollout import Words, rolled

SHOWN = (("video", 3), ("image", 2), ("images", 1), ("text", 2), ("video", 1))
PLAIN, STATIC = (ComputeOptions("masked", 10_000, decoding=name) for name in ("torch", "graph"))


def asked(family: str, model: Any) -> list[Prompt]:
    rng = np.random.default_rng(2)
    return [p for kind, count in SHOWN for p in make_prompts(family, model, rng, kind, count, torch.float64)]


@pytest.mark.parametrize(
    ("decoding", "page"), [(Decoding(1.0, 0.95, 150), 4), (Decoding(0.0, 1.0, 40), 256), (Decoding(0.7, 1.0, 20), 16)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_writes_what_the_other_loop_writes(
    family: str, decoding: Decoding, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.PagedCache.__init__, "__defaults__", (page,))
    model = make(family)
    prompts = asked(family, model)
    with exact(model):
        expected, found = (rolled(model, Words(), prompts, decoding, 3, compute=c) for c in (PLAIN, STATIC))
    assert torch.equal(found.ids_BC, expected.ids_BC) and found.texts == expected.texts
    assert torch.equal(found.truncated_B, expected.truncated_B)
    torch.testing.assert_close(found.logp_BC, expected.logp_BC, rtol=1e-6, atol=1e-6)
    if decoding.max_new_tokens > 100:
        assert (
            0 < 2 * sum(length > 2 * static.LOOK for length in expected.lengths) <= len(expected.lengths)
        )  # rows are left


def test_a_nucleus_wider_than_is_looked_at_is_drawn_from_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("qwen2_5_vl")
    prompts, decoding = asked("qwen2_5_vl", model), Decoding(1.0, 0.9, 60)
    with exact(model):
        expected = rolled(model, Words(), prompts, decoding, 2, compute=STATIC)
        for module in (sampling, static):
            monkeypatch.setattr(module, "NUCLEUS", 3)
        found = rolled(model, Words(), prompts, decoding, 2, compute=STATIC)
    assert torch.equal(found.ids_BC, expected.ids_BC)
    torch.testing.assert_close(found.logp_BC, expected.logp_BC)


VIEWS = {"view", "_unsafe_view", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "slice", "select"}
VIEWS |= {"detach", "alias", "as_strided", "split", "split_with_sizes", "unbind", "_reshape_alias"}
SYNCS = {"lift_fresh", "_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "masked_select", "unique"}


class Counted(TorchDispatchMode):
    """The operators that are called, views left out, and those that a device would be waited for with."""

    def __init__(self) -> None:
        super().__init__()
        self.called: Counter[str] = Counter()
        self.shapes: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.split("::")[1]
        result = function(*args, **(kwargs or {}))
        if name not in VIEWS and function.namespace == "aten" and name != "promote_types":  # which computes a type
            self.called[name] += 1
            self.shapes.append((name, *(tuple(x.shape) for x in args if torch.is_tensor(x))))
        return result


def counted(layers: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """The steps of a window, one by one."""
    monkeypatch.setitem(families._TEXT, "num_hidden_layers", layers)
    model = make("qwen2_5_vl", dtype)
    model.lm_head.bias.data[EOS] = -1e4
    steps: list[Counted] = []
    advance = static.StaticDecoder._advance

    def noted(self: Any, width: int | None) -> None:
        with Counted() as mode:
            advance(self, width)
        steps.append(mode)

    monkeypatch.setattr(static.StaticDecoder, "_advance", noted)
    prompts = make_prompts("qwen2_5_vl", model, np.random.default_rng(0), "video", 2, torch.float64)
    rolled(model, Words(), prompts, Decoding(1.0, 0.95, 32), 4, compute=STATIC)
    monkeypatch.setattr(static.StaticDecoder, "_advance", advance)
    return steps


# PyTorch's attention over pages is one kernel, which there is none of on a CPU; in float32 it is matrix products
@pytest.mark.parametrize(("dtype", "kernel", "most"), [(torch.bfloat16, True, 40), (torch.float32, False, 44)])
def test_a_token_is_few_operators_no_wait_and_no_change_of_shape(
    dtype: torch.dtype, kernel: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel:
        monkeypatch.setattr(pages.PagedCache, "_by_products", lambda cache, q, *_: q.clone())
    few, many = (counted(layers, dtype, monkeypatch) for layers in (2, 4))
    assert len(few) == 32
    for step in few:
        assert not SYNCS & set(step.called)
        assert step.shapes == few[0].shapes
    a_layer = many[0].called - few[0].called
    assert 20 < sum(a_layer.values()) / 2 <= most, a_layer


@pytest.mark.parametrize("adapters", [False, True])
def test_the_plan_counts_the_operators_of_the_other_loop(adapters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (eager(layers, adapters, monkeypatch) for layers in (2, 4))
    a_layer = sum((many.called - few.called).values()) / 2
    assert a_layer == duration.LAYER_OPERATORS + (duration.ADAPTER_OPERATORS if adapters else 0)
    assert sum(few.called.values()) - 2 * a_layer == duration.OTHER_OPERATORS


def eager(layers: int, adapters: bool, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """A token's step in 16 bits, of a model with adapters on all matrices of its layers or without."""
    monkeypatch.setitem(families._TEXT, "num_hidden_layers", layers)
    model = make("qwen2_5_vl", torch.bfloat16)
    model.lm_head.bias.data[EOS] = -1e4
    prompts = make_prompts("qwen2_5_vl", model, np.random.default_rng(0), "video", 2, torch.float64)
    if adapters:
        targets = family_of(model.config).lora_targets
        model = get_peft_model(model, LoraConfig(r=2, target_modules=targets), autocast_adapter_dtype=True)
    steps: list[Counted] = []
    advance = LeafCache.advance

    def noted(cache: LeafCache) -> None:
        if steps:
            steps[-1].__exit__(None, None, None)
        steps.append(Counted())
        steps[-1].__enter__()
        advance(cache)

    with monkeypatch.context() as patched:
        patched.setattr(LeafCache, "advance", noted)
        rolled(model, Words(), prompts, Decoding(1.0, 0.95, 12), 4, compute=PLAIN)
        steps[-1].__exit__(None, None, None)
    return steps[5]
