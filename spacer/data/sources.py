"""Dataset settings → samples for training and samples held out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spacer.config.choices import OnBad
from spacer.config.derived import imitated, sections
from spacer.config.settings import (
    DatasetSettings,
    JsonlSettings,
    LayoutsSettings,
    MixSettings,
    RoomsSettings,
    Settings,
    StillsSettings,
)
from spacer.data.generated import Choice, choose
from spacer.data.index import UNREADABLE, is_fresh, maps_of, read_index, sources_of
from spacer.data.leakage import NOTHING, Withheld, forbidden, guard
from spacer.data.samples import TEXT_ALONE, DataError, Fault, Sample, read_maps, read_samples, text_scene
from spacer.data.scenes import rooms, stills
from spacer.data.scenes.layouts import read_layouts
from spacer.errors import UserError

log = logging.getLogger(__name__)
# (benchmark → its folder) → (stem of each video they ask about → the benchmark)
GuardedVideos = Callable[[Mapping[str, str]], Mapping[str, str]]


@dataclass(frozen=True)
class Split:
    """Valid samples, the faults of others, and how many were withheld so that no benchmark's video is trained on."""

    samples: tuple[Sample, ...]
    faults: tuple[Fault, ...] = ()
    withheld: Withheld = NOTHING
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # generated completions to imitate, by id


@dataclass(frozen=True)
class DatasetSplits:
    """One data set of a run, with its weight in an epoch: 1 if it is the only one."""

    settings: DatasetSettings
    train: Split
    heldout: Split
    weight: float


def load_splits(settings: Settings, train: bool, guarded: GuardedVideos) -> tuple[DatasetSplits, ...]:
    """The data of a run; only the held-out part if `train` is false. `guarded` reads the benchmarks of `dataset.guard`.

    Raises:
        DataError: some lines are faulty and `on_bad` is stop, or no valid line is left.
        UserError: a file is malformed, or nothing is left to train on.
    """
    named = settings.dataset.parts if isinstance(settings.dataset, MixSettings) else {"": settings.dataset}
    weights = settings.dataset.weights if isinstance(settings.dataset, MixSettings) else {"": 1.0}
    heldout = {name: load_heldout(dataset) for name, dataset in named.items()}
    splits = []
    for name, dataset in named.items():
        own = [file.path for sample in heldout[name].samples for file in sample.files]
        others = [sample for other, split in heldout.items() if other != name for sample in split.samples]
        names = {**forbidden(others, ()), **_forbidden_by(dataset, guarded)} if train else {}
        split = load_train(dataset, names, own) if train else Split(())
        splits.append(
            DatasetSplits(dataset, _with_prefix(name, split), _with_prefix(name, heldout[name]), weights[name])
        )
    return _chosen(settings, splits) if train else tuple(splits)


def _chosen(settings: Settings, splits: Sequence[DatasetSplits]) -> tuple[DatasetSplits, ...]:
    """The data of which only the training questions are left that `dataset.generated` says to train on."""
    if settings.dataset.generated is None:
        return tuple(splits)
    file = Path(settings.dataset.generated).expanduser()
    every = [sample for data in splits for sample in data.train.samples]
    chosen = choose(every, Choice(file, settings.dataset.pass_rate, imitated(settings)))
    left = {sample.id for sample in chosen.samples}
    found = []
    for (at, _), data in zip(sections(settings), splits, strict=True):
        samples = tuple(sample for sample in data.train.samples if sample.id in left)
        if not samples:
            raise UserError(
                f"dataset.generated={file} leaves no question of {at} to train on: widen dataset.pass_rate, or leave "
                "that part out of the mix"
            )
        train = replace(data.train, samples=samples, targets=chosen.targets)
        found.append(replace(data, train=train))
    return tuple(found)


def _forbidden_by(settings: DatasetSettings, guarded: GuardedVideos) -> Mapping[str, str]:
    """Video → the reason why the data set's own settings keep it out of training."""
    if not isinstance(settings, JsonlSettings):
        return {}
    return {**forbidden((), [Path(file).expanduser() for file in settings.exclude]), **guarded(settings.guard)}


def _with_prefix(part: str, split: Split) -> Split:
    """The split with its ids and faults prefixed by the part's name: two data sets may use the same ids."""
    if not part:
        return split
    samples = tuple(_renamed(sample, f"{part}/{sample.id}") for sample in split.samples)
    return replace(split, samples=samples, faults=tuple(replace(f, where=f"{part}, {f.where}") for f in split.faults))


def _renamed(sample: Sample, identity: str) -> Sample:
    if sample.data_type != TEXT_ALONE:
        return replace(sample, id=identity)
    scene = text_scene(identity) if sample.scene == text_scene(sample.id) else sample.scene
    return replace(sample, id=identity, path=Path(identity), scene=scene)


def load_train(settings: DatasetSettings, names: Container[str] = (), heldout: Iterable[Path] = ()) -> Split:
    """The samples to train on, without those about a video in `names` or in the same data set's `heldout` files.

    Raises:
        DataError: some lines are faulty and `settings.on_bad` is stop, or no valid line is left.
        UserError: nothing is left.
    """
    split = _load(settings, "train")
    kept, withheld = guard(split.samples, names, heldout)
    withheld = Withheld(withheld.videos + split.withheld.videos, withheld.questions + split.withheld.questions)
    if withheld.questions:
        log.info(
            "excluded from training: %d videos with %d questions, which are held out or in a benchmark",
            withheld.videos,
            withheld.questions,
        )
    if not kept:
        index = sources_of(settings)["train"] if isinstance(settings, JsonlSettings) else settings
        if withheld.questions:
            raise UserError(f"{index}: all {withheld.questions} questions are about videos of a benchmark")
        raise UserError(f"{index} has no question{_wanted_sources(settings)}")
    return Split(kept, split.faults, withheld)


def _wanted_sources(settings: DatasetSettings) -> str:
    wanted = settings.data_sources if isinstance(settings, JsonlSettings) else None
    return "" if wanted is None else f" whose data_source is among dataset.data_sources={list(wanted)}"


def load_heldout(settings: DatasetSettings) -> Split:
    """The held-out samples; those of a JSONL data set are in its `heldout` file, if it has one."""
    if isinstance(settings, JsonlSettings) and settings.heldout is None:
        return Split(())
    return _load(settings, "heldout")


def _load(settings: DatasetSettings, split: str) -> Split:
    if (folder := _rendered(settings)) is not None:
        source, root, maps = folder / f"{split}.jsonl", folder, read_maps(folder / "cognitive_map.jsonl")
        samples, faults = read_samples(source, root, maps)
        return _checked(Split(tuple(samples), tuple(faults)), settings.on_bad, source)
    if isinstance(settings, LayoutsSettings):
        return Split(read_layouts(settings, split))
    assert isinstance(settings, JsonlSettings)
    root, source, maps = Path(settings.root).expanduser(), sources_of(settings)[split], maps_of(settings)
    wanted = settings.data_sources if split == "train" else None  # held-out questions may be of other sources
    if is_fresh(settings) and (rows := read_index(settings, split, maps, wanted)) is not None:
        withheld = Withheld(len(set(rows.withheld)), len(rows.withheld))
        return _checked(Split(rows.samples, rows.faults, withheld), settings.on_bad, source)
    samples, faults = read_samples(source, root, maps, wanted, maps_match=split == "train")
    return _checked(Split(tuple(samples), tuple(faults)), settings.on_bad, source)


def _rendered(settings: DatasetSettings) -> Path | None:
    """The folder of a data set that is rendered here."""
    if isinstance(settings, RoomsSettings):
        return rooms.build(settings)
    return stills.build(settings) if isinstance(settings, StillsSettings) else None


def _checked(split: Split, on_bad: OnBad, index: Path) -> Split:
    """Returns the split, or raises a `DataError` for its faults. Unreadable media are never fatal: their samples are
    skipped."""
    lines = [fault for fault in split.faults if fault.kind != UNREADABLE]
    if lines and (on_bad == OnBad.stop or not split.samples):
        raise DataError(index, lines)
    return split
