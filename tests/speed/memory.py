"""Whether the memory of a data worker stays flat over thousands of decodes.

    python -m tests.speed.memory [--decodes N] [--plot FILE] [--json FILE]

A process does what a worker does, with the embedded model's processor: decodes a video that it does not remember,
processes it, drops it. Half of the files are ordinary ones, of which some are cut short and one is no video; the others
are the odd ones of the tests, which PyAV decodes: trimmed clips, other containers, uneven frames. What is shown is the
memory that the process holds itself (RSS less what it shares with others), every fiftieth decode.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from tqdm import tqdm

from spacer.config.settings import RoomsSettings, VideoSettings
from spacer.data.scenes import rooms
from tests.unit.data.odd_videos import READ, TURNED

EVERY, PRINTED = 50, 500  # decodes between two looks, and between two that are printed
SIZES = {"96 px": 96, "192 px": 192, "320 px": 320}


def main() -> None:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decodes", type=int, default=5000)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        context = multiprocessing.get_context("spawn")
        receive, send = context.Pipe(duplex=False)
        worker = context.Process(target=decode_all, args=(files, arguments.decodes, send))
        worker.start()
        send.close()
        curve = list(tqdm(_received(receive), total=-(-arguments.decodes // EVERY), desc=f"{EVERY} decodes each"))
        worker.join()
    counts, megabytes = zip(*curve, strict=True)
    settled = [value for count, value in curve if count >= arguments.decodes / 10]
    slope = np.polyfit(np.array(counts[-len(settled) :]) / 1000, settled, 1)[0]
    console = Console()
    for count, value in curve:
        if count % PRINTED == 0:
            console.print(f"{count:>6,} decodes: {value:.1f} MB")
    console.print(
        f"{counts[-1]:,} decodes: {settled[0]:.1f} MB after the first tenth, {settled[-1]:.1f} MB at the end, "
        f"{min(settled):.1f} to {max(settled):.1f} between; {slope:+.2f} MB for a thousand decodes"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps({"decodes": counts, "megabytes": megabytes}) + "\n")
    if arguments.plot:
        draw(counts, megabytes, arguments.plot)


def make_files(folder: Path) -> list[Path]:
    """Videos of three sizes, 36 sound ones, five cut short and one that is none; and the odd ones of the tests."""
    files: list[Path] = []
    for pixels in SIZES.values():
        settings = RoomsSettings(root=str(folder), train_scenes=14, heldout_scenes=1, size_px=pixels)
        files += sorted((rooms.build(settings) / "videos").glob("train_*.mp4"))
    for path in files[::10]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    files[5].write_bytes(b"no video" * 500)
    odd = {**READ, **{name: make for name, (make, _) in TURNED.items()}}
    return files + [make(folder / name) for name, make in odd.items()]


def decode_all(files: list[Path], decodes: int, send: Any) -> None:
    """Decodes and processes, in a worker's process."""
    from omegaconf import OmegaConf

    from spacer.config.settings import DatasetSettings, ModelSettings
    from spacer.data.decode import MediaReader
    from spacer.data.processing import prepare
    from spacer.data.samples import Sample
    from spacer.models.probe import probe_model
    from spacer.tree.mrope import PositionRule

    repository = Path(__file__).resolve().parents[2]
    prompts = OmegaConf.load(repository / "conf/dataset/prompts/default.yaml")
    settings = DatasetSettings(
        video=VideoSettings(max_frames=16, fps=4.0, max_pixels=50_176),
        prompts={str(name): str(text) for name, text in prompts.items()},
    )
    processor = probe_model(ModelSettings(str(repository / "spacer/assets/tiny"))).processor
    rule = PositionRule(merge=2, tokens_per_second=2.0, split_frames=False)
    reader = MediaReader(bytes_held=0)  # the last file alone: every other is decoded anew
    for count in range(decodes):
        path = files[count % len(files)]
        sample = Sample(
            id=str(count),
            problem="How many?",
            problem_type="numerical",
            options=(),
            solution="3",
            data_type="video",
            path=path,
            source="",
            scene="",
            question_type="",
            reasoning=None,
            true_map=None,
        )
        prepare(sample, processor, settings, rule=rule, reader=reader)
        if (count + 1) % EVERY == 0 or count + 1 == decodes:
            send.send((count + 1, own_megabytes()))
    send.close()


def own_megabytes() -> float:
    """What this process holds of its own, in MB."""
    resident, shared = (int(word) for word in Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * 4096 / 1e6


def _received(receive: Any) -> Iterator[tuple[int, float]]:
    while True:
        try:
            yield receive.recv()
        except EOFError:
            return


def draw(counts: tuple[int, ...], megabytes: tuple[float, ...], path: Path) -> None:
    """The curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(counts, megabytes, color="#1b6ca8", linewidth=1.2)
    axes.set_ylim(0, 1.25 * max(megabytes))
    axes.set_xlabel("videos decoded and processed", fontsize=8)
    axes.set_ylabel("own memory, MB", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3, linewidth=0.4)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()
