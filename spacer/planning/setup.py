"""Settings → how a run trains and what a batch of it is, as far as memory and FLOPs depend on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from spacer.choices import Checkpointing
from spacer.data.decode import TEMPORAL_PATCH
from spacer.implied import SHARDED, sections
from spacer.planning.sizes import Sizes, VisionSizes
from spacer.planning.work import Picture, Work
from spacer.settings import Settings, VideoSettings

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_TRUE = {"64-true": 8, "64": 8, "bf16-true": 2, "16-true": 2}  # to what Lightning turns all weights
_MIXED = ("bf16-mixed", "bf16", "16-mixed", "16")


@dataclass(frozen=True)
class Setup:
    """How a run trains. Bytes are of one number: of the weights, of adapters, and of the products of matrices, which
    `autocast` may compute in fewer.

    `rank` is of the adapters, None where the weights themselves are trained. `reference` is whether the KL is taken,
    `shuffled` whether videos are asked once more with frames shuffled, by half as many completions. `attention` is one
    of `spacer.attention.row_attention`; `attention_kept` is whether the first update goes on from what the attention of
    the rollout came to. `on_gpu` is whether the optimiser steps on all weights at once,
    `gathered_whole` whether sharded weights are gathered in their own type for autocast too.
    """

    weight_bytes: int
    adapter_bytes: int
    product_bytes: int
    autocast: bool
    rank: int | None
    vision_trained: bool
    checkpointing: Checkpointing
    attention: str
    attention_kept: bool
    ranks: int
    sharded: bool
    eight_bit: bool
    reference: bool
    shuffled: bool
    updates: int
    accumulate: int
    on_gpu: bool
    gathered_whole: bool = False

    @property
    def seen_bytes(self) -> int:
        """Bytes of a weight as layers see it: where FSDP gathers it for autocast, it comes in the type of products."""
        return self.product_bytes if self.sharded and self.autocast and not self.gathered_whole else self.weight_bytes

    @property
    def turned(self) -> bool:
        """Whether each product makes a copy in fewer bits of the weights that it is given."""
        return self.product_bytes < self.seen_bytes

    @property
    def adapters_turned(self) -> bool:
        """As `turned`, of adapters."""
        return (
            self.rank is not None
            and self.product_bytes < self.adapter_bytes
            and not (self.sharded and self.autocast and not self.gathered_whole)
        )

    def trainable(self, sizes: Sizes) -> int:
        """Weights that are trained."""
        if self.rank is not None:
            return self.adapters(sizes)
        return sizes.total - (0 if self.vision_trained else sizes.parameters["vision"])

    def adapters(self, sizes: Sizes) -> int:
        """Weights of the adapters: two matrices beside each one of the language model (LoRA, arXiv 2106.09685)."""
        return 0 if self.rank is None else self.rank * sizes.text.adapted


def setup_of(settings: Settings) -> Setup:
    """How the run of these settings would train, on a GPU unless `cluster.accelerator` is cpu."""
    model, precision = settings.model, settings.trainer.precision
    weight = _TRUE.get(precision, BYTES[model.dtype])
    on_gpu = settings.cluster.accelerator != "cpu"
    assert isinstance(settings.cluster.devices, int)  # a rule of the configuration
    # peft keeps adapters of a 16-bit model in float32, until Lightning turns everything
    adapter = weight if precision in _TRUE else max(4, weight)
    product = 2 if precision in _MIXED else weight
    attention = "masked" if model.attn_implementation == "sdpa" else "flex" if on_gpu else "blocks"
    dropped = model.lora is not None and model.lora.dropout > 0
    optimizer = settings.stage.optimizer
    return Setup(
        weight_bytes=weight,
        adapter_bytes=adapter,
        product_bytes=product,
        autocast=precision in _MIXED,
        rank=None if model.lora is None else model.lora.rank,
        vision_trained=model.lora is None and not model.freeze_vision,
        checkpointing=model.gradient_checkpointing,
        attention=attention,
        attention_kept=attention == "blocks" and product >= 4 and not dropped,
        ranks=settings.cluster.devices * settings.cluster.num_nodes,
        sharded=settings.cluster.strategy in SHARDED,
        eight_bit=getattr(optimizer, "kind", "adamw") == "adamw_8bit",
        reference=settings.objective.beta > 0,
        shuffled=settings.reward.temporal is not None,
        updates=settings.objective.updates_per_rollout,
        accumulate=settings.trainer.accumulate_grad_batches,
        on_gpu=on_gpu,
        gathered_whole=settings.cluster.strategy == "deepspeed_zero3",
    )


def work_of(settings: Settings, sizes: Sizes) -> Work:
    """A rank's batch: the longest prompts that the data allow, unless `stage.plan` says otherwise."""
    assert settings.stage.plan is not None  # a rule of the configuration
    plan, objective = settings.stage.plan, settings.objective
    datasets = [dataset for _, dataset in sections(settings)]
    picture = max((largest_video(d.video, sizes.vision) for d in datasets), key=lambda p: p.tokens)
    most = plan.prompt_tokens or min(picture.tokens + plan.text_tokens, max(d.max_prompt_length for d in datasets))
    if plan.prompt_tokens is not None or picture.tokens + plan.text_tokens > most:
        picture = with_tokens(picture, most - plan.text_tokens)
    questions = min(settings.dataset.questions_per_video, objective.prompts_per_rollout)
    return Work(
        pictures=(picture,) * math.ceil(objective.prompts_per_rollout / questions),
        questions=questions,
        fewer=-objective.prompts_per_rollout % questions,
        text=min(plan.text_tokens, most),
        group=objective.group_size,
        length=plan.completion_tokens or objective.max_completion_length,
        budget=objective.row_tokens,
    )


def largest_video(video: VideoSettings, vision: VisionSizes) -> Picture:
    """A video with as many frames and pixels as the settings allow, as nearly square as whole tokens make it."""
    side = vision.patch * math.isqrt(vision.patches_a_token)
    pixels = video.max_pixels if video.max_side is None else min(video.max_pixels, video.max_side**2)
    tokens = max(4, pixels // side**2)  # the processor enlarges smaller pictures
    height = math.isqrt(tokens)
    return Picture(max(1, video.max_frames // TEMPORAL_PATCH), height, tokens // height)


def with_tokens(picture: Picture, tokens: int) -> Picture:
    """The video with so many pairs of frames that it has about, and at least one, that number of tokens."""
    return replace(picture, frames=max(1, round(tokens / (picture.height * picture.width))))
