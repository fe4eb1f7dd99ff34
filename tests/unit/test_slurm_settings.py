"""`cluster=slurm`: what is requested from SLURM, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from spacer.config.settings import ClusterSettings, SlurmSettings
from tests.unit.configs import load, only_problem

ROOT = Path(__file__).resolve().parents[2]
SLURM = {"kind": "slurm"}


def composed(*overrides: str) -> DictConfig:
    """The whole configuration, Hydra's too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPACER_ROOT", str(ROOT))
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose("config", ["output_dir=out", *overrides], return_hydra_config=True)


def asked(*overrides: str) -> dict[str, Any]:
    """What the launcher asks SLURM for."""
    launcher = composed("cluster=slurm", *overrides).hydra.launcher
    return {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in launcher.items()}


def test_a_process_for_each_device_and_a_device_for_each_process() -> None:
    found = asked("cluster.num_nodes=2", "cluster.devices=8", "cluster.strategy=fsdp", "experiments=spacer_7b")
    assert (found["nodes"], found["tasks_per_node"], found["gpus_per_node"]) == (2, 8, 8)
    assert asked("cluster.gpus_per_node=null")["gpus_per_node"] is None


def test_every_setting_reaches_the_launcher() -> None:
    given = {
        **{"gres": "gpu:a100:8", "cpus_per_task": 6, "mem_gb": 64, "timeout_min": 30, "signal_delay_s": 99},
        **{"partition": "gpu", "account": "lab", "qos": "high", "constraint": "a100", "array_parallelism": 3},
        **{"setup": ["module load cuda", "ulimit -n 4096"], "additional_parameters": {"mail-type": "FAIL"}},
    }
    words = [f"cluster.{key}={value}" for key, value in given.items() if not isinstance(value, list | dict)]
    words += ["cluster.setup=[module load cuda,ulimit -n 4096]", "++cluster.additional_parameters={mail-type: FAIL}"]
    found = asked(*words, "cluster.max_timeouts=7", "cluster.gpus_per_node=5")
    assert {key: found[key] for key in given} == given
    assert (found["max_num_timeout"], found["gpus_per_node"]) == (7, 5)
    of_every_cluster = set(ClusterSettings.__dataclass_fields__)
    ours = set(SlurmSettings.__dataclass_fields__) - of_every_cluster - {"max_timeouts"}
    assert ours == {*given, "gpus_per_node"}


def test_jobs_are_launched_and_go_on_from_their_checkpoint() -> None:
    cfg = composed("cluster=slurm")
    assert cfg.hydra.mode.name == "MULTIRUN" and cfg.hydra.runtime.choices["hydra/launcher"] == "submitit_slurm"
    assert cfg.ckpt_path == "last"
    assert composed("cluster=slurm", "ckpt_path=null").ckpt_path is None
    assert composed().ckpt_path is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"devices": "auto"}, "cluster.devices=auto does not say how many processes SLURM has to start"),
        ({"timeout_min": 3}, "cluster.signal_delay_s=120 leaves nothing of cluster.timeout_min=3"),
        (
            {"signal_delay_s": 10},
            "cluster.signal_delay_s: is 10, must be an integer (at least 30: in which a step",
        ),
        ({"gpus_per_node": -1}, "cluster.gpus_per_node: is -1, must be an integer (at least 0) or null"),
        ({"cpus_per_task": 0}, "cluster.cpus_per_task: is 0, must be an integer (greater than 0)"),
        ({"setup": "module load"}, "cluster.setup: is 'module load', must be a list, each a text"),
        ({"additional_parameters": {"exclusive": [1]}}, "cluster.additional_parameters.exclusive: is [1], must be"),
        ({"partitoin": "x"}, "cluster.partitoin: unknown key (did you mean partition?)"),
    ],
)
def test_mistakes_are_told_with_their_remedies(changes: dict[str, Any], said: str) -> None:
    assert only_problem(cluster=SLURM | {"timeout_min": 240} | changes).startswith(said)


def test_it_reads_what_is_sound() -> None:
    more = {"setup": ["module load cuda"], "additional_parameters": {"exclusive": True, "nice": 5}}
    found = load(cluster=SLURM | more).cluster
    assert isinstance(found, SlurmSettings)
    assert found.setup == ("module load cuda",) and found.additional_parameters == {"exclusive": True, "nice": 5}
