"""A model without weights is, but for them, the one that is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from spacer.config.settings import LoraSettings, Settings
from spacer.models import load
from spacer.models.load import load_policy, load_reference


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora": LoraSettings(rank=4)}, {"freeze_vision": True, "dtype": "bfloat16"}],
    ids=["all", "adapters", "frozen"],
)
def test_an_empty_model_is_built_as_one_that_is_loaded(
    settings: Settings, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(settings.model, **changes)
    loaded = load_policy(model), load_reference(model)

    def read(*_: Any) -> None:
        raise AssertionError("read weights")

    monkeypatch.setattr(load, "_loaded", read)
    empty = load_policy(model, empty=True), load_reference(model, empty=True)
    for one, other in zip(loaded, empty, strict=True):
        assert one.training == other.training
        assert str(one) == str(other)
        for kind in ("named_parameters", "named_buffers"):
            found, expected = (dict(getattr(made, kind)()) for made in (other, one))
            assert list(found) == list(expected)  # a tied weight is one
            for name, value in expected.items():
                mine = found[name]
                assert (mine.shape, mine.dtype, mine.device) == (value.shape, value.dtype, value.device)
                assert mine.requires_grad == value.requires_grad
                if kind == "named_buffers":
                    assert torch.equal(mine, value)
