"""Checks that can find several faults at once: prompt templates and run folders."""

from __future__ import annotations

from glob import escape, glob
from os.path import expanduser, isdir, isfile, join  # unlike Path, never raise: unreadable counts as absent
from string import Template

from spacer.config.settings import BenchmarkSettings, DatasetSettings, Settings

PROMPTS_RULE = (
    "There must be `map`, for questions with a true map, or `plain`, templates with $question and, where wanted, "
    "$options, $categories and $answer, and one line for each problem type of the data: "
    "conf/dataset/prompts/default.yaml is an example"
)
PROMPTS = ("map", "plain", "multiple choice", "numerical", "OCR", "free-form", "regression")

SWEEP = "sweep.json"  # in the folder of a sweep, which stands for its jobs
# stage → files, of which a run's folder must have at least one
RUNS_WANTED = {
    "compare": ("per_question.jsonl", "*/per_question.jsonl", "predictions/*.jsonl", SWEEP),
    "report": (
        *("summary.json", "scores.json", "*/scores.json", "per_question.jsonl", "comparison.json", "history.jsonl"),
        "predictions",
        SWEEP,
    ),
    "dashboard": ("scores.json", "*/scores.json", "summary.json"),
    "export": ("scores.json", "summary.json"),
}


def run_faults(s: Settings) -> list[str]:
    """The faults of `runs`, each folder checked separately."""
    if s.stage.name not in RUNS_WANTED:
        stages = ", ".join(f"stage={name}" for name in RUNS_WANTED)
        return [f"runs is for {stages}: set runs=[]"] if s.runs else []
    faults = []
    if s.stage.name == "report" and not s.runs:
        faults.append("runs is empty: stage=report takes the folders of runs, runs=[FOLDER,…]")
    sweeps = any(isfile(join(expanduser(name), SWEEP)) for name in s.runs)
    if s.stage.name == "compare" and len(s.runs) < 2 and not sweeps:
        faults.append(f"runs holds {len(s.runs)}: stage=compare takes at least two, or a sweep, runs=[FOLDER,FOLDER,…]")
    files = RUNS_WANTED[s.stage.name]
    for place, name in enumerate(s.runs):
        folder = expanduser(name)
        if not isdir(folder):
            faults.append(f"runs[{place}]: {name} is not an existing folder: name the folder of a run")
        elif not any(glob(join(escape(folder), file)) for file in files):
            faults.append(f"runs[{place}]: {name} lacks {', '.join(files)}: evaluate that run, or correct the folder")
    if twice := sorted({name for name in s.runs if s.runs.count(name) > 1}):
        faults.append(f"runs names {', '.join(twice)} more than once: name each run once")
    return faults


def prompt_faults(d: DatasetSettings | BenchmarkSettings) -> list[str]:
    """The faults of a data set's or a benchmark's prompt templates."""
    faults = [] if {"map", "plain"} & d.prompts.keys() else ["neither 'map' nor 'plain' is there"]
    if isinstance(d, BenchmarkSettings):  # what its questions need is known only with its files
        faults = [f"{name!r} is missing" for name in PROMPTS if name not in d.prompts]
    faults += [f"{name!r} is not known" for name in d.prompts if name not in (*PROMPTS, "system")]
    for name in ("map", "plain"):
        text = d.prompts.get(name, "$question")
        if not isinstance(text, str):  # already reported
            continue
        template = Template(text)
        if not template.is_valid():
            faults.append(f"{name!r} has a $ that begins no name (write $$ for the sign)")
        strange = set(template.get_identifiers()) - {"question", "options", "categories", "answer"}
        faults += [f"{name!r} names ${word}" for word in sorted(strange)]
        if "question" not in template.get_identifiers():
            faults.append(f"{name!r} does not hold $question")
    return faults
