"""What settings choose among, by name."""

from __future__ import annotations

from enum import StrEnum


class Advantage(StrEnum):
    """How a group's rewards become advantages."""

    std = "std"  # (r - mean) / (std + eps), GRPO as published
    mean = "mean"  # r - mean, Dr. GRPO


class LossMean(StrEnum):
    """Over what the per-token loss is averaged."""

    completion = "completion"  # mean over each completion's tokens, then over completions (published)
    token = "token"  # mean over all tokens of the batch (DAPO)
    budget = "budget"  # sum over tokens / token budget, then mean over completions (Dr. GRPO)


class Ratio(StrEnum):
    """What the importance ratio is taken over."""

    token = "token"
    sequence = "sequence"  # GSPO: exp of the mean log-ratio of the completion


class OnBad(StrEnum):
    """What a data fault does: stop before training, or leave the sample out and count it."""

    stop = "stop"
    skip = "skip"


class TooLong(StrEnum):
    """What becomes of a prompt over `max_prompt_length`. It is never cut: half of a picture's tokens fit no model."""

    refuse = "refuse"  # the sample is left out, with its lengths
    thin = "thin"  # fewer frames of the video are taken, until it fits


class Subtitles(StrEnum):
    """Where the subtitles of a video stand in a prompt."""

    none = "none"
    before = "before"  # all of them, before the question
    between = "between"  # between the frames, which are shown as images, as LongVideoBench's authors have it


class Positions(StrEnum):
    """Where text goes on after a video."""

    original = "original"  # after the largest position on any axis, time included, as the models were trained
    transformers = "transformers"  # after the largest of height and width, as transformers 5 has it


class Checkpointing(StrEnum):
    """Whose activations are computed again in the backward pass in place of being kept."""

    none = "none"
    vision = "vision"
    all = "all"


class OptimizerKind(StrEnum):
    """The optimiser, by what it keeps of each trained parameter."""

    adamw = "adamw"  # two moments in the parameter's precision
    adamw_8bit = "adamw_8bit"  # two moments of a byte each (torchao)


class Schedule(StrEnum):
    """Learning-rate schedule after the warm-up."""

    constant = "constant"
    cosine = "cosine"
