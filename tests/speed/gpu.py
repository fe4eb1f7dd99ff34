"""What a training step costs on a GPU, on a model of a published size: ours, the released algorithm, TRL's.

    python -m tests.speed.gpu [--systems …] [--model qwen3b] [--questions N …] [--prompts N …] [--json FILE]

The weights are random, in bfloat16; the times are those of trained ones. Times are per question, on the clock:
medians of steps after one that compiles and warms up. Memory is the most that PyTorch had allocated in a step, weights,
reference, gradients and optimiser states included; of TRL without what vLLM holds. TRL is to be installed for it, and
samples with vLLM where that is installed too.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from spacer.attention.backends import AttentionChoice
from spacer.attention.interface import WINDOWS
from spacer.config.choices import Checkpointing
from spacer.config.settings import ModelSettings
from spacer.models.probe import probe_model
from spacer.planning.sizes import config_of
from tests.parity.conftest import composed
from tests.speed.measure import quiet
from tests.speed.step import LENGTHS
from tests.speed.systems import MODEL, Bench, Cell, Plan, Released, Spacer, System, Trl

GROUP = 8
Case = tuple[Cell, str, str, System]  # with the names of the system and its attention


@dataclass(frozen=True)
class Row:
    """A system, per question, with so many of them in a step."""

    prompt_tokens: int
    questions: int
    system: str
    attention: str
    wall_s: float
    peak_bytes: int


def write_model(name: str, folder: Path) -> ModelSettings:
    """A folder with random weights of a published model's shape, and the embedded model's processor."""
    from transformers import AutoModelForImageTextToText

    config = config_of(composed("stage=plan", f"model={name}", "model.name_or_path=nowhere").model)
    embedded = config_of(MODEL)
    for token in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        setattr(config, token, getattr(embedded, token))
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    probe_model(MODEL).processor.save_pretrained(folder)
    return ModelSettings(str(folder), dtype="bfloat16", gradient_checkpointing=Checkpointing.none)


def choices() -> dict[str, AttentionChoice]:
    """What ours attends with: what is always there, and flash-attn where it is installed."""
    found = {"torch": AttentionChoice(WINDOWS, "flex", "graph")}
    if find_spec("flash_attn") is not None:
        found["flash-attn"] = AttentionChoice("flash_attention_2", "flex", "graph")
    return found


def of_spacer(cell: Cell, model: ModelSettings, questions: Sequence[int]) -> Iterator[Case]:
    """By attention, and by questions in a rollout."""
    for kind, choice in choices().items():
        for count in questions:
            plan = Plan(count, 16_384, vision_again=False)
            yield cell, "spacer", kind, Spacer(cell, plan, Bench(model, "cuda", choice))


def of_released(cell: Cell, model: ModelSettings, questions: Sequence[int]) -> Iterator[Case]:
    """Of which a step has one question."""
    kind, choice = list(choices().items())[-1]
    yield cell, "released", kind, Released(cell, Bench(model, "cuda", choice))


def of_trl(cell: Cell, model: ModelSettings, questions: Sequence[int]) -> Iterator[Case]:
    """By questions generated together."""
    for count in questions:
        system = Trl(cell, count, Bench(model, "cuda"))
        yield cell, f"TRL, {system.engine}", "sdpa", system


CASES = {"released": of_released, "spacer": of_spacer, "trl": of_trl}


def measured(system: System, repeats: int) -> tuple[float, int]:
    """Seconds a question, and bytes at the most."""
    system.prepared()()
    seconds = []
    for _ in range(repeats):
        step = system.prepared()
        gc.collect()  # a trainer holds on to itself, and to the optimiser states of the step before
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / system.questions, torch.cuda.max_memory_allocated()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("qwen3b", "qwen7b"), default="qwen3b", help="whose size the model has")
    parser.add_argument("--systems", choices=CASES, nargs="+", default=("released", "spacer"), help="whose steps")
    parser.add_argument("--prompts", type=int, nargs="+", choices=LENGTHS, default=LENGTHS, help="tokens of a prompt")
    parser.add_argument("--questions", type=int, nargs="+", default=(1, 8), help="questions in a rollout of ours")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of a completion")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps; the median counts")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    quiet()
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        model = write_model(options.model, Path(folder))
        torch.cuda.empty_cache()
        cells = [Cell(length, GROUP, options.tokens, 1) for length in options.prompts]
        cases = [
            case for name in options.systems for cell in cells for case in CASES[name](cell, model, options.questions)
        ]
        for cell, name, kind, system in tqdm(cases, desc="steps"):
            wall, most = measured(system, options.repeats)
            rows.append(Row(cell.prompt_tokens, system.questions, name, kind, wall, most))
            torch.cuda.empty_cache()
            if options.json:
                options.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))
    shown = Table(title=f"A step of {options.model} in bfloat16, G = {GROUP}, on the clock", title_justify="left")
    for column in ("prompt", "system", "attention", "questions", "s a question", "memory GB"):
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(
            *(str(row.prompt_tokens), row.system, row.attention, str(row.questions), f"{row.wall_s:.3f}"),
            f"{row.peak_bytes / 1e9:.1f}",
        )
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
