"""Settings of the model, one class for each section of `conf/model/`."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from spacer.config import choices
from spacer.config.settings.architecture import Architecture
from spacer.config.settings.section import CONFIG, Section, ShareBelowOne
from spacer.config.settings.training import Precision

Dtype = Literal["bfloat16", "float16", "float32", "float64"]


@dataclass(frozen=True, config=CONFIG)
class CompletionSettings(Section):
    """The length of this model's completions, in tokens."""

    max_tokens: PositiveInt = 1024  # upper bound on a completion
    bonus_min: NonNegativeInt = 320  # range in which the length bonus applies, both ends included
    bonus_max: PositiveInt = 512


@dataclass(frozen=True, config=CONFIG)
class LoraSettings(Section):
    """Low-rank adapters on the language model's linear layers (peft)."""

    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: ShareBelowOne = 0.0


@dataclass(frozen=True, config=CONFIG)
class EndpointSettings(Section):
    """How a model behind a server is asked."""

    key_env: str = "OPENAI_API_KEY"  # the environment variable with the key, which is written nowhere
    concurrency: PositiveInt = 16  # questions asked at once
    requests_per_minute: PositiveInt | None = None  # null: no bound
    timeout_s: PositiveFloat = 600.0  # of one request
    retries: NonNegativeInt = 8  # of one question, with pauses that double from 1 s
    max_pause_s: PositiveFloat = 60.0  # between two attempts
    video: choices.EndpointVideo = choices.EndpointVideo.frames


@dataclass(frozen=True, config=CONFIG)
class ModelSettings(Section):
    """A model in a Hugging Face folder or on the hub: of a family with prefix trees (Qwen2-VL, Qwen2.5-VL, Qwen3-VL),
    or any other of transformers that takes images and text, computed plainly."""

    name_or_path: str  # a folder, or a model id on the hub
    revision: str | None = None  # on the hub: a branch, a tag or a commit
    dtype: Dtype = "float32"  # of the weights; bfloat16 loses updates of 1e-6: set trainer.precision instead
    cuda_precision: Precision = "bf16-mixed"  # default of trainer.precision on CUDA; elsewhere that is 32-true
    # the attention kernels; auto takes the fastest available
    attn_implementation: Literal["auto", "sdpa", "flex_attention", "flash_attention_2"] = "auto"
    computation: choices.Computation = choices.Computation.auto
    decoding: choices.DecodingLoop = choices.DecodingLoop.eager
    positions: choices.Positions = choices.Positions.original
    frame_times: choices.FrameTimes = choices.FrameTimes.real
    trust_remote_code: bool = False  # runs code shipped with the model; no supported family needs it
    gradient_checkpointing: choices.Checkpointing = choices.Checkpointing.all
    freeze_vision: bool = False  # trains only the language model
    fresh: bool = False  # randomly initialised weights of the embedded architecture, written to name_or_path
    learning_rate: ShareBelowOne = 1e-6  # peak; default of stage.optimizer.learning_rate; 1e-6 as published
    prompts_per_rollout: PositiveInt = 1  # per device, sampled together; default of objective.prompts_per_rollout
    row_tokens: PositiveInt = 16_384  # per packed row, computed at once; default of objective.row_tokens
    lora: LoraSettings | None = None  # adapters instead of full training, such as {rank: 16, alpha: 32}
    completion: CompletionSettings = field(default_factory=CompletionSettings)
    architecture: Architecture | None = None  # only for stage=plan, if the model's folder is absent
    base_url: str | None = None  # of a server with OpenAI's protocol, which answers instead of a loaded model
    name: str | None = None  # the model's name on that server
    endpoint: EndpointSettings | None = None  # how the server is asked
