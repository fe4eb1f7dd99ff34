"""The stage that estimates what a GRPO run needs before it is submitted, without weights, data, network or GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spacer.config.derived import sections
from spacer.config.settings import JsonlSettings, PlanSettings, PlanStage, RoomsSettings, Settings
from spacer.data.index import count_questions
from spacer.errors import UserError
from spacer.planning.duration import days_of, seconds_of_step
from spacer.planning.flops import plain_flops, tree_flops
from spacer.planning.limits import GIB, Case, Limits, Remedy, case_of, limits_of, remedies_of
from spacer.planning.memory import Memory, memory_of
from spacer.report.planned import flops_table, limits_table, memory_table
from spacer.report.table import write_json
from spacer.stages.alternatives import Alternative, alternatives
from spacer.terminal.screen import screen


@dataclass(frozen=True)
class Plan:
    """What a run needs. `plain` are the FLOPs of a trainer without prefix trees; `seconds` and `days` are estimates."""

    case: Case
    memory: Memory
    flops: Mapping[str, int]
    plain: Mapping[str, int]
    limits: Limits
    remedies: tuple[Remedy, ...]
    seconds: Mapping[str, float]
    questions: int | None
    days: float | None


def plan(settings: Settings, folder: Path) -> float:
    """Writes `plan.json` into the run's folder and prints it as tables. Returns the peak memory of a GPU in GiB.

    Raises:
        UserError: the run does not fit in a GPU's memory; suggests what would.
    """
    assert isinstance(settings.stage, PlanStage)
    made = plan_of(settings, settings.stage.plan)
    target = folder / "plan.json"
    write_json(target, _as_json(made, settings.stage.plan))
    console = screen()
    for table in (memory_table(made.memory, made.case.room), flops_table(made.flops, made.plain)):
        console.print(table)
        console.print()
    console.print(limits_table(made.case, made.limits, made.seconds, made.questions, made.days))
    console.print(f"  plan: {target}", soft_wrap=True)
    if not made.case.fits:
        raise UserError(_refusal(made, alternatives(settings, settings.stage.plan)))
    return made.memory.peak / GIB


def plan_of(settings: Settings, speeds: PlanSettings) -> Plan:
    """The plan of a run with these settings."""
    case = case_of(settings, speeds)
    sizes, work, setup = case.sizes, case.work, case.setup
    flops = tree_flops(sizes, work, setup)
    seconds = seconds_of_step(flops, sizes, work, setup, speeds)
    questions = speeds.questions or questions_of(settings)
    return Plan(
        case=case,
        memory=memory_of(sizes, work, setup),
        flops=flops,
        plain=plain_flops(sizes, work, setup),
        limits=limits_of(case),
        remedies=() if case.fits else remedies_of(case),
        seconds=seconds,
        questions=questions,
        days=None if questions is None else days_of(questions, sum(seconds.values()), work, setup),
    )


def questions_of(settings: Settings) -> int | None:
    """The number of training questions, where they are generated or an index lists them; else None."""
    total = 0
    for _, dataset in sections(settings):
        if isinstance(dataset, RoomsSettings):
            found: int | None = dataset.train_scenes * dataset.questions_per_scene
        else:
            assert isinstance(dataset, JsonlSettings)
            found = count_questions(dataset)
        if found is None:
            return None
        total += found
    return total


def _as_json(made: Plan, speeds: PlanSettings) -> dict[str, Any]:
    sizes, work, setup = made.case.sizes, made.case.work, made.case.setup
    return {
        "parameters": sizes.total,
        "parameters_by_part": sizes.parameters,
        "trainable": setup.trainable(sizes),
        "bytes_per_gpu": dict(made.memory.by_part),
        "bytes_per_gpu_by_phase": made.memory.by_phase,
        "peak_bytes_per_gpu": made.memory.peak,
        "room_bytes_per_gpu": made.case.room,
        "fits": made.case.fits,
        "advice": [_told(remedy, made.case.room) for remedy in made.remedies],
        "flops_per_step": dict(made.flops),
        "plain_flops_per_step": dict(made.plain),
        "limits": asdict(made.limits),
        "batch_per_gpu": {
            "prompts": work.prompts,
            "videos": len(work.pictures),
            "frame_pairs": work.pictures[0].frames,
            "prompt_tokens": work.pictures[0].tokens + work.text,
            "group": work.group,
            "completion_tokens": work.length,
            "rows": [row.tokens for row in work.rows],
        },
        "setup": asdict(setup),
        "seconds_per_step": dict(made.seconds),
        "questions": made.questions,
        "days": made.days,
        "assumed": asdict(speeds),
    }


def _told(remedy: Remedy, room: int) -> str:
    fits = "fits" if remedy.peak <= room else "does not fit by itself"
    return f"{remedy.change}: {remedy.peak / GIB:.1f} GiB, {fits}"


def _refusal(made: Plan, instead: Sequence[Alternative]) -> str:
    room, peak = made.case.room, made.memory.peak
    lines = [f"Fits one GPU: {each}" for each in instead]
    lines.append(f"the run needs {peak / GIB:.1f} GiB of each GPU, and there are {room / GIB:.1f} GiB for tensors.")
    if made.remedies:
        lines += ["What would lessen it, the most first:", *(f"- {_told(remedy, room)}" for remedy in made.remedies)]
    if all(remedy.peak > room for remedy in made.remedies):
        lines.append("None of it is enough: choose a smaller model, or GPUs with more memory.")
    return "\n".join(lines)
