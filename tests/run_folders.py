"""Folders of runs, made up, with everything that a report shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from spacer.report.table import write_summary
from spacer.statistics.passing import pass_rates, summed

Row = dict[str, Any]
TASKS = ("object_counting", "object_rel_direction_easy", "obj_appearance_order", "room_size_estimation")
VOCABULARY = ("the", "chair", "stands", "left", "of", "a", "table", "near", "lamp", "and", "bed", "while", "door")
OPTIONS = ("A. the sofa", "B. the lamp", "C. the bed", "D. the plant")


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def heldout_row(number: int, right: bool, video: Path | None = None, **changes: Any) -> Row:
    """A line of `predictions/after.jsonl`: two questions a scene, tasks in turn, every fifth right answer a number."""
    choice = number % 4 in (1, 2)
    truth, said = ("B", "B" if right else "C") if choice else ("3", "3" if right else "9")
    maps = {"sofa": [[2, 3]], "lamp": [[7, 7]]}
    drawn = {"sofa": [[2, 4]], "unicorn": [[9, 9]]}
    answer = float(right)
    return {
        "id": f"q{number:05d}",
        "scene": f"scene{number // 2:04d}",
        "question_type": TASKS[number % 4],
        "problem_type": "multiple choice" if choice else "numerical",
        "question": f"Question {number}: what is asked here?",
        "options": list(OPTIONS) if choice else [],
        "solution": truth,
        "true_map": maps,
        "video": str(video or f"/nowhere/scene{number // 2:04d}.mp4"),
        "completion": f"<think><map>{json.dumps(drawn)}</map>Thought {number}.</think><answer>{said}</answer>",
        "completion_tokens": 20 + number % 7,
        "reward": {"total": 1 + answer, "answer": answer, "map": 0.5 * answer, "map_quality": 0.5, "format": 1.0}
        | {"length": 0.0, "temporal": 0.0},
        "drawn": True,
        "extracted": True,
    } | changes


def steps(count: int, start: int = 0, **more: float) -> list[Row]:
    """Lines of `history.jsonl`."""
    rng = np.random.default_rng(start)
    return [
        {
            "step": step,
            "reward/total": float(rng.random()),
            "reward/answer": float(rng.random()),
            "train/kl": 0.01,
            **more,
        }
        for step in range(start, start + count)
    ]


def training_run(
    folder: Path,
    before: Sequence[bool],
    after: Sequence[bool],
    videos: Sequence[Path] = (),
    changes: Mapping[int, Mapping[str, Any]] | None = None,
) -> Path:
    """A finished run of stage=train, with so many questions; `changes` are to lines of `after`, by place."""
    for name, hits in (("before", before), ("after", after)):
        rows = []
        for number, hit in enumerate(hits):
            video = videos[number // 2 % len(videos)] if videos else None
            more = (changes or {}).get(number, {}) if name == "after" else {}
            rows.append(heldout_row(number, hit, **({"video": video} | dict(more))))
        lines(folder / f"predictions/{name}.jsonl", rows)
    lines(folder / "history.jsonl", steps(30))
    (folder / "summary.json").write_text(json.dumps({"metrics": {}, "seconds": {"train": 12.0}}))
    recorded(folder, {"seed": 0, "stage": {"name": "train"}, "dataset": {"kind": "rooms"}, "model": {"lora": None}})
    return folder


def sampled_run(folder: Path, rates: Sequence[float]) -> Path:
    """A finished run of stage=generate, with two completions for each of so many questions, of these pass rates."""
    rows = [
        {"question_type": TASKS[number % 2], "scene": f"scene{number // 2}", "pass_rate": rate}
        | {"completions": [{"reward": {"total": total}} for total in (rate > 0, rate == 1)]}
        for number, rate in enumerate(rates)
    ]
    found = {"all": summed(rows, 100, 0), **pass_rates(rows, 100, 0)}
    told = {"pass_rates": {kind: asdict(rates) for kind, rates in found.items()}}
    write_summary(folder / "summary.json", {}, {"generate": 3.0}, told)
    recorded(folder, {"seed": 0, "stage": {"name": "generate"}, "dataset": {"kind": "rooms"}})
    return folder


def with_controls(folder: Path, added: Mapping[str, float]) -> Path:
    """Adds to a run's summary what its video adds to the accuracy of answers, by control."""
    summary = json.loads((folder / "summary.json").read_text())
    interval = {"questions": 40, "scenes": 20}
    summary["controls"] = {
        control: {
            name: {"before": 0.5 - delta, "after": 0.5, "delta": delta, **interval}
            | {"delta_low": delta - 0.1, "delta_high": delta + 0.1}
            for name in ("reward/total", "reward/answer", "answer/object_counting", "completion/tokens")
        }
        for control, delta in added.items()
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def sweep_folder(folder: Path) -> Path:
    """A sweep of two rewards with two seeds each, and a job that failed; the best job is told first."""
    jobs = []
    for place, (reward, seed, right) in enumerate(
        (("grpo", 1, 30), ("grpo", 0, 26), ("accuracy", 0, 20), ("accuracy", 1, 12))
    ):
        job = training_run(
            folder / f"reward={reward},seed={seed}", [n < 10 for n in range(40)], [n < right for n in range(40)]
        )
        with_controls(job, {"other_video": 0.3 - 0.1 * place})
        lines(job / "history.jsonl", steps(30, rate=float(seed)))
        recorded(job, {"reward": {"name": reward}, "seed": seed, "stage": {"name": "train"}})
        values = {"overrides": [f"reward={reward}", f"seed={seed}"], "status": "done", "seconds": 100.0 * (1 + place)}
        jobs.append({"job": job.name, "folder": str(job), "reason": None} | values)
    failed = {
        "overrides": ["reward=grpo", "seed=2"],
        "status": "failed",
        "reason": "out of memory\nat step 3",
        "seconds": None,
    }
    jobs.append({"job": "reward=grpo,seed=2", "folder": str(folder / "reward=grpo,seed=2")} | failed)
    (folder / "sweep.json").write_text(json.dumps({"name": "reward_ablation", "ranked_by": "answer", "jobs": jobs}))
    return folder


def recorded(folder: Path, config: Mapping[str, Any], overrides: Sequence[str] = ("++seed=0",)) -> None:
    """What Hydra leaves in a run's folder."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(dict(config)))
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(overrides)))


def scored_run(folder: Path, count: int, right: float, seed: int, words: int = 200, per_video: int = 18) -> Path:
    """A finished run of a benchmark of so many questions, with completions of so many words."""
    rng = np.random.default_rng(seed)
    told, given = [], []
    for number in range(count):
        hit = bool(rng.random() < right)
        thought = " ".join(rng.choice(VOCABULARY, words))
        common = {"id": f"q{number}", "task": TASKS[number % 4]}
        told.append(common | {"truth": "B", "answer": "B" if hit else "A", "score": float(hit), "extracted": True})
        told[-1] |= {"released_score": float(hit), "cluster": f"scan{number // per_video}"}
        given.append(common | {"question": f"Question {number}: which of these is nearest?", "options": list(OPTIONS)})
        given[-1] |= {"prediction": f"<think>{thought}</think><answer>{'B' if hit else 'A'}</answer>"}
        given[-1] |= {"completion_tokens": words, "thinking": thought, "map": None}
    lines(folder / "per_question.jsonl", told)
    lines(folder / "predictions/vsi_bench.jsonl", given)
    overall = sum(row["score"] for row in told) / count
    scores = {"benchmark": "vsi_bench", "official": {"overall": overall}, "intervals": {"overall": [0.1, 0.9]}}
    (folder / "scores.json").write_text(json.dumps(scores | {"settings": {"limit": None, "tasks": None}}))
    (folder / "summary.json").write_text(json.dumps({"seconds": {"evaluate": 3.0}}))
    recorded(folder, {"seed": seed, "stage": {"name": "evaluate"}, "benchmark": {"name": "vsi_bench"}})
    return folder
