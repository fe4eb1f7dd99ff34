"""Loading a model, and the three things asked of it: vision features, states over a packed row, log-probabilities.

Works for the Qwen2-VL, Qwen2.5-VL and Qwen3-VL classes of transformers. Everything goes through the text model by its
public arguments: embeddings, explicit M-RoPE positions, and `tree`, which `spacer.attention` attends with.

Shape suffixes: M vision tokens of a batch, H hidden, L tokens of a row, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spacer.attention import TREE, WINDOWS, Attended, Attention, register, row_attention
from spacer.choices import Checkpointing, Positions
from spacer.data.processing import Pictures
from spacer.lanes import at_once, side_by_side
from spacer.linear import linear, use_faster_products
from spacer.objective import token_logps
from spacer.positions import PositionRule
from spacer.settings import ModelSettings
from spacer.tree import PackedRow
from spacer.trimming import trim

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

PATCHES = 4096  # that go through the vision tower at once, unless one frame has more
LOGITS = 2**24  # logits held at once; where there are more, they are made again in the backward pass, chunk by chunk

register()


@dataclass(frozen=True)
class Packing:
    """How trees are computed: the attention over a row (`spacer.attention.row_attention`), the tokens of a row,
    whether the vision tower keeps its features alone, and computes the rest again for its backward pass, and the
    attention of tokens that are written (`spacer.cache.LeafCache`)."""

    attention: str
    row_tokens: int
    vision_again: bool = False
    decoding: str = "torch"

    @property
    def lanes(self) -> int:
        """How many rows, or portions of pictures, to compute side by side (`spacer.lanes`)."""
        return at_once() if self.attention == "blocks" else 1


@dataclass(frozen=True)
class Vision:
    """Features of a batch's vision tokens, images before videos; `deeper_MH` are Qwen3-VL's for the first layers."""

    embeds_MH: Tensor | None = None
    deeper_MH: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Vision:
        """The features as `tensors` gives them."""
        return cls(tensors[0], tuple(tensors[1:])) if tensors else cls()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All features."""
        return () if self.embeds_MH is None else (self.embeds_MH, *self.deeper_MH)

    @property
    def trained(self) -> bool:
        """Whether the vision tower is to have their gradient."""
        return any(x.requires_grad for x in self.tensors)

    def detach(self) -> Vision:
        """The same values, cut off from the vision tower."""
        return Vision.of([x.detach() for x in self.tensors])

    def take(self, features_N: Tensor) -> Vision:
        """Some of the features, cut off from the others: to be given a gradient, if the tower is trained."""
        return Vision.of([x.detach()[features_N.to(x.device)].requires_grad_(x.requires_grad) for x in self.tensors])


class PatchProjection(torch.nn.Conv3d):
    """The vision tower's first layer, whose kernel is as large as the patches that it is given, as the matrix product
    that it is: several times as fast as a convolution. Parameters keep their names and shapes."""

    @classmethod
    def of(cls, layer: torch.nn.Conv3d) -> PatchProjection:
        """The same layer, sharing its parameters."""
        with torch.device("meta"):
            made = cls(layer.in_channels, layer.out_channels, kernel_size=1, bias=False)
        made.weight, made.bias = layer.weight, layer.bias
        return made

    def forward(self, patches: Tensor) -> Tensor:
        """N x channels x frames x height x width → N x out x 1 x 1 x 1."""
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def load_processor(settings: ModelSettings) -> Qwen2_5_VLProcessor:
    """The processor that lies with the weights."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(
        settings.name_or_path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
    )


def load_policy(settings: ModelSettings, vision_attention: str = WINDOWS) -> Any:
    """The model with its weights: trainable as `settings` say, wrapped by peft where adapters are asked for.

    Raises:
        ValueError: the text model attends in sliding windows, which trees do not.
    """
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(
        settings.name_or_path,
        revision=settings.revision,
        dtype=getattr(torch, settings.dtype),
        attn_implementation={"text_config": TREE, "vision_config": "sdpa"},
        trust_remote_code=settings.trust_remote_code,
    )
    check_text_model(model)
    model.set_attn_implementation({"vision_config": vision_attention})  # WINDOWS would not pass as an argument above
    embed = model.model.visual.patch_embed
    embed.proj = PatchProjection.of(embed.proj)
    use_faster_products(model)
    if settings.gradient_checkpointing == Checkpointing.all:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.freeze_vision:
        model.model.visual.requires_grad_(False)
    if settings.lora is not None:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(
                r=settings.lora.rank,
                lora_alpha=settings.lora.alpha,
                lora_dropout=settings.lora.dropout,
                target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
            ),
        )
    trim(plain(model).model.language_model)
    return model


def check_text_model(model: Any) -> None:
    """ValueError for a model whose layers do not all attend to everything before them."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ValueError(
            f"{model.config.name_or_path}: its layers are {', '.join(sorted(kinds))}; "
            "prefix trees need full attention in each: in its config.json, under text_config if there is one, "
            "take layer_types out and set use_sliding_window to false"
        )


def load_reference(settings: ModelSettings, vision_attention: str = WINDOWS) -> Any:
    """A frozen copy of the weights that training starts from."""
    model = load_policy(replace(settings, lora=None, gradient_checkpointing=Checkpointing.none), vision_attention)
    return model.requires_grad_(False).eval()


def trains_vision(model: Any) -> bool:
    """Whether the vision tower is trained."""
    return any(parameter.requires_grad for parameter in plain(model).model.visual.parameters())


def drops(model: Any) -> bool:
    """Whether a part of the model drops activations at random, in training."""
    return any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in model.modules())


def plain(model: Any) -> Any:
    """The transformers model inside peft's wrapper; adapters act in it too."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def position_rule(config: Any, positions: Positions) -> PositionRule:
    """How the model of this configuration numbers its tokens: each family has its own idea of time."""
    vision = config.vision_config
    return PositionRule(
        merge=vision.spatial_merge_size,
        tokens_per_second=getattr(vision, "tokens_per_second", None),
        split_frames=config.model_type.startswith("qwen3_vl"),
        original=Positions(positions) == Positions.original,
    )


def eos_ids(processor: Qwen2_5_VLProcessor) -> tuple[int, ...]:
    """Tokens that end a completion."""
    return (processor.tokenizer.eos_token_id,)


@dataclass(frozen=True)
class Portion:
    """Pictures, or frames of a video, that go through the vision tower together."""

    video: bool
    pixels_PD: Tensor
    grids_N3: Tensor

    def tokens(self, model: Any) -> int:
        """How many features they have."""
        return int(self.grids_N3.prod(1).sum()) // plain(model).config.vision_config.spatial_merge_size ** 2

    def encode(self, model: Any) -> tuple[Tensor, ...]:
        """Their features, as `Vision.tensors`."""
        base = plain(model)
        features = base.get_video_features if self.video else base.get_image_features
        output = features(self.pixels_PD, self.grids_N3, return_dict=True)
        deeper = getattr(output, "deepstack_features", None) or ()
        return (torch.cat(output.pooler_output), *(torch.cat(feature) for feature in deeper))


def encode_vision(model: Any, pictures: Pictures, lanes: int = 1, passes: int = 0) -> Vision:
    """Each image and video through the vision tower once, so many portions at once; `passes` as in `portions`."""
    found = side_by_side(lambda portion: portion.encode(model), portions(model, pictures, passes), lanes)
    return Vision.of([torch.cat(parts) for parts in zip(*found, strict=True)])


def portions(model: Any, pictures: Pictures, passes: int = 0) -> list[Portion]:
    """Images and then videos, a few thousand patches at a time: the tower attends within a frame (a pair of a video's),
    so that long videos may be cut between them.

    Where there are fewer than `passes`, blank pictures make up the number; their features come last, where no token
    stands for them.
    """
    found = _pictured(pictures)
    return found + [Portion(False, *_blank(plain(model)))] * (passes - len(found))


def count_passes(pictures: Pictures) -> int:
    """How many forward passes of the vision tower `encode_vision` takes."""
    return len(_pictured(pictures))


def _pictured(pictures: Pictures) -> list[Portion]:
    """Portions of what there is."""
    return [
        *(Portion(False, *part) for part in _portions(pictures.image_pixels, pictures.image_grids)),
        *(Portion(True, *part) for part in _portions(pictures.video_pixels, pictures.video_grids)),
    ]


def _blank(base: Any) -> tuple[Tensor, Tensor]:
    """The smallest picture there is, of one token, as patches and grid."""
    vision = base.config.vision_config
    side, device = vision.spatial_merge_size, base.lm_head.weight.device
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return torch.zeros(side**2, values, device=device), torch.tensor([[1, side, side]], device=device)


def _portions(pixels: Tensor | None, grids: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole pictures, as many as `PATCHES` allow; a video that has more by itself in even parts of its frames."""
    if pixels is None or grids is None:
        return
    parts = [part for grid in grids.tolist() for part in _cut(*grid)]
    patches = [frames * height * width for frames, height, width in parts]
    first = start = stop = 0
    for place, count in enumerate(patches):
        if place > first and stop + count - start > PATCHES:
            yield pixels[start:stop], grids.new_tensor(parts[first:place])
            first, start = place, stop
        stop += count
    yield pixels[start:stop], grids.new_tensor(parts[first:])


def _cut(frames: int, height: int, width: int) -> list[tuple[int, int, int]]:
    """Grids of a picture's parts, each of at most `PATCHES` patches or of one frame."""
    at_most = max(1, PATCHES // (height * width))
    count = -(-frames // at_most)
    return [((frames * (n + 1)) // count - (frames * n) // count, height, width) for n in range(count)]


def attention_over(
    row: PackedRow, model: Any, packing: Packing, known: Mapping[int, Attended] | None = None
) -> Attention:
    """What the model attends to the row with; `known` as in `row_attention`."""
    base = plain(model)
    layers = base.config.get_text_config().num_hidden_layers
    return row_attention(row, packing.attention, base.lm_head.weight.device, layers, known)


def row_states(model: Any, row: PackedRow, vision: Vision, attention: Attention) -> Tensor:
    """Final hidden states of a packed row, LH; of the tokens of `row.reads_R`, others mean nothing."""
    base = plain(model)
    embed = base.get_input_embeddings()
    device = embed.weight.device
    embeds_LH = embed(row.ids_L.to(device))
    extra: dict[str, Any] = {}
    seen = row.vision_L >= 0
    if vision.embeds_MH is not None and bool(seen.any()):
        places, features = seen.nonzero()[:, 0].to(device), row.vision_L[seen].to(device)
        embeds_LH = embeds_LH.index_put((places,), vision.embeds_MH[features].to(embeds_LH.dtype))
        if vision.deeper_MH:
            extra["visual_pos_masks"] = seen[None].to(device)
            extra["deepstack_visual_embeds"] = [deeper[features] for deeper in vision.deeper_MH]
    states: Tensor = base.model.language_model(
        inputs_embeds=embeds_LH[None],
        position_ids=row.positions_3L[:, None].to(device),
        use_cache=False,
        tree=attention,
        **extra,
    ).last_hidden_state[0]
    return states


def row_logps(
    model: Any,
    row: PackedRow,
    vision: Vision,
    packing: Packing,
    temperature: float = 1.0,
    known: Mapping[int, Attended] | None = None,
) -> Tensor:
    """Log-probability (N, float32 at least) of each predicted token of a row, under logits / temperature.

    `known` is what attention comes to in each layer, where that is known (`spacer.attended`).

    The vocabulary is met only where a token is predicted, and in chunks, so that no L x V tensor is made.
    """
    head = plain(model).lm_head
    device = head.weight.device
    states_LH = row_states(model, row, vision, attention_over(row, model, packing, known))
    states_NH = states_LH[row.predictors_N.to(device)]
    targets_N = row.targets_N.to(device)
    size = max(1, LOGITS // head.weight.shape[0])
    again = len(targets_N) > size and torch.is_grad_enabled()

    def logps(states: Tensor, targets: Tensor) -> Tensor:
        # a call of the module would be a collective under ZeRO-3, and each process has chunks of its own number
        logits = linear(states, head.weight, head.bias)
        return token_logps((logits / temperature if temperature != 1 else logits)[None], targets[None])[0]

    parts = zip(states_NH.split(size), targets_N.split(size), strict=True)
    return torch.cat([checkpoint(logps, *part, use_reentrant=False) if again else logps(*part) for part in parts])


def refill(settings: ModelSettings, state: dict[str, Tensor]) -> Any:
    """A model as `load_policy` makes it, with the tensors of a state dict in place of its own."""
    model = load_policy(replace(settings, gradient_checkpointing=Checkpointing.none))
    model.load_state_dict(state, assign=True)
    plain(model).tie_weights()  # two names of one tensor stay one
    return model


def merge_adapters(model: Any) -> Any:
    """The model with its adapters, if any, merged into the weights; what is given is taken apart for it."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def save_pretrained(model: Any, processor: Qwen2_5_VLProcessor, folder: Path, dtype: str | None = None) -> None:
    """Writes an ordinary Hugging Face folder of a model without adapters."""
    state = model.state_dict()
    if dtype is not None:
        # tied weights are one tensor under two names, and must stay one to be written once
        cast: dict[int, Tensor] = {}
        for name, value in state.items():
            state[name] = cast.setdefault(value.data_ptr(), value.to(getattr(torch, dtype)))
    model.save_pretrained(folder, state_dict=state)
    processor.save_pretrained(folder)
