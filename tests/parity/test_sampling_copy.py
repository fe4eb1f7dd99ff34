"""The weights that rollouts use: adapters merged, autocast's casts made once; and the model as it was afterwards."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from spacer.config.settings import LoraSettings, Settings
from spacer.data.loading import PromptDataset
from spacer.data.processing import Prompt
from spacer.models.load import load_policy
from spacer.models.probe import probe_model
from spacer.models.unwrap import text_model, unwrap
from spacer.rollout import decode
from spacer.rollout.completion import Rollout
from spacer.rollout.sampling import Decoding
from spacer.rollout.sampling_copy import sampling_weights
from tests.parity.conftest import prompts_of
from tests.parity.test_rollout import rolled

DECODING = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=16)


@pytest.fixture(scope="module")
def prompts(dataset: PromptDataset) -> list[Prompt]:
    return prompts_of(dataset, 0, 1)


def adapted(settings: Settings, dtype: str = "float32") -> Any:
    """A model with adapters that change what it says."""
    model = load_policy(replace(settings.model, dtype=dtype, lora=LoraSettings(rank=4, alpha=8, dropout=0.0)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def sampled(settings: Settings, model: Any, prompts: list[Prompt], **options: Any) -> Rollout:
    return rolled(model, probe_model(settings.model), prompts, DECODING, group=2, **options)


@contextlib.contextmanager
def as_they_are(model: Any) -> Any:
    yield


def test_merged_adapters_sample_as_unmerged_ones(
    settings: Settings, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(settings, "float64")
    found = sampled(settings, model, prompts)
    without = sampled(settings, load_policy(replace(settings.model, dtype="float64")), prompts)
    monkeypatch.setattr(decode, "sampling_weights", as_they_are)
    expected = sampled(settings, model, prompts)
    assert torch.equal(found.ids_BC, expected.ids_BC) and not torch.equal(found.ids_BC, without.ids_BC)
    torch.testing.assert_close(found.logp_BC, expected.logp_BC)


@pytest.mark.parametrize("with_adapters", [False, True])
def test_weights_cast_once_sample_bit_for_bit_as_autocast_does(
    with_adapters: bool, settings: Settings, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(settings) if with_adapters else load_policy(settings.model)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        found = sampled(settings, model, prompts)
        monkeypatch.setattr(decode, "sampling_weights", as_they_are)
        expected = sampled(settings, model, prompts)
    assert torch.equal(found.ids_BC, expected.ids_BC) and torch.equal(found.logp_BC, expected.logp_BC)


@pytest.mark.parametrize("narrow", [False, True])
def test_layers_are_their_own_again_whatever_happens(settings: Settings, narrow: bool) -> None:
    """Adapters are merged in float32 alone: in 16 bits, a small update of a weight would be rounded away."""
    model = adapted(settings)
    before = dict(model.named_parameters())
    values = {name: parameter.detach().clone() for name, parameter in before.items()}
    layers = [part for part in model.modules() if hasattr(part, "merged_adapters")]
    tied = unwrap(model).get_input_embeddings().weight
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=narrow)
    with pytest.raises(KeyboardInterrupt), autocast, sampling_weights(model):
        assert layers and all(layer.merged != narrow for layer in layers)
        dtypes = {layer.get_base_layer().weight.dtype for layer in layers} | {unwrap(model).lm_head.weight.dtype}
        assert dtypes == {torch.bfloat16 if narrow else torch.float32}
        assert tied.dtype == torch.float32  # an embedding that shares the head's matrix has not been cast
        raise KeyboardInterrupt
    assert not any(layer.merged for layer in layers)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    assert all(torch.equal(after[name], values[name]) for name in values)


def test_a_small_update_of_an_adapter_reaches_rollouts_in_16_bits(settings: Settings) -> None:
    model = load_policy(replace(settings.model, dtype="bfloat16", lora=LoraSettings(rank=4, alpha=8, dropout=0.0)))
    with sampling_weights(model):
        assert not any(part.merged for part in model.modules() if hasattr(part, "merged_adapters"))


def test_nothing_is_copied_where_nothing_is_to_be_merged_or_cast(settings: Settings) -> None:
    model = load_policy(settings.model)
    before = list(text_model(model).parameters())
    with sampling_weights(model):
        assert all(mine is own for mine, own in zip(text_model(model).parameters(), before, strict=True))


def test_a_copy_of_a_sharded_model_is_not_copied_again(settings: Settings) -> None:
    model = adapted(settings)
    unwrap(model).lent = True
    before = list(model.parameters())
    with sampling_weights(model):
        assert all(mine is own for mine, own in zip(model.parameters(), before, strict=True))
        assert not any(part.merged for part in model.modules() if hasattr(part, "merged_adapters"))
