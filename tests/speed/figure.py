"""The benchmark's rows as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {"spacer": "#1b6ca8", "released": "#c0504d", "trl": "#7f7f7f"}
NAMES = {"spacer": "Spacer", "released": "released algorithm", "trl": "TRL"}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds a question against G, a panel for each prompt length; K = 4 dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lengths = sorted({row["prompt_tokens"] for row in rows})
    figure, panels = pyplot.subplots(1, len(lengths), figsize=(3.2 * len(lengths), 3.0), squeeze=False, sharey=True)
    for panel, length in zip(panels[0], lengths, strict=True):
        for system, colour in COLOURS.items():
            for k, style in ((1, "-"), (4, "--")):
                if k > 1 and system != "spacer":  # nothing is shared: the same line
                    continue
                line = sorted(
                    (row["group_size"], row["cpu_s"])
                    for row in rows
                    if (row["prompt_tokens"], row["system"], row["questions_per_video"]) == (length, system, k)
                )
                if line:
                    name = NAMES[system] + (", 4 questions a video" if k > 1 else "")
                    panel.plot(*zip(*line, strict=True), style, marker="o", markersize=3.5, color=colour, label=name)
        panel.set_title(f"prompt of {length:,} tokens", fontsize=9)
        panel.set_xlabel("completions a prompt (G)", fontsize=8)
        panel.set_yscale("log")
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted({row["group_size"] for row in rows}))
        panel.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3, which="both", linewidth=0.4)
    panels[0][0].set_ylabel("CPU seconds a question", fontsize=8)
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=160)
