"""Derives the training setup and batch from settings, as far as memory and FLOPs depend on them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from spacer.config.choices import Checkpointing, DecodingLoop, OptimizerKind
from spacer.config.derived import optimizer_of, sections
from spacer.config.settings import PlanStage, Settings, VideoSettings
from spacer.data.frames import TEMPORAL_PATCH
from spacer.planning.sizes import Sizes, VisionSizes
from spacer.planning.work import Picture, Work

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_TRUE = {"64-true": 8, "64": 8, "bf16-true": 2, "16-true": 2}  # dtypes to which Lightning converts all weights
_MIXED = ("bf16-mixed", "bf16", "16-mixed", "16")


@dataclass(frozen=True)
class Setup:
    """How a run trains. Bytes are per element: of the weights, of adapters, and of matrix products, which `autocast`
    may compute in a narrower dtype.

    `rank` is the adapters' rank, None if the weights themselves are trained. `reference` is whether the KL is computed,
    `shuffled` whether videos are asked again with shuffled frames, for half as many completions. `attention` is one
    of `spacer.attention.rows.row_attention`. `on_gpu` is whether the optimiser updates all weights at once,
    `captured` whether a CUDA graph launches a decoding step, `gathered_whole` whether sharded weights are gathered in
    their own dtype even with autocast.
    """

    weight_bytes: int
    adapter_bytes: int
    product_bytes: int
    autocast: bool
    rank: int | None
    vision_trained: bool
    checkpointing: Checkpointing
    attention: str
    ranks: int
    sharded: bool
    eight_bit: bool
    reference: bool
    shuffled: bool
    parts: int
    updates: int
    accumulate: int
    on_gpu: bool
    captured: bool = False
    gathered_whole: bool = False

    @property
    def seen_bytes(self) -> int:
        """Bytes of a weight as layers see it: when FSDP gathers it for autocast, it has the dtype of products."""
        return self.product_bytes if self.sharded and self.autocast and not self.gathered_whole else self.weight_bytes

    @property
    def turned(self) -> bool:
        """Whether each product casts its weights to a narrower dtype."""
        return self.product_bytes < self.seen_bytes

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps that a rollout makes, of one batch."""
        return self.parts * self.updates

    @property
    def adapters_turned(self) -> bool:
        """As `turned`, for adapters."""
        return (
            self.rank is not None
            and self.product_bytes < self.adapter_bytes
            and not (self.sharded and self.autocast and not self.gathered_whole)
        )

    def trainable(self, sizes: Sizes) -> int:
        """The number of trained weights."""
        if self.rank is not None:
            return self.adapters(sizes)
        return sizes.total - (0 if self.vision_trained else sizes.parameters["vision"])

    def adapters(self, sizes: Sizes) -> int:
        """The number of adapter weights: two matrices beside each in the language model (LoRA, arXiv 2106.09685)."""
        return 0 if self.rank is None else self.rank * sizes.text.adapted


def setup_of(settings: Settings) -> Setup:
    """The setup of a run with these settings, on a GPU unless `cluster.accelerator` is cpu."""
    model, precision = settings.model, settings.trainer.precision
    weight = _TRUE.get(precision, BYTES[model.dtype])
    on_gpu = settings.cluster.accelerator != "cpu"
    assert isinstance(settings.cluster.devices, int)  # ensured by a config rule
    # peft keeps adapters of a 16-bit model in float32, unless Lightning converts everything
    adapter = weight if precision in _TRUE else max(4, weight)
    product = 2 if precision in _MIXED else weight
    attention = "masked" if model.attn_implementation == "sdpa" else "flex" if on_gpu else "blocks"
    optimizer = optimizer_of(settings)
    return Setup(
        weight_bytes=weight,
        adapter_bytes=adapter,
        product_bytes=product,
        autocast=precision in _MIXED,
        rank=None if model.lora is None else model.lora.rank,
        vision_trained=model.lora is None and not model.freeze_vision,
        checkpointing=model.gradient_checkpointing,
        attention=attention,
        ranks=settings.cluster.devices * settings.cluster.num_nodes,
        sharded=settings.cluster.shards,
        eight_bit=optimizer is not None and optimizer.kind == OptimizerKind.adamw_8bit,
        reference=settings.objective.beta > 0,
        shuffled=settings.reward.temporal is not None,
        parts=settings.objective.rollout_parts,
        updates=settings.objective.updates_per_rollout,
        accumulate=settings.trainer.accumulate_grad_batches,
        on_gpu=on_gpu,
        captured=model.decoding == DecodingLoop.graph,
        gathered_whole=settings.cluster.strategy == "deepspeed_zero3",
    )


def work_of(settings: Settings, sizes: Sizes) -> Work:
    """A rank's batch: the longest prompts that the data allow, unless `stage.plan` says otherwise."""
    assert isinstance(settings.stage, PlanStage)
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
    """A video with as many frames and pixels as the settings allow, as close to square as whole tokens permit."""
    side = vision.patch * math.isqrt(vision.patches_a_token)
    pixels = video.max_pixels if video.max_side is None else min(video.max_pixels, video.max_side**2)
    tokens = max(4, pixels // side**2)  # the processor enlarges smaller images
    height = math.isqrt(tokens)
    return Picture(max(1, video.max_frames // TEMPORAL_PATCH), height, tokens // height)


def with_tokens(picture: Picture, tokens: int) -> Picture:
    """The video with as many frame pairs, at least one, as give about that number of tokens."""
    return replace(picture, frames=max(1, round(tokens / (picture.height * picture.width))))
