"""Dataset settings → samples for training and samples held out."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spacer.choices import OnBad
from spacer.data.index import UNREADABLE, is_fresh, read_index, sources_of
from spacer.data.leakage import NOTHING, Withheld, forbidden, guard
from spacer.data.samples import DataError, Fault, Sample, read_maps, read_samples
from spacer.errors import UserError
from spacer.scenes import rooms
from spacer.settings import DatasetSettings, JsonlSettings, MixSettings, RoomsSettings, Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Sound samples, the faults of others, and how many were left out so that no benchmark's video is trained on."""

    samples: tuple[Sample, ...]
    faults: tuple[Fault, ...] = ()
    withheld: Withheld = NOTHING


@dataclass(frozen=True)
class Piece:
    """One data set of a run, with its share of an epoch: all of it where it is the only one."""

    settings: DatasetSettings
    train: Split
    heldout: Split
    weight: float


def load_pieces(settings: Settings, train: bool) -> tuple[Piece, ...]:
    """The data of a run; with `train` false, what is held out alone.

    Raises:
        DataError: some lines are faulty and `on_bad` is stop, or nothing is left.
        UserError: a file is not what it should be, or nothing is left to train on.
    """
    named = settings.dataset.parts if isinstance(settings.dataset, MixSettings) else {"": settings.dataset}
    weights = settings.dataset.weights if isinstance(settings.dataset, MixSettings) else {"": 1.0}
    heldout = {name: load_heldout(dataset) for name, dataset in named.items()}
    asked = [sample for split in heldout.values() for sample in split.samples]
    common = forbidden(asked, (), settings.benchmark) if train else {}
    pieces = []
    for name, dataset in named.items():
        lists = [Path(file).expanduser() for file in dataset.exclude] if isinstance(dataset, JsonlSettings) else []
        split = load_train(dataset, {**common, **forbidden((), lists)}) if train else Split(())
        pieces.append(Piece(dataset, _of(name, split), _of(name, heldout[name]), weights[name]))
    return tuple(pieces)


def _of(part: str, split: Split) -> Split:
    """The split with the part's name before its ids and faults, for which two data sets may have the same."""
    if not part:
        return split
    samples = tuple(replace(sample, id=f"{part}/{sample.id}") for sample in split.samples)
    return replace(split, samples=samples, faults=tuple(replace(f, where=f"{part}, {f.where}") for f in split.faults))


def load_train(settings: DatasetSettings, names: Container[str] = ()) -> Split:
    """The samples to train on, without those about a video among `names`.

    Raises:
        DataError: some lines are faulty and `settings.on_bad` is stop, or nothing is left.
        UserError: nothing is left.
    """
    split = _load(settings, "train")
    kept, withheld = guard(split.samples, names)
    withheld = Withheld(withheld.videos + split.withheld.videos, withheld.questions + split.withheld.questions)
    if withheld.questions:
        log.info(
            "left out of training: %d videos with %d questions, which are held out or in a benchmark",
            withheld.videos,
            withheld.questions,
        )
    if not kept:
        index = sources_of(settings)["train"] if isinstance(settings, JsonlSettings) else settings
        if withheld.questions:
            raise UserError(f"{index}: all {withheld.questions} questions are about videos of a benchmark")
        raise UserError(f"{index} holds no question{_of_sources(settings)}")
    return Split(kept, split.faults, withheld)


def _of_sources(settings: DatasetSettings) -> str:
    wanted = settings.data_sources if isinstance(settings, JsonlSettings) else None
    return "" if wanted is None else f" whose data_source is among dataset.data_sources={list(wanted)}"


def load_heldout(settings: DatasetSettings) -> Split:
    """The samples that training never sees; a JSONL data set has those of its `heldout` file, or none."""
    if isinstance(settings, JsonlSettings) and settings.heldout is None:
        return Split(())
    return _load(settings, "heldout")


def _load(settings: DatasetSettings, split: str) -> Split:
    if isinstance(settings, RoomsSettings):
        folder = rooms.build(settings)
        found = _examined(folder / f"{split}.jsonl", folder, folder / "cognitive_map.jsonl")
        return _judged(found, settings.on_bad, folder / f"{split}.jsonl")
    assert isinstance(settings, JsonlSettings)
    root, source = Path(settings.root).expanduser(), sources_of(settings)[split]
    wanted = settings.data_sources if split == "train" else None  # what is asked may have a source of its own
    maps = root / settings.maps if settings.maps is not None else None
    if is_fresh(settings):
        rows = read_index(settings, split, read_maps(maps) if maps is not None else {}, wanted)
        withheld = Withheld(len(set(rows.withheld)), len(rows.withheld))
        return _judged(Split(rows.samples, rows.faults, withheld), settings.on_bad, source)
    return _judged(_examined(source, root, maps, wanted), settings.on_bad, source)


def _examined(index: Path, root: Path, maps: Path | None, wanted: Sequence[str] | None = None) -> Split:
    samples, faults = read_samples(index, root, read_maps(maps) if maps is not None else {}, wanted)
    return Split(tuple(samples), tuple(faults))


def _judged(split: Split, on_bad: OnBad, index: Path) -> Split:
    """The split, unless its faults end the run. A file that does not open never does: its samples are left out."""
    lines = [fault for fault in split.faults if fault.kind != UNREADABLE]
    if lines and (on_bad == OnBad.stop or not split.samples):
        raise DataError(index, lines)
    return split
