"""Which samples come when, the same after a restart as without one."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from spacer.data.loading import TrainLoader, epoch_order
from spacer.data.processing import PromptBatch
from spacer.data.samples import Sample
from spacer.errors import UserError
from tests.unit.data.making import Numbered, sample

Seen = tuple[tuple[str, ...], tuple[int, ...]]  # the samples of a batch, the positions of their use


def loader(count: int, workers: int = 1, each: int = 4, **options: Any) -> TrainLoader:
    dataset: Any = Numbered(count, workers, each)
    return TrainLoader(dataset, **{"batch_size": 2, "seed": 0, **options})


def seen(batch: PromptBatch) -> Seen:
    positions = (int(batch.forest.prompt(n).ids_L[0]) for n in range(len(batch.samples)))
    return tuple(item.id for item in batch.samples), tuple(positions)


def epoch(from_loader: TrainLoader) -> list[Seen]:
    return [seen(batch) for batch in from_loader]


def names(batches: list[Seen]) -> list[str]:
    return [name for ids, _ in batches for name in ids]


# ---- epochs


def test_each_epoch_is_a_permutation_of_its_own() -> None:
    train = loader(12)
    assert len(train) == 6
    epochs = [epoch(train) for _ in range(3)]
    for batches in epochs:
        assert len(batches) == 6
        assert sorted(names(batches), key=int) == [str(number) for number in range(12)]
    assert len({tuple(names(batches)) for batches in epochs}) == 3
    positions = [position for batches in epochs for _, used in batches for position in used]
    assert positions == list(range(36))  # no position, and so no random number, comes twice


def test_the_order_is_the_seeds() -> None:
    assert epoch(loader(12)) == epoch(loader(12))
    assert epoch(loader(12)) != epoch(loader(12, seed=1))
    assert names(epoch(loader(12, seed=5))) == [str(n) for n in np.random.default_rng([5, 0, 0]).permutation(12)]


def test_what_fills_no_batch_is_left_for_another_epoch() -> None:
    train = loader(7)
    epochs = [names(epoch(train)) for _ in range(12)]
    assert all(len(set(found)) == len(found) == 6 for found in epochs)
    assert {name for found in epochs for name in found} == {str(number) for number in range(7)}


def test_ranks_share_each_epoch_out() -> None:
    ranks = [loader(20, batch_size=3, rank=rank, world=3) for rank in range(3)]
    taken = []
    for _ in range(2):
        shares = [epoch(train) for train in ranks]
        assert [len(share) for share in shares] == [2, 2, 2]  # the same number, or a rank would wait for ever
        every = [name for share in shares for name in names(share)]
        assert len(set(every)) == len(every) == 18
        positions = [position for share in shares for _, used in share for position in used]
        assert len(set(positions)) == 18
        taken.append(set(positions))
    assert not taken[0] & taken[1]


@pytest.mark.parametrize("together", [1, 2, 3, 4, 8, 9])
def test_ranks_together_are_one_process_of_larger_batches(together: int) -> None:
    """Sample for sample and position for position, so that a run does not depend on how it is spread."""
    alone = epoch(loader(16, batch_size=4, together=together))
    shares = [epoch(loader(16, batch_size=2, rank=rank, world=2, together=together)) for rank in range(2)]
    joined = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(*shares, strict=True)]
    assert joined == alone


def test_a_run_goes_on_with_another_number_of_ranks_where_their_batches_are_as_large_together() -> None:
    alone = loader(16, batch_size=4)
    whole = epoch(alone)
    begun = loader(16, batch_size=4)
    next(iter(begun))
    ranks = [loader(16, batch_size=2, rank=rank, world=2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(begun.state_dict())
    joined = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(*(epoch(rank) for rank in ranks), strict=True)]
    assert joined == whole[1:]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"batch_size": 4, "world": 2}, "4 on each of 2: .* objective.prompts_per_rollout=2"),
        ({"batch_size": 2, "world": 3}, "6, 2 on each of 3: .* a number of devices that divides 4"),
    ],
)
def test_batches_of_another_size_are_not_gone_on_with(options: dict[str, int], remedy: str) -> None:
    with pytest.raises(UserError, match=f"has 4 samples in a batch of all devices together, and this run .*{remedy}"):
        loader(16, **options).load_state_dict(loader(16, batch_size=4).state_dict())


@pytest.mark.parametrize(("count", "options"), [(0, {}), (1, {}), (7, {"world": 4}), (3, {"batch_size": 4})])
def test_too_few_samples_are_refused_with_a_remedy(count: int, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"^{count} samples .*prompts_per_rollout.*stage\.batch_size.* more data"):
        loader(count, **options)


@pytest.mark.parametrize("options", [{}, {"world": 4, "rank": 3}, {"batch_size": 8}, {"together": 5}])
def test_just_enough_samples_are_one_round(options: dict[str, int]) -> None:
    assert epoch(loader(8, **options))


# ---- questions about one file stand together


def asked(*counts: int) -> list[Sample]:
    """As many questions about each file as `counts` says, one file after another."""
    files = [file for file, count in enumerate(counts) for _ in range(count)]
    return [sample(str(number), path=Path(f"/{file}.mp4")) for number, file in enumerate(files)]


def orders(samples: Sequence[Sample], together: int, count: int = 200) -> list[list[int]]:
    return [epoch_order(samples, together, np.random.default_rng(seed)).tolist() for seed in range(count)]


@pytest.mark.parametrize("together", [1, 2, 3, 4, 100])
def test_every_sample_comes_once_however_many_stand_together(together: int) -> None:
    for order in orders(asked(7, 1, 3, 4), together):
        assert sorted(order) == list(range(15))


def test_bunches_have_the_asked_size_and_what_is_left_is_a_smaller_one() -> None:
    """Told by how many questions about a file follow each other: bunches of one file may come to stand side by side."""
    samples = asked(7, 1, 3, 4)
    runs: dict[str, set[int]] = {}
    for order in orders(samples, 3):
        for path, run in itertools.groupby(samples[index].path for index in order):
            runs.setdefault(path.stem, set()).add(len(list(run)))
    assert runs == {"0": {3, 1, 3 + 1, 3 + 3, 3 + 3 + 1}, "1": {1}, "2": {3}, "3": {3, 1, 3 + 1}}


def test_bunches_are_shuffled_and_so_is_what_is_in_them() -> None:
    found = orders(asked(6, 6), 3)
    assert {order[0] for order in found} == set(range(12))
    files = {tuple(index // 6 for index in order[::3]) for order in found}
    assert files == set(itertools.permutations((0, 0, 1, 1)))
    mates = {frozenset(order[i : i + 3]) for order in found for i in range(0, 12, 3) if 0 in order[i : i + 3]}
    assert len(mates) == 5 * 4 / 2  # any two of the file's other five


def test_files_asked_about_once_are_simply_shuffled() -> None:
    assert {tuple(order) for order in orders(asked(1, 1, 1), 3)} == set(itertools.permutations(range(3)))


def test_one_at_a_time_is_a_plain_permutation() -> None:
    samples = asked(7, 1, 3, 4)
    assert orders(samples, 1) == [np.random.default_rng(seed).permutation(15).tolist() for seed in range(200)]


def test_a_batch_as_large_as_a_bunch_is_about_one_file() -> None:
    train, again = (loader(18, each=6, batch_size=3, together=3) for _ in range(2))
    epochs = [epoch(train) for _ in range(3)]
    assert epochs == [epoch(again) for _ in range(3)]
    assert len({tuple(names(batches)) for batches in epochs}) == 3
    for batches in epochs:
        assert sorted(names(batches), key=int) == [str(number) for number in range(18)]
        assert all(len({int(name) // 6 for name in ids}) == 1 for ids, _ in batches)
    assert [position for batches in epochs for _, used in batches for position in used] == list(range(54))
    assert epochs[0] != epoch(loader(18, each=6, batch_size=3, together=3, seed=1))


# ---- restarts

PLANS: list[dict[str, int]] = [
    {},
    {"together": 3},
    {"together": 2, "rank": 1, "world": 2, "batch_size": 1},
]


@pytest.mark.parametrize("options", PLANS, ids=str)
def test_a_restart_anywhere_goes_on_with_the_same_batches(options: dict[str, int]) -> None:
    count = 9
    whole = loader(count, **options)
    uninterrupted = epoch(whole) + epoch(whole)
    for given in range(1, len(whole)):
        broken_off = loader(count, **options)
        before = [seen(batch) for batch in itertools.islice(broken_off, given)]
        resumed = loader(count, workers=2 if given == 1 else 1, **options)  # another number of workers
        resumed.load_state_dict(broken_off.state_dict())
        assert before + epoch(resumed) + epoch(resumed) == uninterrupted


def test_the_state_is_plain_numbers() -> None:
    train = loader(12)
    list(itertools.islice(train, 3))
    assert all(type(value) is int for value in train.state_dict().values())


def test_a_state_tells_epochs_apart() -> None:
    train = loader(8)
    epoch(train)
    list(itertools.islice(train, 1))
    resumed = loader(8)
    resumed.load_state_dict(train.state_dict())
    again = loader(8)
    epoch(again)
    assert epoch(resumed) == epoch(again)[1:]


def test_an_epoch_that_is_taken_by_its_length_is_followed_by_a_whole_one() -> None:
    """Lightning asks for `len(loader)` batches and never for the end of the iterator."""
    train, other = loader(8), loader(8)
    taken = [[seen(batch) for batch in itertools.islice(train, len(train))] for _ in range(3)]
    assert taken == [epoch(other) for _ in range(3)]


def test_a_state_at_the_end_of_an_epoch_goes_on_with_the_next() -> None:
    train = loader(8)
    first = [seen(batch) for batch in itertools.islice(train, len(train))]
    resumed, whole = loader(8), loader(8)
    resumed.load_state_dict(train.state_dict())
    assert epoch(whole) == first
    assert epoch(resumed) == epoch(whole)


LIGHTNING: list[tuple[int, dict[str, int]]] = [(1, {}), (2, {"together": 3})]


class Recorder(pl.LightningModule):
    """Learns nothing and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.shown: list[Seen] = []

    def training_step(self, batch: PromptBatch, _: int) -> Tensor:
        self.shown.append(seen(batch))
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def quiet() -> Iterator[None]:
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    yield
    log.setLevel(level)


def fit(folder: Path, ckpt: Path | None, accumulate: int, **options: Any) -> list[Seen]:
    """Two epochs under Lightning as `spacer.stages` runs it, a checkpoint after every step."""
    module = Recorder()
    keep = pl.callbacks.ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        logger=False,
        callbacks=[keep],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, train_dataloaders=loader(9, **options), ckpt_path=ckpt, weights_only=True)
    return module.shown


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("accumulate", "options"), LIGHTNING, ids=str)
def test_every_epoch_under_lightning_is_a_whole_one(accumulate: int, options: dict[str, int], tmp_path: Path) -> None:
    plain = loader(9, **options)
    assert fit(tmp_path, None, accumulate, **options) == epoch(plain) + epoch(plain)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("accumulate", "options"), LIGHTNING, ids=str)
def test_lightning_resumes_from_any_checkpoint_with_the_same_batches(
    accumulate: int, options: dict[str, int], tmp_path: Path
) -> None:
    shown = fit(tmp_path / "whole", None, accumulate, **options)
    for step in range(1, len(shown) // accumulate):
        rest = fit(tmp_path / f"after {step}", tmp_path / "whole" / f"step={step}.ckpt", accumulate, **options)
        assert rest == shown[step * accumulate :]


def test_no_workers_means_this_process() -> None:
    assert epoch(loader(8, workers=0)) == epoch(loader(8))
