"""What settings come to: what a run reads, trains on and asks, as far as the settings alone tell."""

from __future__ import annotations

import re

from spacer.benchmarks import names
from spacer.settings import BenchmarkSettings, DatasetSettings, MixSettings, RoomsSettings, Settings

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name
SHARDED = ("fsdp", "deepspeed_zero3")  # strategies that spread parameters over the processes


def computes_in_16_bits(s: Settings) -> bool:
    """Whether the model's matrix products are taken in 16 bits, which flash-attn needs."""
    if s.trainer.precision in ("32-true", "32", "64-true", "64"):
        return s.trainer.precision in ("32-true", "32") and s.model.dtype in ("bfloat16", "float16")
    return True


def trains(s: Settings) -> bool:
    """Whether weights are trained."""
    return s.stage.name in ("train", "sft")


def in_zero(s: Settings) -> bool:
    """Whether they are by DeepSpeed's ZeRO-3."""
    return trains(s) and s.cluster.strategy == "deepspeed_zero3"


def sections(s: Settings) -> list[tuple[str, DatasetSettings]]:
    """The data sets of a run with the paths of their settings: one, or the parts of a mix."""
    if isinstance(s.dataset, MixSettings):
        return [(f"dataset.parts.{name}", part) for name, part in s.dataset.parts.items()]
    return [("dataset", s.dataset)]


def holds_out(s: Settings) -> bool:
    """Whether the data have questions that are not trained on."""
    return any(isinstance(d, RoomsSettings) or getattr(d, "heldout", None) is not None for _, d in sections(s))


def heldout_name(s: Settings) -> str:
    """What the held-out questions are called in tables and logs: never as a benchmark, of which they are none."""
    return "rooms" if all(isinstance(dataset, RoomsSettings) for _, dataset in sections(s)) else "heldout"


def comes_to_score(s: Settings) -> bool:
    """Whether a run that trains asks held-out questions after it, which a sweep compares its jobs by."""
    return not trains(s) or (holds_out(s) and s.stage.evaluate_after is not False)


def asks_files(s: Settings) -> bool:
    """Whether the benchmark is one of files, and not what the data hold out."""
    return s.benchmark.name in names()


def asked_benchmarks(s: Settings) -> list[tuple[str, BenchmarkSettings]]:
    """The benchmarks of files that a run asks or scores, with the paths of their settings."""
    if s.stage.name == "evaluate" and s.benchmarks:
        return [(f"benchmarks.{name}", part) for name, part in s.benchmarks.items() if part.root is not None]
    return [("benchmark", s.benchmark)] if s.stage.name in ("evaluate", "score") and asks_files(s) else []
