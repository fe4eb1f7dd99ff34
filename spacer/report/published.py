"""Published scores to compare a run's with, in per cent, as data with their sources.

Published models differ most in settings that are not reported: frames, pixels, prompts, lengths. A score obtained
under other settings is for orientation, not for a ranking.
"""

from __future__ import annotations

from dataclasses import dataclass

from spacer.config.choices import EASI

_SPACER = "Ouyang et al., arXiv 2504.01805, github.com/OuyangKun10/SpaceR"
_MMSI_VIDEO = "MMSI-Video-Bench's authors"
_REVSI = "ReVSI's authors"
_VSI = "VSI-Bench's authors' code"
_EASI = "EASI's table, from the README of SenseNova-SI"
_EASI_ROWS = {  # in the order of `EASI`
    "Qwen3-VL-8B": (57.9, 31.1, 29.4, 42.2, 45.8, 66.7, 53.9, 77.7),
    "SpaceR-7B": (41.5, 27.4, 37.9, 35.8, 34.2, 49.6, 40.5, 66.9),
    "GPT-5": (55.0, 41.8, 56.3, 45.5, 61.8, 68.0, 60.3, 81.6),
}


@dataclass(frozen=True)
class Published:
    """A model's overall score on a benchmark, and its source; `note` says what to consider."""

    benchmark: str
    model: str
    value: float
    source: str
    note: str = ""


PUBLISHED: tuple[Published, ...] = (
    Published("vsi_bench", "Qwen2.5-VL-7B", 34.43, _SPACER, "zero-shot"),
    Published("vsi_bench", "SpaceR-7B", 45.6, _SPACER, "about; third parties measured 43.5 and lower elsewhere"),
    Published("sti_bench", "Qwen2.5-VL-7B", 36.07, _SPACER, "zero-shot"),
    Published("sti_bench", "SpaceR-7B", 37.0, _SPACER, "mean over questions"),
    Published("spar_bench", "Qwen2.5-VL-7B", 33.82, _SPACER, "zero-shot"),
    Published("spar_bench", "SpaceR-7B", 37.55, _SPACER),
    Published("mmsi_video", "Qwen2.5-VL-7B", 29.66, _MMSI_VIDEO, "50 frames over all clips; 26.9 and 28.3 elsewhere"),
    Published("mmsi_video", "Qwen3-VL-8B", 27.58, _MMSI_VIDEO, "50 frames over all clips; 28.3 and 30.5 elsewhere"),
    Published("mmsi_video", "GPT-5", 36.8, _MMSI_VIDEO, "50 frames over all clips"),
    Published("omnispatial", "Qwen2.5-VL-7B", 39.2, "VLMEvalKit or EASI", "prompted to reason step by step"),
    Published("revsi", "Qwen3-VL-8B", 49.1, _REVSI, "64 frames"),
    Published("revsi", "GPT-5.2", 50.9, _REVSI, "64 frames"),
    Published("vsi_debiased", "Cambrian-S-7B", 55.58, _VSI, "32 frames; 55.35 and 55.40 elsewhere"),
    *(
        Published(benchmark, model, value, _EASI, "frames, prompts and reading of answers were not verified")
        for model, values in _EASI_ROWS.items()
        for benchmark, value in zip(EASI, values, strict=True)
    ),
)
