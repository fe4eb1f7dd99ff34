"""Published figures that a run's are held against, in per cent, as data with their sources.

Published models differ most by settings that are not told: frames, pixels, prompts, lengths. A figure that was taken
under other settings is a landmark, not a rival.
"""

from __future__ import annotations

from dataclasses import dataclass

_SPACER = "Ouyang et al., arXiv 2504.01805, github.com/OuyangKun10/SpaceR"


@dataclass(frozen=True)
class Published:
    """A model's overall figure on a benchmark, and where it was read; `note` says what to mind."""

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
)
