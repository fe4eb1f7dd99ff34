"""Models of their real sizes under FSDP, on ranks that are not there: each holds what `stage=plan` says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.forks import ROOT

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("ranks", "model"), [(8, "qwen7b"), (64, "qwen32b"), (64, "qwen72b"), (8, "qwen3vl_8b"), (2, "qwen3b")]
)
def test_a_rank_holds_what_the_plan_says(ranks: int, model: str) -> None:
    words = [sys.executable, "-m", "tests.parity.fake_ranks", str(ranks), "experiments=spacer_7b", f"model={model}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    found, planned = told["found"], told["planned"]
    assert found["weights"] == pytest.approx(planned["weights"], rel=1e-3)
    assert found["gathered"] == pytest.approx(planned["gathered"], rel=1e-3)
    # of the language model alone, since the forward pass was of text
    assert found["gradients"] == found["text"]
    assert found["gradients"] == pytest.approx(planned["gradients"] * found["text"] / found["weights"], rel=1e-3)
