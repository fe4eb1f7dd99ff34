"""What a run needs, by hand: weights of published models, memory by part, pairs of tokens, limits, remedies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from spacer.config.choices import Checkpointing
from spacer.config.load import load_settings
from spacer.config.settings import PlanStage, Settings
from spacer.errors import UserError
from spacer.models.load import load_policy
from spacer.planning.duration import seconds_of_step
from spacer.planning.flops import plain_flops, tree_flops
from spacer.planning.limits import GIB, Case, limits_of, remedies_of
from spacer.planning.memory import kv_cache, memory_of
from spacer.planning.setup import Setup, setup_of, work_of
from spacer.planning.sizes import Sizes, read_sizes
from spacer.planning.work import Picture, Work, measured
from spacer.stages.plan import plan_of, questions_of
from spacer.tree.packing import pack
from tests.pages import page
from tests.unit.configs import only_problem

ROOT = Path(__file__).resolve().parents[2]
# of the safetensors files on the hub
PUBLISHED = {
    "qwen3b": 3_754_622_976,
    "qwen7b": 8_292_166_656,
    "qwen32b": 33_452_718_336,
    "qwen72b": 73_410_777_344,
    "qwen3vl_4b": 4_437_815_808,
    "qwen3vl_8b": 8_767_123_696,
}


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings of a run of stage=plan with the given overrides."""
    monkeypatch.setenv("SPACER_ROOT", str(ROOT))

    def load(*overrides: str) -> Settings:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return load_settings(compose("config", ["stage=plan", "output_dir=unused", *overrides]))

    return load


@pytest.fixture
def seven(composed: Any) -> tuple[Sizes, Work, Setup]:
    """The 7B on eight GPUs, everything on each, at 128 tokens a pair of frames."""
    pixels = ("dataset.video.max_pixels=100352", "dataset.video.min_pixels=null")
    settings = composed(
        "model=qwen7b", "dataset=spacer_151k", "cluster.devices=8", "trainer.precision=bf16-mixed", *pixels
    )
    sizes = read_sizes(settings.model)
    return sizes, work_of(settings, sizes), setup_of(settings)


@pytest.mark.parametrize("model", PUBLISHED)
def test_an_architecture_has_as_many_weights_as_are_published(model: str, composed: Any) -> None:
    settings = composed(f"model={model}")
    assert settings.model.architecture.parameters == PUBLISHED[model]
    assert read_sizes(settings.model).total == PUBLISHED[model]


def test_every_architecture_says_where_it_is_from() -> None:
    files = sorted((ROOT / "conf/model/architecture").glob("*.yaml"))
    facts = [yaml.safe_load(file.read_text()) for file in files]
    assert sorted(fact["parameters"] for fact in facts) == sorted(PUBLISHED.values())
    assert all(fact["source"].startswith("https://huggingface.co/Qwen/") for fact in facts)


def test_a_folder_is_read_and_one_that_is_not_there_is_refused(composed: Any) -> None:
    model = composed().model
    assert read_sizes(model).total == 3_248_064
    assert read_sizes(replace(model, fresh=True, name_or_path="/nowhere/untrained")).total == 3_248_064
    with pytest.raises(UserError, match="conf/model/architecture"):
        read_sizes(replace(model, name_or_path="nobody/nothing"))


def test_the_7b_by_hand(seven: tuple[Sizes, Work, Setup]) -> None:
    sizes, work, setup = seven
    # 16 frames in pairs, of 128 * 28 * 28 pixels: 8 * 11 * 11 tokens and 256 of text; eight completions of 1,024
    assert (work.prompt_tokens, work.completions, [row.tokens for row in work.rows]) == (1224, 8, [1224 + 8 * 1023])
    parts = memory_of(sizes, work, setup).by_part
    weights = 4 * PUBLISHED["qwen7b"]
    assert parts["weights"] == parts["gradients"] == parts["reference"] == weights
    assert parts["optimizer"] == 2 * weights
    # 28 layers, keys and values of 4 heads of 128 numbers of two bytes; completions in stores of 1,024
    assert parts["kv_cache"] == (1224 + 8 * 1024) * 28 * 2 * 4 * 128 * 2


def test_strategies_share_what_they_say(seven: tuple[Sizes, Work, Setup]) -> None:
    sizes, work, setup = seven
    whole, cut = (memory_of(sizes, work, replace(setup, sharded=sharded)) for sharded in (False, True))
    for part in ("weights", "gradients", "optimizer", "reference"):
        assert cut.by_part[part] == pytest.approx(whole.by_part[part] / 8, abs=8)
    # gathered in the type that autocast computes in, so that no product makes a copy
    assert cut.parts["weights_gathered"]["rollout"] == whole.by_part["weights"] / 2
    assert cut.by_part["weights_in_16_bits"] == whole.by_part["weights_gathered"] == 0
    for part in ("kv_cache", "logits"):
        assert cut.by_part[part] == whole.by_part[part]
    assert cut.by_part["activations"] < whole.by_part["activations"]  # the stream between layers is narrower too
    wide = memory_of(sizes, work, replace(setup, sharded=True, product_bytes=4, autocast=False))
    assert wide.parts["weights_gathered"]["rollout"] == whole.by_part["weights"]


def test_what_is_not_trained_or_not_wanted_takes_no_memory(seven: tuple[Sizes, Work, Setup]) -> None:
    sizes, work, setup = seven

    def parts(**changes: Any) -> dict[str, int]:
        return memory_of(sizes, work, replace(setup, **changes)).by_part

    whole = parts()
    assert parts(reference=False)["reference"] == 0
    assert parts(eight_bit=True)["optimizer"] == pytest.approx(whole["optimizer"] / 4, rel=0.02)
    assert parts(vision_trained=False)["gradients"] == whole["gradients"] - 4 * sizes.parameters["vision"]
    adapted = parts(rank=64, vision_trained=False, weight_bytes=2, adapter_bytes=4)
    assert adapted["reference"] == 0 and adapted["gradients"] == 4 * 64 * sizes.text.adapted
    assert parts(checkpointing=Checkpointing.none)["activations"] > 8 * whole["activations"]
    assert parts()["weights_in_16_bits"] > 0 and parts(product_bytes=4, autocast=False)["weights_in_16_bits"] == 0


def test_adapters_are_as_many_as_peft_makes(composed: Any) -> None:
    settings = composed("model.lora={rank: 3, alpha: 6, dropout: 0.0}")
    trained = sum(p.numel() for p in load_policy(settings.model).parameters() if p.requires_grad)
    assert setup_of(settings).trainable(read_sizes(settings.model)) == trained


@pytest.mark.parametrize(("questions", "budget"), [(1, 10_000), (3, 10_000), (3, 60)])
def test_pairs_are_those_of_the_mask(questions: int, budget: int) -> None:
    work = Work((Picture(2, 2, 3), Picture(1, 2, 2)), questions, 5, 4, 7, budget)
    rows = pack(work._forest, None, budget)
    assert [row.pairs for row in measured(rows)] == [int(row.mask().sum()) for row in rows]
    assert sum(row.predicted for row in work.rows) == work.completions * 7
    if budget == 10_000:
        (row,) = work.rows
        assert row.tokens == work.prompt_tokens + work.completions * 6


def test_sharing_saves_what_is_shared(seven: tuple[Sizes, Work, Setup]) -> None:
    sizes, work, setup = seven
    tree, plain = tree_flops(sizes, work, setup), plain_flops(sizes, work, setup)
    assert plain["rollout_prefill"] == pytest.approx(8 * tree["rollout_prefill"], rel=1e-6)
    assert plain["rollout_decode"] == tree["rollout_decode"]
    assert plain["vision_backward"] == 8 * tree["vision_backward"]
    assert plain["vision"] == 8 * 3 / 2 * tree["vision"]  # to sample, to train and for the reference; ours to train too
    # two operations a weight and token, attention apart
    assert tree["rollout_prefill"] == pytest.approx(2 * sizes.text.matrices * 1224, rel=0.02)
    alone = replace(work, group=1)
    same, beside = tree_flops(sizes, alone, setup), plain_flops(sizes, alone, setup)
    assert {part: value for part, value in same.items() if part != "vision"} == {
        part: value for part, value in beside.items() if part != "vision"
    }


def test_shuffled_frames_are_encoded_and_answered_once_more(seven: tuple[Sizes, Work, Setup]) -> None:
    sizes, work, setup = seven
    once, twice = tree_flops(sizes, work, setup), tree_flops(sizes, work, replace(setup, shuffled=True))
    assert twice["vision"] == 1.5 * once["vision"]
    assert twice["rollout_prefill"] == 2 * once["rollout_prefill"]
    assert twice["rollout_decode"] == 1.5 * once["rollout_decode"]


def test_a_store_of_keys_doubles(seven: tuple[Sizes, Work, Setup]) -> None:
    sizes, work, setup = seven
    token = kv_cache(sizes, replace(work, length=1), setup) // work.prompt_tokens
    rooms = {2: 128, 129: 128, 130: 256, 513: 512, 514: 1024}
    for length, room in rooms.items():
        held = kv_cache(sizes, replace(work, length=length), setup) // token - work.prompt_tokens
        assert held == work.completions * room, length


def test_the_page_compares_by_the_plans_arithmetic(composed: Any) -> None:
    """The seconds of docs/planning.md are those of the formulas beside them: others' from the plan of plain rows."""
    recipe = ("experiments=spacer_7b", "dataset.root=unused", "cluster.devices=8", "cluster.strategy=fsdp")
    parts = ("objective.rollout_parts=8", "objective.clip_low=0.2", "objective.clip_high=0.2")
    again = ("policy_forward", "policy_again", "policy_backward")
    columns: list[list[float]] = []
    for prompts, more in ((1, ()), (8, parts)):
        for loop in ("eager", "graph"):
            words = (*recipe, *more, f"objective.prompts_per_rollout={prompts}", f"model.decoding={loop}")
            settings = composed(*words)
            sizes = read_sizes(settings.model)
            work, setup = work_of(settings, sizes), setup_of(settings)
            assert isinstance(settings.stage, PlanStage)
            tree, plain = tree_flops(sizes, work, setup), plain_flops(sizes, work, setup)
            decode = seconds_of_step(tree, sizes, work, setup, settings.stage.plan)["decode"]
            reading = 1023 * (14.14e9 / prompts + 57_344 * (1312 + 4096)) / 1.34e12
            own = {part: value / 395.6e12 for part, value in tree.items()}
            policy, back = sum(own[part] for part in again), own["vision_again"] + own["vision_backward"]
            before = [own["rollout_prefill"], own["vision"], 0, own["reference"]]
            columns.append([prompts, reading, decode - reading, *before, policy, back])
        video = tree["vision"] / (3 if more else 2)  # sampling, reference, and again where a rollout has parts
        for tensor_parallel, logits in ((1, 0.0), (2, 2 * 152_064 * 3584 * 8 * 1312 / 395.6e12)):
            reading = 1023 * (14.14e9 / prompts / tensor_parallel + 57_344 * (8 * 1312 + 4096)) / 1.34e12
            passed = plain["reference"] / 395.6e12 + logits
            policy = sum(plain[part] for part in again) / 395.6e12 + 3 * logits
            back = (plain["vision_again"] + plain["vision_backward"]) / 395.6e12
            before = [own["rollout_prefill"], 25 * video / 395.6e12, passed, passed]
            columns.append([prompts, reading, 0, *before, policy, back])
    _, _, section = page("planning").partition("## Compared with")
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert rows[0] == 2 * ["Spacer", "Spacer, graph", "TRL", "EasyR1"]
    told = [[float(cell) for cell in row[1:]] for row in rows[2:]]
    for column, cells in zip(columns, zip(*told, strict=True), strict=True):
        assert cells[:-1] == pytest.approx(column, abs=0.006)
        assert cells[-1] == pytest.approx(sum(column[1:]), abs=0.06)


def test_limits_are_the_last_that_fit(seven: tuple[Sizes, Work, Setup]) -> None:
    sizes, work, setup = seven
    case = Case(sizes, work, replace(setup, sharded=True), 40 * GIB)
    limits = limits_of(case)
    assert case.fits and limits.group > 8 and limits.questions > 1
    assert replace(case, work=replace(work, group=limits.group)).fits
    assert not replace(case, work=replace(work, group=limits.group + 1)).fits
    pictures = tuple(replace(picture, frames=limits.frame_pairs + 1) for picture in work.pictures)
    assert not replace(case, work=replace(work, pictures=pictures)).fits
    assert limits.prompt_tokens == limits.frame_pairs * 121 + 256
    nothing = limits_of(replace(case, room=GIB))
    assert (nothing.prompt_tokens, nothing.group, nothing.questions) == (0, 0, 0)


def test_remedies_stand_by_their_effect_and_come_together_where_none_is_enough(
    seven: tuple[Sizes, Work, Setup],
) -> None:
    sizes, work, setup = seven
    remedies = remedies_of(Case(sizes, work, setup, 76 * GIB))
    assert [r.peak for r in remedies] == sorted(r.peak for r in remedies)
    changes = " ".join(r.change for r in remedies)
    for words in ("cluster.strategy=fsdp", "model.lora=", "adamw_8bit", "objective.beta=0", "model.freeze_vision=true"):
        assert words in changes
    tight = remedies_of(Case(sizes, work, replace(setup, sharded=True), 12 * GIB))
    assert all(remedy.peak > 12 * GIB for remedy in tight[:-1])
    assert len(tight[-1].change.split()) > len(tight[0].change.split()) and tight[-1].peak < tight[0].peak


def test_the_longest_prompt_is_one_that_the_data_allow(composed: Any) -> None:
    def prompt(*overrides: str) -> int:
        pixels = ("dataset.video.max_pixels=100352", "dataset.video.min_pixels=null")
        settings = composed("model=qwen7b", "dataset=spacer_151k", *pixels, *overrides)
        return work_of(settings, read_sizes(settings.model)).prompt_tokens

    assert prompt() == 8 * 121 + 256
    assert prompt("dataset.max_prompt_length=900") == 5 * 121 + 256
    assert prompt("stage.plan.prompt_tokens=2000") == 14 * 121 + 256
    assert prompt("dataset.video.max_side=56") == 8 * 4 + 256


def test_questions_are_counted_where_that_can_be(composed: Any) -> None:
    assert questions_of(composed("dataset.train_scenes=7", "dataset.questions_per_scene=3")) == 21
    missing = composed("dataset=spacer_151k")
    assert questions_of(missing) is None
    assert isinstance(missing.stage, PlanStage)
    assert plan_of(missing, replace(missing.stage.plan, questions=1000)).questions == 1000


def test_what_cannot_be_planned_is_refused() -> None:
    assert "stage.plan: is null" in only_problem(stage="plan", stage__plan=None)
    assert "set cluster.devices=8" in only_problem(stage="plan", cluster__devices="auto")
    assert "leaves nothing" in only_problem(stage="plan", stage__plan={"gpu_memory_gib": 4.0, "reserve_gib": 4.0})
