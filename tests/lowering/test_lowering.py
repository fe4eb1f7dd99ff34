"""FlexAttention over packed rows is lowered for an H100 without one, down to machine code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.cli.forks import ROOT

pytestmark = pytest.mark.long
HERE = Path(__file__).parent
SHARED = 232_448  # bytes that a block may have on an H100


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which CUDA's libraries are stood in for."""
    if torch.version.cuda is None or find_spec("triton") is None:
        pytest.skip("this torch is built without CUDA, or has no Triton: there is nothing to lower to")
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is there: tests/cuda runs what this only compiles")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("libraries")
    for source, library in (("runtime.c", "runtime.so"), ("driver.c", "libcuda.so.1")):
        subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / library, HERE / source], check=True)
    return {**os.environ, "LD_PRELOAD": str(folder / "runtime.so"), "LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize(("words", "kernels"), [((), 1), (("gradient",), 2)], ids=["forward", "backward"])
def test_kernels_for_the_7b_fit_an_h100(words: tuple[str, ...], kernels: int, libraries: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lowering.lower", *words], cwd=ROOT, env=libraries, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["kernels"]) == kernels, found
    for kernel in found["kernels"]:
        assert kernel["shared"] <= SHARED, kernel
        assert kernel["registers"] <= 255 and kernel["stack"] <= 1024, kernel
