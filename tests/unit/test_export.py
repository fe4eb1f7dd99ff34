"""Exporting in detail: precision, plain transformers, wrong checkpoints, the model card."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from spacer.config.settings import LoraSettings, ModelSettings, Settings
from spacer.errors import UserError
from spacer.models.load import load_policy
from spacer.report.card import Origin, model_card, non_commercial, read_scores
from spacer.stages.export import export, read_checkpoint, recorded_settings
from tests.unit.configs import load, problems

TINY = str(Path(__file__).resolve().parents[2] / "spacer/assets/tiny")
MODEL = ModelSettings(TINY)
LORA = LoraSettings(rank=4, alpha=8)


def checkpoint(folder: Path, model: ModelSettings = MODEL, **more: Any) -> Path:
    """What Lightning writes, of weights that are not the model's own, as far as exporting reads it."""
    policy = load_policy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    path = folder / "run/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": state | more, "global_step": 7, "optimizer_states": []}, path)
    return path


def record(path: Path, **values: Any) -> None:
    """A training run's configuration beside its checkpoint."""
    config = path.parents[1] / ".hydra/config.yaml"
    config.parent.mkdir()
    config.write_text(
        yaml.safe_dump({"stage": {"name": "train"}, "output_dir": "${hydra:runtime.output_dir}"} | values)
    )


def settings_of(path: Path, model: ModelSettings = MODEL, save_dtype: str | None = None) -> Settings:
    made = load(stage="export", ckpt_path=str(path), stage__save_dtype=save_dtype)
    return replace(made, model=model)


def test_plain_transformers_loads_it_and_generates(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = checkpoint(tmp_path)
    assert export(settings_of(path, save_dtype="bfloat16"), tmp_path / "out") == 7
    folder = tmp_path / "out/model"
    stored, trained = load_file(folder / "model.safetensors"), read_checkpoint(path).tensors
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    loaded = model.state_dict()
    assert loaded.keys() == trained.keys()
    assert all(torch.equal(loaded[name].bfloat16(), trained[name].bfloat16()) for name in trained)
    asked = processor(text=["How many chairs?"], return_tensors="pt")
    written = model.generate(**asked, max_new_tokens=4, do_sample=False)
    assert written.shape[1] > asked["input_ids"].shape[1]
    with pytest.raises(UserError, match=r"is there already: set hydra\.run\.dir to another folder"):
        export(settings_of(path), tmp_path / "out")


def test_merged_adapters_give_what_the_adapters_gave(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    with_lora = replace(MODEL, lora=LORA)
    path = checkpoint(tmp_path, with_lora)
    record(path, model={"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}})
    export(settings_of(path, with_lora), tmp_path / "out")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out/model").state_dict()
    state, worked_out = read_checkpoint(path).tensors, 0
    for name, base in state.items():
        if name.endswith("base_layer.weight"):
            at = name.removesuffix("base_layer.weight")
            delta = state[f"{at}lora_B.default.weight"] @ state[f"{at}lora_A.default.weight"] * (8 / 4)
            plain = at.removeprefix("base_model.model.").rstrip(".") + ".weight"
            assert torch.allclose(merged[plain], base + delta, atol=1e-6)
            worked_out += 1
    assert worked_out > 0 and not any("lora" in name for name in merged)


@pytest.mark.parametrize(
    ("lora", "known", "words"),
    [
        (None, True, "model.lora=null does not fit: set 'model.lora={rank: 4, alpha: 8}'"),
        (LoraSettings(8, 8), True, "model.lora={rank: 8, alpha: 8} does not fit: set 'model.lora={rank: 4, alpha: 8}'"),
        (LoraSettings(4, 16), True, "set 'model.lora={rank: 4, alpha: 8}'"),
        (LoraSettings(8, 16), False, "set 'model.lora={rank: 4, alpha: THEIRS}'"),
    ],
)
def test_other_adapters_are_refused(lora: LoraSettings | None, known: bool, words: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, replace(MODEL, lora=LORA))
    if known:
        record(path, model={"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}})
    with pytest.raises(UserError) as error:
        export(settings_of(path, replace(MODEL, lora=lora)), tmp_path / "out")
    assert words in str(error.value)
    assert not (tmp_path / "out/model").exists()


def test_adapters_without_a_record_and_a_record_of_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = checkpoint(tmp_path, replace(MODEL, lora=LORA))
    with caplog.at_level(logging.WARNING):
        export(settings_of(path, replace(MODEL, lora=LORA)), tmp_path / "out")
    assert "alpha=8 is taken on trust" in caplog.text
    with pytest.raises(UserError, match=r"holds no adapters, and model\.lora is set: set model\.lora=null"):
        export(settings_of(checkpoint(tmp_path / "b"), replace(MODEL, lora=LORA)), tmp_path / "out2")


def test_another_architecture_is_told_by_some_of_its_weights(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, **{"policy.model.extra": torch.zeros(1)})
    found = torch.load(path, weights_only=True)
    names = [name for name in found["state_dict"] if name.endswith("q_proj.bias")]
    for name in names:
        del found["state_dict"][name]
    key = next(name for name in found["state_dict"] if name.endswith("embed_tokens.weight"))
    found["state_dict"][key] = torch.zeros(5, 2)
    torch.save(found, path)
    with pytest.raises(UserError) as error:
        export(settings_of(path), tmp_path / "out")
    said = str(error.value)
    for words in (
        names[0].removeprefix("policy."),
        "missing",
        "model.extra is unknown to the model",
        "(5, 2), not (1024",
    ):
        assert words in said, said
    assert "Choose the model that the run was trained from" in said


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"state_dict": {"reference.x": torch.zeros(1)}}, tmp_path / "other.ckpt")
    torch.save({"state_dict": print}, tmp_path / "code.ckpt")
    whole = checkpoint(tmp_path)
    (tmp_path / "cut.ckpt").write_bytes(whole.read_bytes()[:-5000])
    for name, words in (
        ("text", "cannot be read as a checkpoint"),
        ("code", "cannot be read as a checkpoint"),
        ("cut", "cannot be read as a checkpoint"),
        ("other", "holds no weights of a policy"),
    ):
        with pytest.raises(UserError, match=words) as error:
            read_checkpoint(tmp_path / f"{name}.ckpt")
        assert "checkpoints/last.ckpt" in str(error.value)


def test_settings_that_cannot_be_exported_with(tmp_path: Path) -> None:
    (found,) = problems(stage="export")
    assert found.startswith("stage.name=export takes a checkpoint's file, and ckpt_path=None is none")
    (tmp_path / "a.ckpt").touch()
    (found,) = problems(stage="export", ckpt_path=str(tmp_path / "a.ckpt"), model__fresh=True)
    assert "model.name_or_path=RUN/untrained" in found


def test_recorded_settings(tmp_path: Path) -> None:
    assert recorded_settings(tmp_path) is None
    path = checkpoint(tmp_path)
    record(path, model={"name_or_path": "${output_dir}/untrained"}, seed=3)
    run = path.parents[1]
    assert recorded_settings(run)["model"]["name_or_path"] == f"{run}/untrained"
    (run / ".hydra/config.yaml").write_text("stage: {name: export}")
    assert recorded_settings(run) is None  # what lies there is of another run
    (run / ".hydra/config.yaml").write_text("stage: {name: '${nowhere}'}")
    with pytest.raises(UserError, match="mend it, or move it away"):
        recorded_settings(run)


@pytest.mark.parametrize(
    ("recorded", "free"),
    [
        ({"dataset": {"index": "SpaceR-151k.jsonl", "root": "/data"}}, False),
        ({"dataset": {"parts": {"a": {"root": "r"}, "b": {"archive": "SpaceR-151k.part_"}}}}, False),
        ({"dataset": {"root": "rooms"}, "model": {"name_or_path": "RUBBISHLIKE/SpaceR"}}, False),
        ({"dataset": {"root": "/home/me/spacer/rooms"}, "model": {"name_or_path": "/work/spacer/assets/tiny"}}, True),
        (None, True),
    ],
)
def test_licence(recorded: dict[str, Any] | None, free: bool) -> None:
    origin = Origin("Qwen/Qwen2.5-VL-7B-Instruct", Path("last.ckpt"), 10, recorded)
    assert non_commercial(origin) is not free
    card = model_card(origin, [])
    head = yaml.safe_load(card.split("---")[1])
    assert head.get("license") == (None if free else "cc-by-nc-4.0")
    assert ("no commercial use" in card) is not free


def test_card_of_a_model_of_the_hub() -> None:
    card = model_card(Origin("Qwen/Qwen2.5-VL-7B-Instruct", Path("last.ckpt"), 10, None), [])
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert "# Qwen2.5-VL-7B-Instruct, trained with Spacer" in card and "not beside the checkpoint" in card


def test_scores_of_every_kind_of_run(tmp_path: Path) -> None:
    gain = {"before": 0.1, "after": 0.2, "delta": 0.1, "delta_low": 0.0, "delta_high": 0.2}
    (tmp_path / "summary.json").write_text(json.dumps({"metrics": {"reward/total": gain}, "seconds": {"train": 3}}))
    assert [(score.metric, score.value) for score in read_scores(tmp_path)] == [("reward/total", 0.2)]
    (tmp_path / "summary.json").write_text(json.dumps({"scores": {"answer": {"mean": 0.5, "low": 0.4, "high": 0.6}}}))
    (score,) = read_scores(tmp_path)
    assert (score.value, score.low, score.high) == (0.5, 0.4, 0.6)
    (tmp_path / "scores.json").write_text(json.dumps({"benchmark": "vsi_bench", "official": {"a": 0.5, "b": {"c": 1}}}))
    assert [(s.benchmark, s.metric, s.value) for s in read_scores(tmp_path)] == [
        ("vsi_bench", "a", 0.5),
        ("vsi_bench", "b/c", 1.0),
    ]
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(UserError, match="has no scores"):
        read_scores(tmp_path)
