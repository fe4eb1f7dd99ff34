"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from spacer.training import callbacks
from spacer.training.callbacks import HeapTrimmer

FRAGMENTED = """
import resource
from spacer.cpu.heap import return_freed

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

before = held()
blocks = [b"x" * 100_000 for _ in range(2_000)]
kept = blocks[::20]  # between them, the heap cannot shrink
blocks = None
fragmented = held() - before
return_freed()
print(fragmented, held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_lies_between_blocks_in_use_is_returned() -> None:
    told = subprocess.run([sys.executable, "-c", FRAGMENTED], capture_output=True, text=True, check=True).stdout
    fragmented, returned = map(float, told.split())
    assert fragmented > 100 and returned < 40  # MB


@pytest.mark.parametrize(("device", "calls"), [("cpu", 2), ("cuda", 0)])
def test_it_is_returned_every_so_many_batches_on_a_cpu(
    device: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    monkeypatch.setattr(callbacks, "return_freed", lambda: called.append(1))
    module = SimpleNamespace(device=torch.device(device))
    for number in range(50):
        HeapTrimmer(20).on_train_batch_end(None, module, None, None, number)  # type: ignore[arg-type]
    assert len(called) == calls
