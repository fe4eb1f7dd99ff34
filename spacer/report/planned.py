"""The tables of stage=plan; each fits 80 columns."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from spacer.planning.limits import GIB, MOST, MOST_TOKENS, Case, Limits
from spacer.planning.memory import PHASES, Memory
from spacer.terminal.tables import plain_table

_TERA = 1e12


def memory_table(memory: Memory, room: int) -> Table:
    """GiB on a GPU by part and phase of a step, with sums; the largest sum must fit in `room` bytes."""
    table = plain_table("Memory of each GPU in a step, GiB")
    table.add_column("Part", no_wrap=True)
    for phase in PHASES:
        table.add_column(phase.capitalize(), justify="right", no_wrap=True)
    for part, held in memory.parts.items():
        if any(held.values()):
            table.add_row(_name(part), *(_gib(held.get(phase, 0)) for phase in PHASES))
    table.add_section()
    sums, peak = memory.by_phase, memory.peak
    style = "green" if peak <= room else "red"
    cells = [Text(_gib(sums[phase]), style=f"bold {style}" if sums[phase] == peak else "bold") for phase in PHASES]
    table.add_row(Text("All", style="bold"), *cells)
    verdict = "fits" if peak <= room else "does NOT fit"
    table.caption = f"The largest sum {verdict}: {_gib(peak)} GiB of {_gib(room)}."
    return table


def flops_table(flops: Mapping[str, int], plain: Mapping[str, int]) -> Table:
    """TFLOP of a step by part, beside those of a trainer that computes the whole prompt with each completion."""
    table = plain_table("TFLOP of each GPU in a step")
    table.add_column("Part", no_wrap=True)
    for heading in ("Tree", "One by one", "Times"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part, value in flops.items():
        if value or plain[part]:
            table.add_row(_name(part), *_compared(value, plain[part]))
    table.add_section()
    table.add_row("All", *_compared(sum(flops.values()), sum(plain.values())), style="bold")
    table.caption = "One by one: each completion with its whole prompt and its pixels."
    return table


def limits_table(
    case: Case, limits: Limits, seconds: Mapping[str, float], questions: int | None, days: float | None
) -> Table:
    """The batch, its limits, and how long a pass over the data takes."""
    work, total = case.work, sum(seconds.values())
    picture = work.pictures[0]
    table = plain_table("The batch of each GPU, and the largest that fits")
    table.add_column("", no_wrap=True)
    table.add_column("Now", justify="right", no_wrap=True)
    table.add_column("Largest", justify="right", no_wrap=True)
    prompt = picture.tokens + work.text
    # one more pair of frames would exceed the range of the search
    more = "+" if limits.prompt_tokens + picture.height * picture.width > MOST_TOKENS else ""
    table.add_row("Tokens of a prompt", f"{prompt:,}", f"{limits.prompt_tokens:,}{more}")
    table.add_row("Frames of a video", f"{2 * picture.frames:,}", f"{2 * limits.frame_pairs:,}{more}")
    for name, now, most in (
        ("Completions a question (G)", work.group, limits.group),
        ("Questions a video together (K)", work.questions, limits.questions),
    ):
        table.add_row(name, str(now), f"{most}{'+' if most == MOST else ''}")
    told = "unknown: set stage.plan.questions" if days is None else f"{days:.1f} for {questions:,} questions"
    table.caption = (
        f"About {total:.1f} s a step, {seconds['decode']:.1f} s of it writing completions. Days: {told}, "
        f"on {case.setup.ranks} GPU{'' if case.setup.ranks == 1 else 's'}."
    )
    return table


def _name(part: str) -> str:
    """
    >>> _name("kv_cache"), _name("policy_forward")
    ('KV cache', 'Policy forward')
    """
    words = part.replace("_", " ")
    return words.replace("kv", "KV") if words.startswith("kv") else words.capitalize()


def _gib(count: int) -> str:
    if not count:
        return "."
    size = count / GIB
    return f"{size:.1f}" if size >= 0.1 else f"{size:.3f}" if size >= 0.001 else "0.001"


def _compared(tree: int, plain: int) -> tuple[str, str, str]:
    return _tera(tree), _tera(plain), f"{plain / tree:.1f}" if tree else ""


def _tera(count: int) -> str:
    return f"{count / _TERA:,.1f}" if count >= _TERA else f"{count / _TERA:.4f}"
