"""What the modules of model families say holds for transformers' models of these families."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from transformers import AutoModelForImageTextToText

from spacer.config.families import FAMILIES, SMALLEST_TOKEN_PX
from spacer.config.paths import ROOT
from spacer.models.families import family_of
from tests.model_folders import make_config, make_processor

FACTS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf/model/architecture").glob("*.yaml")}
families = pytest.mark.parametrize("model_type", FAMILIES)


def model_of(model_type: str) -> Any:
    config = make_config(model_type, make_processor(model_type).tokenizer)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


@families
def test_a_module_of_the_name_of_its_model_type(model_type: str) -> None:
    model = model_of(model_type)
    family = family_of(model.config)
    assert family.facts is FAMILIES[model_type] and family.facts.model_type == model_type
    assert type(family).__module__ == f"spacer.models.families.{model_type}"


def test_no_other_module_is_imported() -> None:
    class Config:
        model_type = "protocol"

    with pytest.raises(KeyError, match="protocol"):
        family_of(Config())


@families
def test_adapters_are_beside_each_matrix_of_the_decoder_layers(model_type: str) -> None:
    model = model_of(model_type)
    family = family_of(model.config)
    found = {module for name, module in model.named_modules() if re.fullmatch(family.lora_targets, name)}
    assert found == {part for part in family.text_model(model).layers.modules() if isinstance(part, nn.Linear)}


@families
def test_parts_that_are_sharded_hold_all_but_embeddings_and_final_norm(model_type: str) -> None:
    model = model_of(model_type)
    family = family_of(model.config)
    parts = family.sharded_parts(model)
    # a whole after its parts, or it would take their parameters for its own
    assert not any(later in list(part.modules())[1:] for n, part in enumerate(parts) for later in parts[n + 1 :])
    held = {parameter for part in parts for parameter in part.parameters()}
    assert held >= set(family.vision_tower(model).parameters())
    left = {name for name, parameter in model.named_parameters() if parameter not in held}
    assert left == {"model.language_model.embed_tokens.weight", "model.language_model.norm.weight"}


@families
def test_traits_are_those_of_the_modules(model_type: str) -> None:
    model = model_of(model_type)
    family = family_of(model.config)
    traits, tower, text = family.plan_traits(model), family.vision_tower(model), family.text_model(model)
    assert traits.normed_heads == hasattr(text.layers[0].self_attn, "q_norm")
    assert traits.gated_vision == hasattr(tower.blocks[0].mlp, "gate_proj")
    assert traits.gated_vision == ("RMSNorm" in type(tower.blocks[0].norm1).__name__)
    assert (traits.window is not None) == hasattr(model.config.vision_config, "window_size")
    assert len(traits.deeper_mergers) == len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))


@pytest.mark.parametrize("name", FACTS)
def test_a_token_is_as_large_as_in_the_published_models(name: str) -> None:
    vision = FACTS[name]["vision"]
    side = vision["patch_size"] * vision["spatial_merge_size"]
    assert FAMILIES[FACTS[name]["model_type"]].token_px == side >= SMALLEST_TOKEN_PX


def test_what_configuration_knows_of_families_imports_no_torch() -> None:
    code = "import sys, spacer.config.families; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
