"""How a model is computed: in prefix trees, where its family is supported, or plainly, by transformers alone."""

from __future__ import annotations

import logging
from typing import Any

from spacer.config.choices import Computation, Positions
from spacer.config.families import FAMILIES, NAMES
from spacer.config.rules.computation import beside_plain
from spacer.config.settings import ModelSettings, Settings
from spacer.errors import UserError
from spacer.models.probe import load_config

log = logging.getLogger(__name__)


def choose_computation(settings: Settings) -> Computation:
    """`tree` or `plain`: what `model.computation` comes to for this model, said in the log where it is the latter.

    Raises:
        UserError: trees are asked for and the model has none; or it can only be computed plainly, and the settings ask
            for what that does not do; or transformers has no model of this type that takes images and text.
    """
    model = settings.model
    if model.fresh:  # its files are yet to be written
        return Computation.tree
    config, where = load_config(model), f"model.name_or_path={model.name_or_path}"
    reason = no_trees(config)
    if model.computation == Computation.tree and reason is not None:
        raise UserError(
            f"{where}: model.computation=tree is not for this model: {reason}. Set model.computation=plain, or auto"
        )
    if reason is None and model.computation != Computation.plain:
        return Computation.tree
    if problem := _unknown(config, model):
        raise UserError(f"{where}: {problem}")
    if reason is not None and (fault := beside_plain(settings)) is not None:
        raise UserError(f"{where}: without prefix trees ({reason}), {fault}")
    if config.model_type in FAMILIES and model.positions != Positions.transformers:
        raise UserError(
            f"model.positions={model.positions} is for prefix trees, and the plain computation numbers tokens as "
            "transformers does: set model.positions=transformers"
        )
    log.info(
        "plain computation: completions by model.generate, log-probabilities by padded forward passes, nothing shared "
        "(%s)",
        reason or "model.computation=plain",
    )
    return Computation.plain


def no_trees(config: Any) -> str | None:
    """Why models of a configuration are not computed in prefix trees; None where they are."""
    if config.model_type not in FAMILIES:
        return f"it is of type {config.model_type}, and prefix trees are made for {NAMES}"
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its layers are {', '.join(sorted(kinds))}, and prefix trees need full attention in each"
    return None


def _unknown(config: Any, model: ModelSettings) -> str | None:
    """Why transformers has no such model of images and text, with the remedy; None where it has."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or (
        model.trust_remote_code and "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
    ):
        return None
    return (
        f"its config.json names a model of type {config.model_type}, which is none of those of transformers that take "
        f"images and text: choose a model with AutoModelForImageTextToText, or one with prefix trees, {NAMES}"
    )
