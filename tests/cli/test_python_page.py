"""The Python that the site shows runs as it stands there, and prints what it is said to print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.pages import ROOT, blocks, page


def test_the_python_page_runs_and_prints_what_it_shows(environment: dict[str, str], tmp_path: Path) -> None:
    shown = list(blocks(page("api/index"), "python", "text"))
    code = "\n".join(block for language, block in shown if language == "python")
    assert code.count("import") > 10
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(block for language, block in shown if language == "text"), done.stderr
