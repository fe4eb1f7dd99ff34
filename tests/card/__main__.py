"""`python -m tests.card PART FILE [--dry]` measures a part and writes its metrics to FILE;
`python -m tests.card --page FOLDER` prints the page of results from the files in FOLDER."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from tests.card.page import page
from tests.card.parts import CARD, DRY, PARTS


def main() -> None:
    """Measures, or prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.card")
    parser.add_argument("part", choices=sorted(PARTS), nargs="?")
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--page", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.page is not None:
        print(page(given.page), end="")
        return
    if given.part is None or given.file is None:
        parser.error("name a part and a file")
    if not given.dry and not torch.cuda.is_available():
        sys.exit("tests.card: no CUDA device is here; --dry runs the same code at tiny sizes on the CPU")
    start = time.monotonic()
    metrics = PARTS[given.part](DRY if given.dry else CARD)
    found = {"part": given.part, "dry": given.dry, "date": time.strftime("%Y-%m-%d"), "metrics": metrics}
    given.file.write_text(json.dumps(found | {"seconds": round(time.monotonic() - start, 1)}, indent=1) + "\n")
    if bad := [name for name, row in metrics.items() if isinstance(row, dict) and row.get("holds") is False]:
        sys.exit(f"tests.card: {', '.join(bad)}: beyond the limit")


if __name__ == "__main__":
    main()
