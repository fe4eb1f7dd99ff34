"""Each module can be the first that is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import spacer

# libraries stay imported, which take the time
PROGRAM = """
import importlib, pkgutil, sys
import pytorch_lightning, torch, transformers
import spacer
names = [found.name for found in pkgutil.walk_packages(spacer.__path__, "spacer.")]
for name in names:
    for held in [held for held in sys.modules if held.partition(".")[0] == "spacer"]:
        del sys.modules[held]
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
print(len(names), "modules")
"""


@pytest.mark.long
def test_no_module_needs_another_to_be_imported_before() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    *failed, count = done.stdout.strip().splitlines()
    assert not failed
    assert int(count.split()[0]) > 300, spacer.__path__
