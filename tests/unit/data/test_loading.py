"""Which samples come when, the same after a restart as without one; batches as the model wants them."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from spacer.data.loading import OrderedLoader, PromptDataset, TrainLoader, Use
from spacer.data.processing import Prompt, PromptBatch, collate, prepare
from spacer.data.prompts import ShownTarget, map_literal, prompt_text, worked_completion
from spacer.data.samples import Fault, Sample
from spacer.settings import RoomsSettings

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

PAD = 9
Seen = tuple[tuple[str, ...], tuple[int, ...], int]  # the samples of a batch, the positions of their use, reuse


def sample(identity: str = "0", **changes: Any) -> Sample:
    values: dict[str, Any] = {
        "id": identity,
        "problem": "How many?",
        "problem_type": "numerical",
        "options": (),
        "solution": "3",
        "data_type": "video",
        "path": Path("/none.mp4"),
        "source": "rooms",
        "scene": "s",
        "question_type": "object_counting",
        "reasoning": None,
        "true_map": None,
    }
    return Sample(**{**values, **changes})


def prompt(ids: list[int], **changes: Any) -> Prompt:
    """A prompt of the given token ids, with patches that are known by them."""
    values: dict[str, Any] = {
        "sample": sample(str(ids[0])),
        "ids_L": torch.tensor(ids),
        "positions_3L": torch.arange(3 * len(ids)).reshape(3, -1) + 100 * ids[0],
        "pixels_PD": torch.full((4, 2), float(ids[0])),
        "grid_thw": torch.tensor([[1, 2, 2]]),
        "target_ids": None,
        "frame_HWC": np.full((1, 1, 3), ids[0], np.uint8),
    }
    return Prompt(**{**values, **changes})


class Numbered:
    """Stands in for `PromptDataset`: a prompt says which sample it is and at which position it was used."""

    pad_id = PAD

    def __init__(self, count: int, workers: int = 1) -> None:
        self.count = count
        self.settings = SimpleNamespace(workers=workers)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, use: Use) -> Prompt:
        return prompt([use.position], sample=sample(str(use.index)))


def loader(count: int, workers: int = 1, **options: Any) -> TrainLoader:
    return TrainLoader(Numbered(count, workers), **{"batch_size": 2, "seed": 0, **options})  # type: ignore[arg-type]


def seen(batch: PromptBatch) -> Seen:
    return tuple(item.id for item in batch.samples), tuple(batch.ids_BL[:, 0].tolist()), batch.reuse


def epoch(from_loader: TrainLoader) -> list[Seen]:
    return [seen(batch) for batch in from_loader]


def fields(batch: PromptBatch) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in PromptBatch.__annotations__}


def names(batches: list[Seen]) -> list[str]:
    return [name for ids, _, _ in batches for name in ids]


# ---- epochs


def test_each_epoch_is_a_permutation_of_its_own() -> None:
    train = loader(12)
    assert len(train) == 6
    epochs = [epoch(train) for _ in range(3)]
    for batches in epochs:
        assert len(batches) == 6
        assert sorted(names(batches), key=int) == [str(number) for number in range(12)]
    assert len({tuple(names(batches)) for batches in epochs}) == 3
    positions = [position for batches in epochs for _, used, _ in batches for position in used]
    assert positions == list(range(36))  # no position, and so no random number, comes twice


def test_the_order_is_the_seeds() -> None:
    assert epoch(loader(12)) == epoch(loader(12))
    assert epoch(loader(12)) != epoch(loader(12, seed=1))


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
        positions = [position for share in shares for _, used, _ in share for position in used]
        assert len(set(positions)) == 18
        taken.append(set(positions))
    assert not taken[0] & taken[1]


def test_ranks_together_are_one_process_of_larger_batches() -> None:
    """Sample for sample and position for position, so that a run does not depend on how it is spread."""
    alone = epoch(loader(16, batch_size=4))
    shares = [epoch(loader(16, batch_size=2, rank=rank, world=2)) for rank in range(2)]
    joined = [(a[0] + b[0], a[1] + b[1], 0) for a, b in zip(*shares, strict=True)]
    assert joined == alone


@pytest.mark.parametrize(
    ("repeat", "chunk", "reuses"),
    [
        (1, 1, [0, 0, 0, 0]),
        (2, 1, [0, 1, 0, 1, 0, 1, 0, 1]),
        (2, 2, [0, 0, 1, 1, 0, 0, 1, 1]),
        (3, 2, [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]),
        (2, 4, [0, 0, 0, 0, 1, 1, 1, 1]),
        (1, 3, [0, 0, 0]),  # the fourth batch fills no chunk
    ],
)
def test_groups_of_batches_come_again(repeat: int, chunk: int, reuses: list[int]) -> None:
    train = loader(8, repeat=repeat, chunk=chunk)
    batches = epoch(train)
    assert [reuse for _, _, reuse in batches] == reuses
    assert len(train) == len(batches)
    for start in range(0, len(batches), repeat * chunk):
        rounds = [batches[start + turn * chunk :][:chunk] for turn in range(repeat)]
        for again in rounds:
            assert [found[:2] for found in again] == [found[:2] for found in rounds[0]]
    once = names([found for found in batches if found[2] == 0])
    assert len(set(once)) == len(once) == 2 * len(train) / repeat


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (0, {}),
        (1, {}),
        (7, {"world": 4}),
        (9, {"chunk": 5}),
        (3, {"batch_size": 4}),
    ],
)
def test_too_few_samples_are_refused_with_a_remedy(count: int, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"^{count} samples .*prompts_per_batch.*stage\.batch_size.* more data"):
        loader(count, **options)


@pytest.mark.parametrize("options", [{}, {"world": 4, "rank": 3}, {"chunk": 4}])
def test_just_enough_samples_are_one_round(options: dict[str, int]) -> None:
    assert epoch(loader(8, **options))


# ---- restarts

PLANS: list[dict[str, int]] = [
    {},
    {"repeat": 2, "chunk": 2},
    {"repeat": 3, "chunk": 2, "rank": 1, "world": 2, "batch_size": 1},
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


def fit(folder: Path, ckpt: Path | None, **options: Any) -> list[Seen]:
    """Two epochs under Lightning as `spacer.stages` runs it, a checkpoint after every step."""
    module = Recorder()
    keep = pl.callbacks.ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=options.get("chunk", 1),
        logger=False,
        callbacks=[keep],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, train_dataloaders=loader(9, **options), ckpt_path=ckpt, weights_only=True)
    return module.shown


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("options", [{}, {"repeat": 2, "chunk": 2}], ids=str)
def test_every_epoch_under_lightning_is_a_whole_one(options: dict[str, int], tmp_path: Path) -> None:
    plain = loader(9, **options)
    assert fit(tmp_path, None, **options) == epoch(plain) + epoch(plain)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("options", [{}, {"repeat": 2, "chunk": 2}], ids=str)
def test_lightning_resumes_from_any_checkpoint_with_the_same_batches(options: dict[str, int], tmp_path: Path) -> None:
    shown = fit(tmp_path / "whole", None, **options)
    per_step = options.get("chunk", 1)
    for step in range(1, len(shown) // per_step):
        rest = fit(tmp_path / f"after {step}", tmp_path / "whole" / f"step={step}.ckpt", **options)
        assert rest == shown[step * per_step :]


# ---- held-out questions


def test_ordered_loader_gives_the_asked_samples_in_their_order() -> None:
    ordered = OrderedLoader(Numbered(9), 2, [5, 0, 8, 3, 4])  # type: ignore[arg-type]
    for _ in range(2):
        assert [seen(batch)[0] for batch in ordered] == [("5", "0"), ("8", "3"), ("4",)]
    assert len(ordered) == 3


def test_ordered_loader_of_nothing() -> None:
    assert list(OrderedLoader(Numbered(9), 2, [])) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["train", "ordered"])
def test_no_workers_means_this_process(kind: str) -> None:
    """The configuration allows dataset.workers=0."""
    if kind == "train":
        assert epoch(loader(8, workers=0)) == epoch(loader(8))
    else:
        (batch,) = OrderedLoader(Numbered(9, workers=0), 2, [5, 0])  # type: ignore[arg-type]
        assert seen(batch)[0] == ("5", "0")


# ---- collate


def test_prompts_are_padded_on_the_left() -> None:
    batch = collate([prompt([1, 2, 3]), prompt([4]), prompt([5, 6])], PAD)
    assert batch.ids_BL.tolist() == [[1, 2, 3], [PAD, PAD, 4], [PAD, 5, 6]]
    assert batch.mask_BL.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert batch.positions_3BL[:, 0].tolist() == [[100, 101, 102], [103, 104, 105], [106, 107, 108]]
    assert batch.positions_3BL[:, 1, 2].tolist() == [400, 401, 402]
    assert batch.positions_3BL[:, 2, 1:].tolist() == [[500, 501], [502, 503], [504, 505]]
    assert [frame[0, 0, 0] for frame in batch.frames] == [1, 4, 5]
    assert [item.id for item in batch.samples] == ["1", "4", "5"]


def test_patches_of_images_and_videos_are_kept_apart_in_order() -> None:
    picture = sample("p", data_type="image")
    items = [
        prompt([1]),
        prompt([2], sample=picture, grid_thw=torch.tensor([[1, 4, 4]]), pixels_PD=torch.full((16, 2), 2.0)),
        prompt([3]),
    ]
    batch = collate(items, PAD)
    assert batch.video_grids is not None and batch.video_pixels is not None
    assert batch.image_grids is not None and batch.image_pixels is not None
    assert batch.video_grids.tolist() == [[1, 2, 2], [1, 2, 2]]
    assert batch.video_pixels[:, 0].tolist() == [1.0] * 4 + [3.0] * 4
    assert batch.image_grids.tolist() == [[1, 4, 4]]
    assert batch.image_pixels.shape == (16, 2)
    only_videos = collate([prompt([1])], PAD)
    assert only_videos.image_pixels is None and only_videos.image_grids is None


def test_targets_are_padded_on_the_right() -> None:
    items = [prompt([1], target_ids=torch.tensor([7, PAD, 8])), prompt([2], target_ids=torch.tensor([6]))]
    batch = collate(items, PAD)
    assert batch.targets_BC is not None and batch.target_mask_BC is not None
    assert batch.targets_BC.tolist() == [[7, PAD, 8], [6, PAD, PAD]]
    assert batch.target_mask_BC.tolist() == [[True, True, True], [True, False, False]]
    assert collate([prompt([1])], PAD).targets_BC is None


def test_faults_are_set_beside_the_prompts() -> None:
    fault = Fault("x", "unreadable media", "…")
    batch = collate([prompt([1]), fault, prompt([2])], PAD)
    assert batch.faults == (fault,)
    assert [item.id for item in batch.samples] == ["1", "2"]
    assert batch.ids_BL.shape == (2, 1)


def test_a_batch_of_only_faults_has_no_rows() -> None:
    faults = [Fault("x", "unreadable media", "…"), Fault("y", "prompt too long", "…")]
    batch = collate(faults, PAD)
    assert batch.faults == tuple(faults)
    assert batch.ids_BL.shape[0] == batch.mask_BL.shape[0] == batch.positions_3BL.shape[1] == 0
    assert batch.samples == () and batch.frames == ()
    assert batch.video_pixels is None and batch.image_pixels is None and batch.targets_BC is None
    assert batch.to("cpu").faults == batch.shuffled().faults == tuple(faults)


def test_shuffled_has_the_other_frames_and_the_same_questions() -> None:
    items = [prompt([1, 2], shuffled_pixels_PD=torch.full((4, 2), -1.0)), prompt([3])]
    items[1] = dataclasses.replace(items[1], sample=sample("p", data_type="image"))
    batch = collate(items, PAD)
    mixed = batch.shuffled()
    assert mixed.video_pixels is not None and batch.video_pixels is not None
    assert mixed.video_pixels.tolist() == [[-1.0, -1.0]] * 4
    assert batch.video_pixels.tolist() == [[1.0, 1.0]] * 4  # the batch itself stays
    for name, value in fields(batch).items():
        assert (fields(mixed)[name] is value) == (name != "video_pixels")


def test_moving_a_batch_moves_every_tensor() -> None:
    item = prompt([1], target_ids=torch.tensor([7]), shuffled_pixels_PD=torch.zeros(4, 2))
    batch = collate([item, prompt([2], sample=sample("p", data_type="image"), target_ids=torch.tensor([8]))], PAD)
    moved = batch.to("meta")
    tensors = {name for name, value in fields(batch).items() if isinstance(value, Tensor)}
    assert len(tensors) == 10
    assert all(fields(moved)[name].device.type == "meta" for name in tensors)
    assert moved.samples == batch.samples


# ---- what is shown in supervised training


def shown(target: ShownTarget, item: Sample, count: int = 2_000) -> list[str]:
    return [target(item, position, np.random.default_rng([0, 1, position])) for position in range(count)]


MANY = tuple(
    [sample(str(number), solution=str(number)) for number in range(10)]
    + [sample("size", solution="999", question_type="object_size_estimation")]
    + [sample("mc", problem_type="multiple choice", options=("A. x", "B. y", "C. z"), solution="B", question_type="mc")]
)


def test_the_worked_completion_has_map_reasoning_and_solution() -> None:
    item = sample(reasoning="One and two.", true_map={"bed": [[1, 2], [3, 4]], "sofa": [[0, 9]]})
    assert worked_completion(item) == (
        '<think><map>{"bed":[[1,2],[3,4]],"sofa":[[0,9]]}</map>One and two.</think><answer>3</answer>'
    )
    assert worked_completion(sample()) == "<think></think><answer>3</answer>"
    assert map_literal({}) == "{}"


def test_until_after_the_worked_completion_is_shown() -> None:
    answers = shown(ShownTarget(MANY, share=1.0, after=1_500), MANY[0])
    assert set(answers[:1_500]) == {worked_completion(MANY[0])}
    assert worked_completion(MANY[0]) not in answers[1_500:]


def test_no_share_no_guess() -> None:
    assert set(shown(ShownTarget(MANY, share=0.0, after=0), MANY[0])) == {worked_completion(MANY[0])}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_share_of_guesses_is_about_what_was_asked(share: float) -> None:
    answers = shown(ShownTarget(MANY, share=share, after=0), MANY[0])
    guesses = [answer for answer in answers if answer != worked_completion(MANY[0])]
    assert abs(len(guesses) / len(answers) - share) < 0.04  # over three standard deviations


def test_a_guess_is_another_answer_of_the_same_type() -> None:
    guesses = Counter(shown(ShownTarget(MANY, share=1.0, after=0), MANY[0]))
    assert set(guesses) == {f"<think>I guess.</think><answer>{number}</answer>" for number in range(10)}
    assert guesses.most_common(1)[0][1] < 2 * 2_000 / 10  # right by chance only


def test_a_guess_at_a_choice_is_one_of_its_letters() -> None:
    guesses = Counter(shown(ShownTarget(MANY, share=1.0, after=0), MANY[-1]))
    assert set(guesses) == {f"<think>I guess.</think><answer>{letter}</answer>" for letter in "ABC"}
    assert min(guesses.values()) > 0.25 * 2_000


def test_a_guess_at_a_choice_of_ten() -> None:
    item = dataclasses.replace(MANY[-1], options=tuple(f"{letter}. x" for letter in "ABCDEFGHIJ"))
    guesses = set(shown(ShownTarget((item,), share=1.0, after=0), item))
    assert guesses == {f"<think>I guess.</think><answer>{letter}</answer>" for letter in "ABCDEFGHIJ"}


# ---- the real data set: decoded and processed in a worker


def real(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, **options: Any
) -> PromptDataset:
    return PromptDataset(samples, processor, settings, tokens_per_second=2.0, **options)


def take(dataset: PromptDataset, uses: list[tuple[int, int]], size: int = 4) -> list[PromptBatch]:
    """The batches of (position, index) pairs, made by a worker."""
    from spacer.data.loading import _loader

    every = [Use(position, index) for position, index in uses]
    return list(_loader(dataset, [every[i : i + size] for i in range(0, len(every), size)]))


def test_real_batches_fit_together(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    train = TrainLoader(real(samples, processor, settings), batch_size=4, seed=0)
    batches = list(train)
    assert sorted(item.id for batch in batches for item in batch.samples) == sorted(item.id for item in samples)
    video_pad = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    for batch in batches:
        assert not batch.faults and batch.video_grids is not None and batch.video_pixels is not None
        assert batch.video_grids.tolist() == [[2, 4, 4]] * 4  # 4 frames in pairs, 56 x 56 pixels in patches of 14
        assert batch.video_pixels.shape[0] == 4 * 2 * 4 * 4
        assert (batch.ids_BL == video_pad).sum(1).tolist() == [8] * 4
        for row, item in enumerate(batch.samples):
            kept = batch.ids_BL[row][batch.mask_BL[row].bool()]
            text = processor.tokenizer.decode(kept)
            assert prompt_text(item, settings.prompts) in text
            assert text.endswith("<|im_start|>assistant\n")
            positions = batch.positions_3BL[:, row][:, batch.mask_BL[row].bool()]
            assert positions[:, 0].tolist() == [0, 0, 0]
            times = positions[0][kept == video_pad].unique()
            # 4 s in 4 frames: a pair stands for 2 s, at 2 positions a second
            assert (times - times[0]).tolist() == [0, 4]
            assert (positions[:, -1] - positions[:, -2]).tolist() == [1, 1, 1]
        assert batch.frames[0].shape == (96, 96, 3)


def test_what_cannot_be_read_is_a_fault_and_never_another_sample(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(samples[0].path.read_bytes()[:700])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    bad = [
        dataclasses.replace(samples[0], id="broken video", path=tmp_path / "broken.mp4"),
        dataclasses.replace(samples[0], id="gone", path=tmp_path / "gone.mp4"),
        dataclasses.replace(samples[0], id="broken image", path=tmp_path / "broken.png", data_type="image"),
        dataclasses.replace(samples[0], id="too long", problem="chair " * 2_000, path=samples[0].path),
    ]
    some = [samples[0], bad[0], samples[1], bad[1], *bad]
    short = dataclasses.replace(settings, max_prompt_length=1_000)
    first, second = take(real(some, processor, short), [(n, n) for n in range(8)])
    assert [item.id for item in first.samples] == [samples[0].id, samples[1].id]
    assert [(fault.where, fault.kind) for fault in first.faults] == [
        ("broken video", "unreadable media"),
        ("gone", "unreadable media"),
    ]
    assert first.ids_BL.shape[0] == 2 and first.video_grids is not None and len(first.video_grids) == 2
    assert str(tmp_path / "broken.mp4") in first.faults[0].detail
    assert second.samples == () and second.ids_BL.shape[0] == 0
    assert [fault.where for fault in second.faults] == ["broken video", "gone", "broken image", "too long"]
    assert second.faults[3].kind == "prompt too long" and "max_prompt_length=1000" in second.faults[3].detail


def test_an_image_that_the_processor_refuses_is_a_fault(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    """Qwen takes no picture more than 200 times as wide as high; one such file must not end a run of days."""
    Image.new("RGB", (900, 3)).save(tmp_path / "thin.png")
    item = dataclasses.replace(samples[0], data_type="image", path=tmp_path / "thin.png")
    assert isinstance(prepare(item, processor, settings, tokens_per_second=2.0), Fault)


@pytest.mark.parametrize(
    "text", ["What is <|video_pad|>?", "<|image_pad|>", "<|vision_start|><|video_pad|><|vision_end|>"]
)
def test_a_question_with_the_processors_own_marks_is_a_fault_or_plain_text(
    text: str, samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    item = dataclasses.replace(samples[0], problem=text, data_type="image", path=tmp_path / "x.png", true_map=None)
    assert isinstance(prepare(item, processor, settings, tokens_per_second=2.0), Prompt | Fault)


def test_an_image_is_processed_in_place_of_a_video(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (112, 56), (200, 10, 10)).save(tmp_path / "x.png")
    item = dataclasses.replace(samples[0], data_type="image", path=tmp_path / "x.png", true_map=None)
    made = prepare(item, processor, settings, tokens_per_second=2.0, target="<answer>3</answer>")
    assert isinstance(made, Prompt)
    assert made.grid_thw.tolist() == [[1, 4, 8]]
    assert (made.ids_L == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum() == 8
    assert made.frame_HWC.shape == (56, 112, 3)
    assert made.target_ids is not None
    assert processor.tokenizer.decode(made.target_ids) == "<answer>3</answer><|im_end|>"


def frames_of(pixels: Tensor, grid: list[int]) -> list[bytes]:
    """The single frames in the patches of one video; Qwen joins two frames into a patch of (channel, 2, 14, 14)."""
    t, h, w = grid
    pairs = pixels.reshape(t, h * w, 3, 2, 14, 14)
    return [pairs[step, :, :, half].contiguous().numpy().tobytes() for step in range(t) for half in range(2)]


def test_shuffled_frames_are_the_same_frames_in_another_order(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    dataset = real(samples, processor, settings, shuffle_frames=True)
    (batch,) = take(dataset, [(position, position % 4) for position in range(8)], size=8)
    (again,) = take(dataset, [(position, position % 4) for position in range(8)], size=8)
    assert batch.video_pixels is not None and batch.shuffled_video_pixels is not None
    assert again.shuffled_video_pixels is not None and batch.video_grids is not None
    assert torch.equal(batch.shuffled_video_pixels, again.shuffled_video_pixels)  # the position's own numbers
    orders = set()
    for row, grid in enumerate(batch.video_grids.tolist()):
        size = grid[0] * grid[1] * grid[2]
        ordered = frames_of(batch.video_pixels[row * size : (row + 1) * size], grid)
        mixed = frames_of(batch.shuffled_video_pixels[row * size : (row + 1) * size], grid)
        assert sorted(ordered) == sorted(mixed)
        orders.add(tuple(mixed.index(frame) for frame in ordered))
    assert len(orders) > 2
    mixed_batch = batch.shuffled()
    assert torch.equal(mixed_batch.positions_3BL, batch.positions_3BL)
    assert mixed_batch.video_pixels is batch.shuffled_video_pixels


def test_targets_are_the_positions_own_and_end_the_turn(
    samples: list[Sample], processor: Qwen2_5_VLProcessor, settings: RoomsSettings
) -> None:
    target = ShownTarget(tuple(samples), share=0.5, after=4)
    dataset = real(samples, processor, settings, target=target)
    uses = [(position, position % len(samples)) for position in range(16)]
    batches = take(dataset, uses)
    # the same uses in other batches: what is shown belongs to the position and to nothing else
    backward = take(dataset, uses[::-1], size=2)

    def texts(found: list[PromptBatch]) -> list[str]:
        out = []
        for batch in found:
            assert batch.targets_BC is not None and batch.target_mask_BC is not None
            for row, mask in zip(batch.targets_BC, batch.target_mask_BC, strict=True):
                out.append(processor.tokenizer.decode(row[mask]))
        return out

    read = texts(batches)
    assert texts(backward) == read[::-1]
    assert all(text.endswith("</answer><|im_end|>") for text in read)
    for position, text in enumerate(read):
        worked = worked_completion(samples[position % len(samples)]) + "<|im_end|>"
        assert text == worked or (position >= 4 and "I guess." in text)
    assert 2 <= sum("I guess." in text for text in read) <= 10


# ---- prompts


def test_prompts_say_what_the_sample_needs(settings: RoomsSettings) -> None:
    choice = sample(problem="Where?", problem_type="multiple choice", options=("A. here", "B. there"))
    text = prompt_text(choice, settings.prompts)
    assert "Where?\nA. here\nB. there\n" in text
    assert settings.prompts["multiple choice"] in text and "<map>" not in text
    mapped = prompt_text(dataclasses.replace(choice, true_map={"sofa": [[1, 2]], "bed": []}), settings.prompts)
    assert "bed, sofa" in mapped and "<map>" in mapped
    assert "[1" not in mapped.replace("[[x,y]]", "")  # where things stand is not given away


@pytest.mark.parametrize("problem_type", ["multiple choice", "numerical", "OCR", "free-form", "regression"])
def test_every_problem_type_has_its_line(problem_type: str, settings: RoomsSettings) -> None:
    assert settings.prompts[problem_type] in prompt_text(sample(problem_type=problem_type), settings.prompts)


def test_dollars_and_braces_of_a_question_stay(settings: RoomsSettings) -> None:
    text = prompt_text(sample(problem="Is it $5, ${x} or {y}?"), settings.prompts)
    assert text.startswith("Is it $5, ${x} or {y}?")


def test_a_template_that_names_something_else_is_an_error() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        prompt_text(sample(), {"plain": "$nonsense", "numerical": ""})
