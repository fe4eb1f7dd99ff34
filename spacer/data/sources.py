"""Dataset settings → samples for training and samples held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spacer.data import rooms
from spacer.data.samples import DataError, Fault, Sample, read_maps, read_samples
from spacer.settings import JsonlSettings, OnBad, RoomsSettings


@dataclass(frozen=True)
class Split:
    """Sound samples, and the faults of those that were left out."""

    samples: tuple[Sample, ...]
    faults: tuple[Fault, ...]
    index: Path


def load_train(settings: RoomsSettings | JsonlSettings) -> Split:
    """The samples to train on.

    Raises:
        DataError: some lines are faulty and `settings.on_bad` is stop, or nothing is left.
    """
    if isinstance(settings, RoomsSettings):
        return _rooms(settings, "train")
    root = Path(settings.root).expanduser()
    maps = root / settings.maps if settings.maps is not None else None
    return _read(root / settings.index, root, maps, settings.on_bad)


def load_heldout(settings: RoomsSettings | JsonlSettings) -> Split:
    """The samples that training never sees; a plain JSONL file has none."""
    if isinstance(settings, RoomsSettings):
        return _rooms(settings, "heldout")
    return Split((), (), Path(settings.root).expanduser() / settings.index)


def _rooms(settings: RoomsSettings, split: str) -> Split:
    folder = rooms.build(settings)
    return _read(folder / f"{split}.jsonl", folder, folder / "cognitive_map.jsonl", settings.on_bad)


def _read(index: Path, root: Path, maps: Path | None, on_bad: OnBad) -> Split:
    samples, faults = read_samples(index, root, read_maps(maps) if maps is not None else {})
    if faults and (on_bad == OnBad.stop or not samples):
        raise DataError(index, faults)
    if not samples:
        raise ValueError(f"{index} holds no question")
    return Split(tuple(samples), tuple(faults), index)
