"""What a training step costs: ours, the released algorithm and TRL, interleaved in one run.

    python -m tests.speed.step [--quick] [--json FILE] [--plot FILE] [--without-trl] [--prompts N …] [--groups G …]

Each system has a process of its own. It first takes a step of which the memory is measured, which also warms it up;
then all take timed steps in turn. Times are per question. Beside each ratio stands its bound: forward-equivalent
tokens of the released algorithm over ours, where rollout prefill and decoding count once, the policy's forward and
backward three times and the reference's forward once; vision likewise. A ratio can exceed the bound of its tokens,
since decoding many rows together costs less a token, and pictures are saved by another factor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tests.speed.apart import Apart
from tests.speed.figure import draw
from tests.speed.measure import quiet
from tests.speed.nearness import nearness
from tests.speed.systems import Cell, Plan, Released, Spacer, System, Trl

LENGTHS, GROUPS, COMPLETION, VIDEOS = (814, 1454, 2606), (2, 4, 8, 16), 128, (1, 4)
# in a rollout of ours, by tokens and questions a video: few where the released algorithm needs little memory
QUESTIONS = {(814, 1): 12, (814, 4): 12, (1454, 1): 24, (1454, 4): 16, (2606, 1): 24, (2606, 4): 24}
TARGETS = {(814, 1): 4, (1454, 1): 5, (2606, 1): 6, (814, 4): 6, (1454, 4): 8, (2606, 4): 10}  # times, at G = 8


@dataclass(frozen=True)
class Row:
    """A system in a cell, per question; `questions_per_video` means nothing to the other systems' cost."""

    prompt_tokens: int
    group_size: int
    completion_tokens: int
    questions_per_video: int
    system: str
    cpu_s: float
    wall_s: float
    peak_bytes: int


def text_bound(cell: Cell) -> float:
    """Forward-equivalent tokens of the released algorithm over ours."""
    group, length = cell.group_size, cell.completion_tokens
    released = group * (cell.prompt_tokens + length) * (1 + 3 + 1)
    prompt = cell.video_tokens / cell.questions_per_video + cell.prompt_tokens - cell.video_tokens
    return released / ((prompt + group * length) * (1 + 3 + 1))


def vision_bound(cell: Cell) -> float:
    """The same of runs of the vision tower. Ours: one for rollout and policy, its backward pass, for which it runs
    again to save memory, and one for the reference."""
    return cell.group_size * (1 + 3 + 1) * cell.questions_per_video / (3 + 1 + 1)


def ours(cell: Cell) -> Plan:
    """A rollout of many questions, trained on in rows of a quarter of the tokens that the released algorithm holds, or
    of one question where that is more. A tree that is mostly video is left whole: each cut computes that again."""
    quarter = cell.group_size * (cell.prompt_tokens + cell.completion_tokens) // 4
    one = cell.prompt_tokens + cell.group_size * cell.completion_tokens
    tree = cell.video_tokens + cell.questions_per_video * (one - cell.video_tokens)
    row = tree if 2 * cell.video_tokens > tree else max(quarter, one)
    return Plan(QUESTIONS[cell.prompt_tokens, cell.questions_per_video], row, vision_again=True)


def measure(cell: Cell, repeats: int, with_trl: bool) -> Iterator[Row]:
    """A row a system. The others do not share a video between questions, and are measured once for all numbers."""
    makers: dict[str, Callable[[], System]] = {"spacer": partial(Spacer, cell, ours(cell))}
    if cell.questions_per_video == 1:
        makers["released"] = partial(Released, cell)
        if with_trl:
            makers["trl"] = partial(Trl, cell, questions=1)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    with ExitStack() as stack:
        systems = {name: stack.enter_context(Apart(make)) for name, make in makers.items()}
        peaks = {name: system.peak() for name, system in systems.items()}
        for _ in range(repeats):
            for name, system in systems.items():
                times[name].append(system.timed())
    for name in systems:
        cpu, wall = (statistics.median(pair[i] for pair in times[name]) for i in (0, 1))
        yield Row(**asdict(cell), system=name, cpu_s=cpu, wall_s=wall, peak_bytes=peaks[name])


def cells(lengths: Sequence[int], groups: Sequence[int]) -> list[Cell]:
    """What is measured, the smallest first."""
    return [Cell(p, g, COMPLETION, k) for p in lengths for g in groups for k in VIDEOS]


def shared(rows: list[Row]) -> list[Row]:
    """Adds the other systems' rows for several questions a video, which cost them as much each as one."""
    more = [
        Row(**{**asdict(row), "questions_per_video": k}) for row in rows if row.system != "spacer" for k in VIDEOS[1:]
    ]
    return rows + more


def table(rows: list[Row]) -> Table:
    """Ours beside the others, with ratios, bounds and targets."""
    found = {(r.prompt_tokens, r.group_size, r.questions_per_video, r.system): r for r in rows}
    shown = Table(title="One training step, per question", title_justify="left")
    for name in ("prompt", "G", "K", "ours cpu s", "wall s", "released", "ratio cpu", "wall", "bound text", "vision"):
        shown.add_column(name, justify="right")
    for name in ("target", "TRL", "ratio cpu", "wall", "memory of released"):
        shown.add_column(name, justify="right")
    for (p, g, k, system), row in sorted(found.items()):
        if system != "spacer":
            continue
        cell = Cell(p, g, row.completion_tokens, k)
        released, trl = found[p, g, k, "released"], found.get((p, g, k, "trl"))
        shown.add_row(
            *(str(n) for n in (p, g, k)),
            *(f"{x:.2f}" for x in (row.cpu_s, row.wall_s, released.cpu_s)),
            *(f"{x:.1f}" for x in (released.cpu_s / row.cpu_s, released.wall_s / row.wall_s)),
            *(f"{x:.1f}" for x in (text_bound(cell), vision_bound(cell))),
            str(TARGETS[p, k]) if g == 8 else "",
            *((f"{trl.cpu_s:.2f}", f"{trl.cpu_s / row.cpu_s:.1f}", f"{trl.wall_s / row.wall_s:.1f}") if trl else "---"),
            f"{row.peak_bytes / released.peak_bytes:.2f}",
        )
    return shown


def main() -> None:
    """Measures, prints, and writes what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="prompts of 1,454 tokens and G = 8 alone: ten minutes")
    parser.add_argument("--prompts", type=int, nargs="+", choices=LENGTHS, default=LENGTHS, help="tokens of a prompt")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, help="completions of a prompt, G")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each system; the median counts")
    parser.add_argument("--without-trl", action="store_true", help="leave TRL out; it comes with the extra `speed`")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--plot", type=Path, help="draw the figure into this file")
    options = parser.parse_args()
    if not options.without_trl and find_spec("trl") is None:
        sys.exit("TRL is not installed: pip install -e '.[speed]', or leave it out with --without-trl")
    quiet()
    rows: list[Row] = []
    lengths, groups = ((1454,), (8,)) if options.quick else (options.prompts, options.groups)
    for cell in tqdm(cells(lengths, groups), desc="cells"):
        rows += measure(cell, options.repeats, not options.without_trl)
        if options.json:  # what is measured is kept, whatever comes after
            options.json.write_text(json.dumps({"rows": [asdict(row) for row in shared(rows)]}, indent=1))
    rows = shared(rows)
    console = Console(width=160)
    console.print(table(rows))
    near = [nearness(Cell(p, 8, COMPLETION, 1), options.repeats) for p in lengths]
    console.print("\nPolicy forward and backward over a packed row against plain rows, per token (at most 1.3):")
    for found in near:
        console.print(
            f"  {found.prompt_tokens} tokens, G = 8: {found.tree_s:.3f} s against {found.plain_s:.3f} s, "
            f"{found.tree_s / found.plain_s:.2f} times"
        )
    console.print("Cost of ours against G, a straight line where the rest is shared:")
    for p, k in sorted({(row.prompt_tokens, row.questions_per_video) for row in rows}):
        line = [
            (r.group_size, r.cpu_s)
            for r in rows
            if (r.prompt_tokens, r.questions_per_video, r.system) == (p, k, "spacer")
        ]
        if len(line) > 2:
            slope, start = statistics.linear_regression(*zip(*line, strict=True))
            fit = statistics.correlation(*zip(*line, strict=True)) ** 2
            console.print(f"  {p} tokens, K = {k}: {start:.2f} s + {slope:.3f} s a completion (R² {fit:.3f})")
    if options.plot:
        draw([asdict(row) for row in rows], options.plot)


if __name__ == "__main__":
    main()
