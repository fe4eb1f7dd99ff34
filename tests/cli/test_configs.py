"""Every shipped YAML file composes into valid settings, the published values are there, and the command line answers.

The files are found in their folders, so that a new one is tested by itself.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

import spacer
from spacer.config.load import load_settings
from spacer.config.settings import JsonlSettings, LengthBonusSettings, Settings, TemporalBonusSettings

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
PLACED = {"benchmark/protocol": "@benchmark"}  # a group whose values stand beside those of the group that it is in
# a variant of a protocol for a benchmark, such as protocol/official/mindcube.yaml, is an option of its folder's folder
VARIANTS = sorted(CONF.glob("benchmark/protocol/*/*.yaml"))
GROUPS = [(str(path.parent.relative_to(CONF)), path.stem) for path in CONF.glob("*/**/*.yaml") if path not in VARIANTS]
GROUPS += [("benchmark/protocol", f"{path.parent.name}/{path.stem}") for path in VARIANTS]
OPTIONS = [f"{group}{PLACED.get(group, '')}={name}" for group, name in GROUPS]
EXPERIMENTS = [f"experiments={path.stem}" for path in (ROOT / "experiments").glob("*.yaml")]
SWEEPS = [f"sweeps={path.stem}" for path in (ROOT / "sweeps").glob("*.yaml")]
ASKED = ("stage=evaluate", f"benchmark.root={CONF}")
# what an option takes beside itself: what a user of it has to add
COMPANIONS = {
    "stage=prepare": ("dataset=spacer_151k",),
    "stage=vision": ("dataset=stills", "model.freeze_vision=false"),
    "dataset=stills": ("stage=sft",),
    "stage=curate": ("dataset=scans",),
    "dataset=layouts": ("stage=sft",),
    "dataset=practice": ("stage=sft",),
    "stage=score": ("benchmark=vsi_bench", f"benchmark.root={CONF}", f"predictions={CONF / 'config.yaml'}"),
    "benchmark/prompts=thinking": ("benchmark=sti_bench", *ASKED),
    "benchmark/prompts=direct": ("benchmark=vsi_bench", *ASKED),
    **{
        f"benchmark/protocol@benchmark={name}": ("benchmark=sti_bench", *ASKED)
        for group, name in GROUPS
        if group == "benchmark/protocol"
    },
    **{f"benchmark={path.stem}": ASKED for path in CONF.glob("benchmark/*.yaml")},
    "model=endpoint": ("benchmark=blink", *ASKED, "model.base_url=http://localhost:8000/v1", "model.name=served"),
    "benchmark=all": ("stage=evaluate", f"benchmarks.vsi_bench.root={CONF}"),
    "benchmark=easi": ("stage=evaluate", f"benchmarks.blink.root={CONF}"),
    "stage=compare": ("runs=[a,b]",),
    "stage=report": ("runs=[a]",),
    **{f"model/architecture={path.stem}": ("model=qwen7b",) for path in CONF.glob("model/architecture/*.yaml")},
    "stage=export": (f"ckpt_path={Path(__file__)}",),  # any file
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Settings]]:
    """The settings of a run with the given overrides."""

    def load(*overrides: str) -> Settings:
        cfg = compose("config", [f"output_dir={tmp_path}", *overrides])
        for run in cfg.runs:
            (tmp_path / run).mkdir(exist_ok=True)
            (tmp_path / run / "per_question.jsonl").touch()
        cfg.runs = [str(tmp_path / run) for run in cfg.runs]
        for part in (cfg.dataset, *cfg.dataset.get("parts", {}).values()):
            if OmegaConf.is_missing(part, "root"):  # a data set of one's own: here are the files that it names
                part.root = str(tmp_path)
                annotations = str(part.get("meta_info", "")).replace("*", "made")
                for name in filter(None, (part.index, part.maps, annotations)):
                    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / name).touch()
        return load_settings(cfg)

    monkeypatch.setenv("SPACER_ROOT", str(ROOT))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield load


# what is shipped


def test_the_files_are_found():
    assert {"model=tiny", "dataset=jsonl", "dataset/prompts=default", "stage=sft"} <= set(OPTIONS)
    assert "experiments=spacer_7b" in EXPERIMENTS
    assert {f"sweeps={name}" for name in ("reward_ablation", "objectives", "group_size", "learning_rate")} <= set(
        SWEEPS
    )


@pytest.mark.parametrize("option", sorted(OPTIONS + EXPERIMENTS))
def test_every_option_and_experiment_gives_valid_settings(option, settings, monkeypatch):
    monkeypatch.setattr("spacer.config.rules.packages.find_spec", lambda name: name)  # what an extra installs is there
    settings(option, *COMPANIONS.get(option, ()))


def values_of(axis: Override) -> list[Any]:
    """What a sweep tries of an axis, of an interval its ends."""
    if not axis.is_sweep_override():
        return [axis.get_value_element_as_str()]
    if axis.is_interval_sweep():
        return [axis.value().start, axis.value().end]
    return list(axis.sweep_string_iterator())


@pytest.mark.parametrize("sweep", sorted(SWEEPS))
def test_every_combination_of_a_sweep_gives_valid_settings(sweep, settings):
    params = compose("config", [sweep], return_hydra_config=True).hydra.sweeper.params
    assert params
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    choices = [[f"{axis.get_key_element()}={value}" for value in values_of(axis)] for axis in parsed]
    assert any(len(values) > 1 for values in choices)
    for combination in itertools.product(*choices):
        settings(sweep, *combination)


PUBLISHED: dict[str, Any] = {
    "model.name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct",
    "model.lora": None,
    "model.fresh": False,
    "model.freeze_vision": False,
    "dataset.video.sampling": "nearest",
    "dataset.video.max_frames": 16,
    "dataset.video.min_frames": 4,
    "dataset.video.fps": 2.0,
    "dataset.video.min_pixels": 128 * 28 * 28,
    "dataset.video.max_pixels": int(1.05 * 128 * 28 * 28),
    "dataset.image_max_pixels": 401_408,
    "dataset.max_prompt_length": 16_384,
    "reward.format": True,
    "reward.strict": True,
    "reward.map": True,
    "reward.zero_map_cancels_answer": True,
    "reward.map_min_answer": 0.5,
    "reward.length": LengthBonusSettings(bonus=0.2, min_tokens=320, max_tokens=512, min_answer=0.1),
    "reward.temporal": None,
    "objective.group_size": 8,
    "objective.prompts_per_rollout": 1,
    "objective.temperature": 1.0,
    "objective.top_p": 0.95,
    "objective.max_completion_length": 1024,
    "objective.updates_per_rollout": 1,
    "objective.beta": 0.04,
    "objective.kl_clamp": 10.0,
    "objective.advantage": "std",
    "objective.advantage_eps": 1e-4,
    "objective.loss_mean": "completion",
    "objective.ratio": "token",
    "objective.clip_low": None,
    "objective.clip_high": None,
    "objective.drop_zero_variance": False,
    "objective.mask_truncated": False,
    "stage.name": "train",
    "stage.optimizer.learning_rate": 1e-6,
    "stage.optimizer.weight_decay": 0.01,
    "stage.optimizer.schedule": "cosine",
    "stage.optimizer.warmup_steps": 0,
    "trainer.max_epochs": 1,
    "trainer.max_steps": -1,
    "trainer.max_time": None,
    "trainer.precision": "bf16-mixed",
    "trainer.gradient_clip_val": 5.0,
    "trainer.accumulate_grad_batches": 1,
}


def test_spacer_7b_has_every_published_value(settings):
    made = settings("experiments=spacer_7b")
    assert isinstance(made.dataset, JsonlSettings)
    assert {path: reduce(getattr, path.split("."), made) for path in PUBLISHED} == PUBLISHED


def test_spacer_7b_asks_for_what_its_length_bonus_pays_for(settings):
    for experiment in ("spacer_7b", "spacer_7b_temporal", "spacer_sft_7b"):
        prompts = settings(f"experiments={experiment}").dataset.prompts
        assert all("about 250 to 350 words" in prompts[name] for name in ("map", "plain"))


def test_spacer_sft_7b_has_the_released_scripts_values(settings):
    made = settings("experiments=spacer_sft_7b")
    optimizer = made.stage.optimizer
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.weight_decay) == (1e-6, "linear", 0.0)
    assert (made.trainer.accumulate_grad_batches, made.trainer.max_epochs) == (2, 1)


@pytest.mark.parametrize("base", ["experiments=spacer_7b", "model=qwen7b"])
def test_the_temporal_reward_adds_the_released_bonus_to_the_others(base, settings):
    reward = settings(base, "reward=sg_rlvr_temporal").reward
    assert reward.temporal == TemporalBonusSettings(bonus=0.3, margin=0.8, min_answer=0.1)
    assert reward.length == PUBLISHED["reward.length"]
    assert (reward.format, reward.map, reward.zero_map_cancels_answer) == (True, True, True)


# the command line


IMPORTED = 97  # the exit status when something heavy is imported


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs run.py from another folder, without a network; it ends where torch or its like is imported."""
    stubs, elsewhere = tmp_path / "stubs", tmp_path / "elsewhere"
    stubs.mkdir()
    elsewhere.mkdir()
    for name in ("torch", "transformers", "pytorch_lightning"):
        (stubs / f"{name}.py").write_text(f"import os; os.write(2, b'{name} was imported'); os._exit({IMPORTED})")
    (stubs / "sitecustomize.py").write_text(
        "import socket\n"
        "def closed(*_, **__): raise socket.gaierror(-3, 'Temporary failure in name resolution')\n"
        "socket.getaddrinfo = closed\n"
    )
    ours = ("HF_", "HUGGING", "HYDRA_", "PYTHON", "SPACER_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours) and "proxy" not in key.lower()}
    env |= {"PYTHONPATH": str(stubs), "HF_HOME": str(tmp_path / "hf"), "SPACER_CACHE": str(tmp_path / "cache")}

    def go(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "run.py"), *arguments]
        return subprocess.run(command, cwd=elsewhere, env=env | more, capture_output=True, text=True, timeout=120)

    return go


def test_a_sound_configuration_goes_on_to_torch(run):
    done = run("model=tiny_fresh")
    assert done.returncode == IMPORTED, done.stderr


def test_a_sweep_is_expanded_and_begun(run):
    done = run("-m", "sweeps=reward_ablation", "model=tiny_fresh", "reward=accuracy,grpo", "seed=7")
    assert "2 jobs in " in done.stdout and "outputs/sweeps/reward_ablation,model=tiny_fresh,seed=7: " in done.stdout
    for job in ("reward=accuracy", "reward=grpo"):
        assert f"{job}: failed: exit status {IMPORTED}, with no word of why" in done.stdout
    assert done.returncode == 1, done.stderr


def test_all_mistakes_are_listed_before_torch_is_imported(run):
    done = run(
        "seed=-1",
        "dataset.seed=0",
        "dataset.workers=0",
        "reward=sg_rlvr_temporal",
        "objective.group_size=7",
        "objective.advantage=stdd",
        "+model.learning_rat=0.1",
        "trainer.max_epochs=null",
        "cluster.strategy=zero",
        "logger.kind=wandbb",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    header, *lines = done.stderr.splitlines()
    assert header == "8 mistakes in the configuration:"
    wanted = [
        "seed: is -1, must be an integer (at least 0 and less than 2147483648)",
        "model.learning_rat: unknown key (did you mean learning_rate?)",
        "dataset.workers: is 0, must be an integer (at least 1: videos are never decoded in the main process)",
        "objective.advantage: is 'stdd' (did you mean std?)",
        "cluster.strategy: is 'zero', must be one of auto, ddp, fsdp, deepspeed_zero3",
        "logger.kind: is 'wandbb' (did you mean wandb?)",
        "reward.temporal answers half as many shuffled videos as objective.group_size=7",
        "nothing ends this run: set trainer.max_epochs=1",
    ]
    assert len(lines) == len(wanted)
    for number, (line, beginning) in enumerate(zip(lines, wanted, strict=True), 1):
        assert line.startswith(f"  {number}. {beginning}")


@pytest.mark.parametrize(
    ("env", "reason"),
    [({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"), ({}, "https://huggingface.co cannot be reached")],
)
def test_a_model_that_cannot_be_had_is_named_with_its_remedies(env, reason, run):
    done = run("reward=sg_rlvr", "model=qwen7b", **env)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("1 mistake in the configuration:\n  1. model.name_or_path=Qwen/Qwen2.5-VL-7B-")
    assert reason in done.stderr
    assert "or choose model=tiny, which needs no download" in done.stderr


def test_help_shows_the_groups_and_examples(run):
    done = run("--help")
    assert done.returncode == 0, done.stderr
    for folder in {path.parent for path in CONF.glob("*/**/*.yaml")}:
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        assert f"{folder.relative_to(CONF)}: {', '.join(options)}\n" in done.stdout
    for example in ("python run.py stage=evaluate", "python run.py experiments=spacer_7b", "--cfg job"):
        assert example in done.stdout
    for group in ("experiments", "sweeps"):
        assert f"{group}: {', '.join(sorted(file.stem for file in (ROOT / group).glob('*.yaml')))}\n" in done.stdout


@pytest.mark.parametrize("resolve", [[], ["--resolve"]])
def test_the_configuration_of_a_run_is_shown(resolve, run):
    done = run("--cfg", "job", *resolve, "model=qwen7b", "objective.beta=0.5")
    assert done.returncode == 0, done.stderr
    shown = OmegaConf.create(done.stdout)
    assert shown.objective.beta == 0.5
    assert shown.objective.max_completion_length == 1024
    assert shown.model.name_or_path == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_an_unknown_option_is_answered_with_those_there_are(run):
    done = run("model=qwen8b")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Could not find 'model/qwen8b'" in done.stderr
    for option in OPTIONS:
        if option.startswith("model="):
            assert option.removeprefix("model=") in done.stderr


def test_the_version_is_spacers(run):
    done = run("--version")
    assert done.returncode == 0 and done.stdout == f"spacer {spacer.__version__}\n"
