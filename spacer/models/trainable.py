"""What of a model is trained, and what of its state a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from spacer.errors import UserError


def without_frozen(module: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a state that training can change: frozen parameters are where they came from."""
    frozen = _parameters(module, trained=False)
    return {name: value for name, value in state.items() if name not in frozen}


def check_trained(module: nn.Module, state: Mapping[str, Any]) -> None:
    """UserError where a checkpoint's state lacks parameters that are trained."""
    if missing := sorted(_parameters(module, trained=True) - state.keys()):
        raise UserError(
            f"the checkpoint lacks {len(missing)} of the parameters that are trained, such as {missing[0]}: go on with "
            "the settings that it was written under (model.lora, model.freeze_vision), as .hydra/config.yaml beside it "
            "has them, or begin anew in another run folder"
        )


def _parameters(module: nn.Module, trained: bool) -> set[str]:
    named = module.named_parameters(remove_duplicate=False)  # two names of one tensor are both in a state
    return {name for name, parameter in named if parameter.requires_grad == trained}


def decaying(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters that weight decay is for, and those of norms and biases, which it leaves out.

    As Hugging Face's trainers have it: embeddings and adapters decay. By names, not shapes: ZeRO-3 leaves a process a
    flat part of each parameter.
    """
    weights, others = dict[int, nn.Parameter](), dict[int, nn.Parameter]()  # two names of one tensor are one
    for part in module.modules():
        is_norm = "norm" in type(part).__name__.lower()
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.requires_grad:
                (others if is_norm or name == "bias" else weights)[id(parameter)] = parameter
    return list(weights.values()), list(others.values())
