"""`model=endpoint` as a user calls it: killed, refused and resumed, with one answer for each question in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("openai")

from spacer.benchmarks import benchmark
from tests.benchmarks_as_distributed import MAKERS
from tests.cli.conftest import ROOT
from tests.cli.test_train import rows
from tests.loopback import serving

KEY = "sk-proj-0123456789abcdefghij"


def call(root: Path, out: Path, url: str, *more: str) -> list[str]:
    words = ["stage=evaluate", "model=endpoint", f"model.base_url={url}", "model.name=served", "benchmark=blink"]
    words += [f"benchmark.root={root}", f"hydra.run.dir={out}", "logger=none", "evaluation.resamples=100"]
    return [sys.executable, str(ROOT / "run.py"), *words, "model.endpoint.max_pause_s=0.05", *more]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "COLUMNS": "200"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500, cwd=ROOT)


@pytest.mark.long
def test_killed_in_the_middle_and_gone_on_with(tmp_path: Path) -> None:
    root, out = tmp_path / "files", tmp_path / "out"
    MAKERS["blink"](root)
    questions = {question.id for question in benchmark("blink").read(root)[0]}
    environment = {**os.environ, "OPENAI_API_KEY": KEY}
    one_at_a_time = "model.endpoint.concurrency=1"
    with serving(lambda number, _: "(A)" if number < 4 else "slow") as server:
        process = subprocess.Popen(call(root, out, server.url, one_at_a_time), env=environment, cwd=ROOT)
        while len(server.requests) < 5 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = [row["id"] for row in rows(out / "predictions/blink.0.part.jsonl")]
    assert len(kept) == 4
    # the server is gone, and then another with a storm
    done = run(call(root, out, server.url, "model.endpoint.retries=1"))
    assert done.returncode == 1 and "gave no answer in 2 attempts" in done.stderr and "Traceback" not in done.stderr
    faults = ("429", "500", "200 page", "cut")
    with serving(lambda number, _: faults[number % 4] if number % 3 else "(A)") as again:
        done = run(call(root, out, again.url, "model.endpoint.retries=30"))
        assert done.returncode == 0, done.stderr
    found = rows(out / "predictions/blink.jsonl")
    assert {row["id"] for row in found} == questions and len(found) == len(questions)
    assert len(again.completed) == len(questions) - 4 and not Counter(again.completed) - Counter(again.completed)
    scores = json.loads((out / "scores.json").read_text())
    assert scores["official"]["overall"] == pytest.approx(1) and scores["settings"]["base_url"] == again.url
    assert scores["settings"]["model"] == {"name_or_path": "served", "pathway": "endpoint, videos as frames"}
    assert (scores["settings"]["prompt_tokens"], scores["settings"]["completion_tokens"]) == (11 * 15, 3 * 15)
    assert "served, endpoint, videos as frames" in done.stdout
    for file in out.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    assert KEY not in done.stdout + done.stderr
    # other frames are other conditions
    done = run(call(root, out, server.url, "benchmark.image_max_pixels=50000"))
    assert done.returncode == 1 and "under other conditions" in done.stderr


def test_what_an_endpoint_cannot_do_is_said(tmp_path: Path) -> None:
    MAKERS["blink"](tmp_path)
    done = run(call(tmp_path, tmp_path / "out", "http://me:secret@host/v1", "cluster.devices=2"))
    assert done.returncode == 1 and "without a name or password" in done.stderr
    assert "asks from one process" in done.stderr and "Traceback" not in done.stderr
