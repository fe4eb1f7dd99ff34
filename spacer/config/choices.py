"""Enumerated values of settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

# read from files: each is a module of `spacer.benchmarks` and a YAML of `conf/benchmark/`
BENCHMARKS = (
    *("blink", "embspatial", "longvideobench", "mindcube", "mmsi_bench", "mmsi_video"),
    *("omnispatial", "revsi", "site_bench", "spar_bench", "sti_bench", "tempcompass"),
    *("threedsrbench", "video_mme", "viewspatial", "vsi_bench", "vsi_debiased"),
)
# the table of EASI, in its order
EASI = (
    *("vsi_bench", "mmsi_bench", "mindcube", "viewspatial"),
    *("site_bench", "blink", "threedsrbench", "embspatial"),
)


class Choice(StrEnum):
    """An enumeration that files name by value, although all other values must have the exact type."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.enum_schema(cls, list(cls), sub_type="str", strict=False)


class Advantage(Choice):
    """How a group's rewards become advantages."""

    std = "std"  # (r - mean) / (std + eps), GRPO as published
    mean = "mean"  # r - mean, Dr. GRPO
    terms = "terms"  # the weighted sum of (t - mean) / (std + eps) over the terms t of the reward, GDPO


class LossMean(Choice):
    """How the per-token loss is averaged."""

    completion = "completion"  # mean over each completion's tokens, then over completions (published)
    token = "token"  # mean over all tokens of the batch (DAPO)
    budget = "budget"  # sum over tokens / token budget, then mean over completions (Dr. GRPO)


class Ratio(Choice):
    """The unit of the importance ratio."""

    token = "token"  # one ratio per token
    sequence = "sequence"  # GSPO: exp of the mean log-ratio of the completion


class Surrogate(Choice):
    """How the loss combines a token's ratio and advantage."""

    ppo = "ppo"  # the lesser of ratio · A and the clipped ratio · A
    cispo = "cispo"  # clipped ratio, without gradient, · A · log-probability (MiniMax-M1)
    sapo = "sapo"  # a sigmoid of the ratio instead of clipping, · A (SAPO)


class KlEstimate(Choice):
    """The estimate of the KL to the reference model, of d = ref_logp - logp."""

    k1 = "k1"  # -d
    k2 = "k2"  # d² / 2
    k3 = "k3"  # exp(d) - d - 1 (published)


class OnBad(Choice):
    """How data faults are handled: stop before training, or skip the sample and count it."""

    stop = "stop"  # before training, listing every faulty line
    skip = "skip"  # and count


class TooLong(Choice):
    """How a prompt over `max_prompt_length` is handled. It is never cut: half of an image's tokens fit no model."""

    refuse = "refuse"  # skip the sample, logging its lengths
    thin = "thin"  # take fewer frames of the video, until the prompt fits


class Sampling(Choice):
    """Which frames of a video are sampled; see `spacer.data.frames.sample`."""

    interval = "interval"  # at the start of each of n equal spans
    endpoints = "endpoints"  # from the first to the last, as SpaceR's evaluation does
    nearest = "nearest"  # likewise, but an even number, as qwen-vl-utils and SpaceR's training do


class Shown(Choice):
    """How a video's frames are shown to the model."""

    video = "video"  # as one video
    pictures = "pictures"  # each as an image, without times


class Control(Choice):
    """Controls under which held-out questions are asked again, to measure what their video adds to a score."""

    other_video = "other_video"  # the video of another scene
    grey = "grey"  # the same number of frames, in one colour
    none = "none"  # no video: the text alone
    prior = "prior"  # no model either: the best constants of the training split


class Subtitles(Choice):
    """Where subtitles go in a prompt."""

    none = "none"  # nowhere
    before = "before"  # before the question, only lines shown during a sampled frame
    all = "all"  # before the question, every line
    between = "between"  # between the frames, which are shown as images, as LongVideoBench's authors do


class EndpointVideo(Choice):
    """How a server is shown a video."""

    frames = "frames"  # the protocol's frames, as pictures
    file = "file"  # the file itself, whose frames the server samples by its own rule


class Positions(Choice):
    """The position at which text continues after a video."""

    original = "original"  # after the largest position on any axis, time included, as the models were trained
    transformers = "transformers"  # after the largest of height and width, as in transformers 5


class FrameTimes(Choice):
    """The seconds between frame pairs from which positions are computed, in models with time-aware positions."""

    real = "real"  # the seconds between the sampled frames
    processor = "processor"  # 1 second, which Qwen2.5-VL's processor assumes for frames of unknown rate


class Checkpointing(Choice):
    """Which activations are recomputed in the backward pass (gradient checkpointing)."""

    none = "none"
    vision = "vision"  # recomputes the vision tower's
    all = "all"  # recomputes those of the language model too


class Computation(Choice):
    """How a model's completions are sampled, and how their log-probabilities are computed."""

    auto = "auto"  # in prefix trees where the model's family is supported, plainly otherwise
    tree = "tree"  # in prefix trees: what prompts and completions share is computed once
    plain = "plain"  # by transformers alone: model.generate and padded forward passes, in which nothing is shared


class DecodingLoop(Choice):
    """How completions are decoded, token by token."""

    eager = "eager"  # finished rows leave the batch
    graph = "graph"  # on CUDA: shapes stay, and a step is captured in a CUDA graph; not yet run on a GPU


class OptimizerKind(Choice):
    """The optimiser and the state that it keeps per trained parameter."""

    adamw = "adamw"  # two moments in the parameter's precision
    adamw_8bit = "adamw_8bit"  # two moments of one byte each (torchao)
    muon = "muon"  # one momentum for hidden matrices, two moments for all else


class Schedule(Choice):
    """Learning-rate schedule after warm-up."""

    constant = "constant"
    cosine = "cosine"
    linear = "linear"  # down to 0


class Targets(Choice):
    """What supervised training imitates."""

    worked = "worked"  # the data's worked completions
    generated = "generated"  # the best right completions of dataset.generated
