"""The precision of a run follows its model and where it computes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from spacer.config import device
from spacer.config.load import load_settings

CONF = Path(__file__).resolve().parents[2] / "conf"
QWEN = ("qwen3b", "qwen7b", "qwen32b", "qwen72b", "qwen3vl_4b", "qwen3vl_8b", "spacer7b")


def precision(*words: str) -> str:
    os.environ["SPACER_ROOT"] = str(CONF.parent)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load_settings(compose("config", ["output_dir=/tmp/none", *words])).trainer.precision


@pytest.fixture(params=[True, False], ids=["CUDA", "no CUDA"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    driver = tmp_path / "version"
    if request.param:
        driver.touch()
    monkeypatch.setattr(device, "_DRIVER", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return request.param


@pytest.mark.parametrize("model", QWEN)
def test_large_models_compute_in_bfloat16_on_cuda_alone(model: str, cuda: bool) -> None:
    assert precision(f"model={model}") == ("bf16-mixed" if cuda else "32-true")
    assert precision(f"model={model}", "cluster.accelerator=cpu") == "32-true"
    assert precision(f"model={model}", "trainer.precision=bf16-true", "stage=evaluate") == "bf16-true"
    assert precision(f"model={model}", "stage=plan") == "bf16-mixed"  # of GPUs, wherever it is made


def test_the_embedded_model_computes_in_float32(cuda: bool) -> None:
    assert precision() == precision("cluster.accelerator=cpu") == "32-true"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_devices_are_none(hidden: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "_DRIVER", tmp_path)
    assert device.sees_cuda()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not device.sees_cuda()
