"""`benchmark/protocol=NAME`: where it is placed, what a protocol sets, and that scores stand beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from spacer.config.choices import EASI, EndpointVideo, Shown
from spacer.config.load import ConfigError, load_settings
from spacer.config.presets import placed
from spacer.config.settings import BenchmarkSettings, EndpointSettings, ModelSettings, Settings
from spacer.evaluation.conditions import protocol_of

CONF = Path(__file__).resolve().parents[2] / "conf"
PROTOCOLS = sorted(path.stem for path in (CONF / "benchmark/protocol").glob("*.yaml"))


def asked(*words: str) -> Settings:
    os.environ["SPACER_ROOT"] = str(CONF.parent)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = ["stage=evaluate", "output_dir=/tmp/none", *words]
        return load_settings(compose("config", placed(chosen, CONF)))


def one(name: str, *words: str) -> BenchmarkSettings:
    found = asked(f"benchmark={name}", f"benchmark.root={CONF}", *words).benchmark
    assert found is not None
    return found


def test_there_are_the_fields_protocols() -> None:
    assert PROTOCOLS == ["easi", "lmms_eval", "official", "spacer", "thinking"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["benchmark=blink", "benchmark/protocol=easi"], ["benchmark=blink", "benchmark/protocol@benchmark=easi"]),
        (["benchmark/protocol=official", "benchmark=mindcube"],
         ["benchmark/protocol@benchmark=official/mindcube", "benchmark=mindcube"]),
        (["benchmark=mindcube", "benchmark/protocol=easi,official"],
         ["benchmark=mindcube", "benchmark/protocol@benchmark=easi,official/mindcube"]),
        (["benchmark=blink", "benchmark/prompts=direct"], ["benchmark=blink", "benchmark/prompts=direct"]),
        (["benchmark/protocol=easi"], ["benchmark/protocol@benchmark=easi"]),
        (["benchmark=none_such", "seed=1"], ["benchmark=none_such", "seed=1"]),
    ],
)  # fmt: skip
def test_a_choice_is_placed(words: list[str], found: list[str]) -> None:
    assert placed(words, CONF) == found


@pytest.mark.parametrize(
    "words",
    [
        ["benchmark=vsi_bench,mindcube", "benchmark/protocol=official"],
        ["benchmark=easi", "benchmark/protocol=official,easi"],
        ["benchmark/prompts=direct,thinking", "benchmark=all"],
    ],
)
def test_a_sweep_whose_jobs_would_not_be_asked_as_named_is_refused(words: list[str]) -> None:
    """Variants go by the benchmark, and each of several benchmarks would be an axis of its own."""
    with pytest.raises(ConfigError, match="would mix protocols in a sweep: give a command for each of them"):
        placed(words, CONF)


@pytest.mark.parametrize("key", ["benchmark.protocol", "benchmarks.blink.protocol", "++benchmark.protocol"])
def test_a_name_alone_makes_no_protocol(key: str) -> None:
    with pytest.raises(ConfigError, match="choose benchmark/protocol=easi"):
        placed(["benchmark=blink", f"{key}=easi"], CONF)


def test_one_choice_is_that_of_each_of_several_benchmarks() -> None:
    found = placed(["benchmark=easi", "benchmark/protocol=lmms_eval", "benchmark/prompts=thinking"], CONF)
    assert len(found) == 1 + 2 * len(EASI)
    assert "benchmark/protocol@benchmarks.vsi_bench=lmms_eval/vsi_bench" in found
    assert "benchmark/protocol@benchmarks.blink=lmms_eval" in found
    assert "benchmark/prompts@benchmarks.blink.prompts=thinking" in found
    settings = asked("benchmark=easi", f"benchmarks.blink.root={CONF}", *found[1:])
    assert {part.protocol for part in settings.benchmarks.values()} == {"lmms_eval"}
    assert settings.benchmarks["vsi_bench"].max_new_tokens == 16
    assert settings.benchmarks["mindcube"].max_new_tokens == 4096
    assert "think" in settings.benchmarks["blink"].prompts["plain"].lower()


def test_a_benchmark_that_an_experiment_chooses_gets_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").symlink_to(CONF)
    files = {"one": "mindcube", "all": "easi"}
    (tmp_path / "experiments").mkdir()
    for file, name in files.items():
        text = f"# @package _global_\ndefaults:\n  - override /benchmark: {name}\n"
        (tmp_path / f"experiments/{file}.yaml").write_text(text)
    (tmp_path / "experiments/on_it.yaml").write_text("# @package _global_\ndefaults: [one, _self_]\nseed: 3\n")
    official, conf = "benchmark/protocol=official", tmp_path / "conf"
    for file in ("one", "on_it"):
        found = placed([f"experiments={file}", official], conf)
        assert found == [f"experiments={file}", "benchmark/protocol@benchmark=official/mindcube"]
    assert len(placed(["experiments=all", official], conf)) == 1 + len(EASI)
    # the command line has the last word
    assert placed(["experiments=all", "benchmark=blink", official], conf)[2] == "benchmark/protocol@benchmark=official"
    monkeypatch.setenv("SPACER_ROOT", str(tmp_path))
    with initialize_config_dir(str(conf), version_base="1.3"):
        words = placed(["experiments=on_it", official, "stage=evaluate", f"benchmark.root={CONF}"], conf)
        settings = load_settings(compose("config", [*words, "output_dir=/tmp/none"]))
    assert settings.benchmark is not None and settings.benchmark.name == "mindcube"
    assert settings.benchmark.protocol == "official" and settings.benchmark.image_max_pixels == 480 * 480


@pytest.mark.parametrize(("protocol", "thinks"), [("easi", False), ("thinking", True), ("spacer", True)])
def test_a_protocol_brings_its_prompts_which_can_be_changed(protocol: str, thinks: bool) -> None:
    own = one("vsi_bench", f"benchmark/protocol={protocol}")
    assert own.protocol == protocol and ("Think" in own.prompts["plain"]) is thinks
    changed = one("vsi_bench", f"benchmark/protocol={protocol}", "benchmark/prompts=direct")
    assert "Think" not in changed.prompts["plain"]
    worded = one("vsi_bench", f"benchmark/protocol={protocol}", "benchmark.prompts.plain='Look: $question'")
    assert worded.prompts["plain"] == "Look: $question"


def test_benchmarks_that_differ_by_their_authors() -> None:
    assert one("vsi_bench", "benchmark/protocol=official").prompts["plain"].startswith("These are frames")
    assert one("mindcube", "benchmark/protocol=official").image_max_pixels == 480 * 480
    assert one("omnispatial", "benchmark/protocol=easi").max_new_tokens == 8192
    assert one("blink", "benchmark/protocol=easi").max_new_tokens == 1024


MODEL = ModelSettings("m")


def changed(settings: BenchmarkSettings, **values: Any) -> bool:
    """Whether the protocol's digest is another with these values."""
    return protocol_of(replace(settings, **values), MODEL).digest != protocol_of(settings, MODEL).digest


def test_the_digest_is_of_what_changes_answers() -> None:
    own = one("vsi_bench")
    assert changed(own, temperature=0.5) and changed(own, prompts=own.prompts | {"plain": "$question"})
    assert changed(own, video=replace(own.video, max_frames=8))
    assert changed(own, video=replace(own.video, shown=Shown.pictures))
    for free in ({"limit": 3}, {"root": "elsewhere"}, {"batch_size": 2}, {"name": "vsi_debiased"}):
        assert not changed(own, **free)
    names = {str(protocol_of(one("vsi_bench", f"benchmark/protocol={name}"), MODEL)) for name in PROTOCOLS}
    assert len(names) == len({name.split()[1] for name in names}) == len(PROTOCOLS)


def test_a_server_is_shown_pictures_or_the_file() -> None:
    own = one("vsi_bench")
    pictures = replace(own, video=replace(own.video, shown=Shown.pictures))
    frames = replace(MODEL, endpoint=EndpointSettings())
    assert protocol_of(own, frames) == protocol_of(pictures, MODEL) != protocol_of(own, MODEL)
    whole = replace(MODEL, endpoint=EndpointSettings(video=EndpointVideo.file))
    assert len({protocol_of(own, model).digest for model in (whole, frames, MODEL)}) == 3
