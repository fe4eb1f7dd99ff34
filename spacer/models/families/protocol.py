"""What a module of a model family offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from spacer.config.choices import FrameTimes, Positions
from spacer.config.families import Family
from spacer.tree.mrope import PositionRule


@dataclass(frozen=True)
class PlanTraits:
    """What estimates of memory and FLOPs need to know of a model's layers besides their sizes.

    `full_blocks` of the vision blocks attend to the whole frame, the others within windows of `window` x `window`
    tokens. `deeper_mergers` make the additional features of `ModelFamily.features`.
    """

    normed_heads: bool  # queries and keys have norms of their own
    gated_vision: bool  # the vision tower's MLPs have a gate, and its norms are RMS norms
    full_blocks: int
    window: int | None
    deeper_mergers: Sequence[nn.Module] = ()


class ModelFamily(Protocol):
    """A model family of transformers. `model` is one of its models, without peft's wrapper.

    `facts` are what data and configuration know of it, without torch. `lora_targets` is a regular expression for the
    names of the modules that get adapters.
    """

    facts: Family
    lora_targets: str

    def position_rule(self, config: Any, positions: Positions, frame_times: FrameTimes) -> PositionRule:
        """How the model of this configuration numbers the tokens of a prompt.

        Raises:
            UserError: its positions do not depend on `frame_times`, and these are not the real ones.
        """

    def vision_tower(self, model: Any) -> Any:
        """The vision tower with its merger, as a module."""

    def text_model(self, model: Any) -> Any:
        """The language model without its head, as a module."""

    def features(self, encoded: Any) -> tuple[Tensor, ...]:
        """The output of `get_image_features` or `get_video_features` → features of all vision tokens, each MH: the
        embeddings, then those that further layers of the language model take in."""

    def deeper_inputs(self, is_vision_L: Tensor, deeper_NH: Sequence[Tensor]) -> dict[str, Any]:
        """The text model's arguments for the features beyond the embeddings, given for the row's N vision tokens."""

    def sharded_parts(self, model: Any) -> list[nn.Module]:
        """The modules whose parameters are gathered together when the model is sharded, parts before wholes."""

    def plan_traits(self, model: Any) -> PlanTraits:
        """What planning needs to know of the model, which may be on the meta device."""
