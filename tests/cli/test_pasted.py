"""What is printed is harmless, and can be pasted whatever a folder is called."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from spacer.terminal.pasting import pasted, pasted_list
from tests.cli.conftest import BRIEF, Command, succeeds

UGLY = "a=b, c [d] {e} (f)'g"
HOSTILE = "\x1b[2J[bold]essay[/bold]\u202e"


def words(line: str) -> list[str]:
    """What a shell makes of a line that is pasted into it."""
    done = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.long
def test_folders_with_ugly_names_are_trained_in_gone_on_exported_and_reported(command: Command, tmp_path: Path) -> None:
    run, out = tmp_path / UGLY, tmp_path / f"out {UGLY}"
    brief = [word for word in BRIEF if not word.startswith("trainer.max_steps")] + ["stage.evaluate_after=false"]
    done = command(*brief, "trainer.max_steps=1", *words(pasted("hydra.run.dir", str(run))))
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    go_on = re.search(r"if interrupted, go on with the same settings and (.*)", told)
    assert go_on is not None, told
    done = command(*brief, "trainer.max_steps=2", *words(go_on[1]))
    assert done.returncode == 0 and "resuming after step 1" in done.stdout + done.stderr, done.stdout + done.stderr
    scored = json.dumps({"benchmark": "b", "official": {"overall": 0.5}})
    (run / "scores.json").write_text(scored)
    line = " ".join(
        [
            pasted("ckpt_path", str(run / "checkpoints/last.ckpt")),
            pasted_list("runs", [str(run)]),
            pasted("hydra.run.dir", str(out)),
        ]
    )
    succeeds(command("stage=export", *words(line)))
    card = (out / "model/README.md").read_text()
    assert "| b | overall | 0.5 |  |" in card and "Trained for 2 optimiser steps" in card
    (run / "scores.json").unlink()
    line = f"{pasted_list('runs', [str(run)])} {pasted('hydra.run.dir', str(out / 'report'))}"
    succeeds(command("stage=report", *words(line)))
    assert (out / "report/report.html").is_file()


def test_hostile_lines_are_told_without_control_characters_and_markup(command: Command, tmp_path: Path) -> None:
    row = {"problem_id": f"1{HOSTILE}", "scene": HOSTILE, "question_type": HOSTILE, "data_type": "video"}
    row |= {"problem": "?", "problem_type": HOSTILE, "options": [], "solution": "<answer>1</answer>"}
    lines = [row | {"path": f"videos/{HOSTILE}.mp4"}, row | {"problem_type": "numerical", "path": f"{HOSTILE}.mp4"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = ("dataset=jsonl", f"dataset.root={tmp_path}", "dataset.index=train.jsonl", "dataset.maps=null")
    for stage in ("stage=train", "stage=prepare"):
        done = command(stage, *data, "logger=none", f"hydra.run.dir={tmp_path / 'out'}")
        said = done.stdout + done.stderr
        assert "[bold]essay[/bold]" in said, said
        assert "Traceback" not in said and "\x1b" not in said and "\u202e" not in said
    log = (tmp_path / "out/run.log").read_text()
    assert "\x1b" not in log and "\u202e" not in log
