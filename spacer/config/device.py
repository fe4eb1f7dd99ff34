"""Which kind of device a run computes on, as far as that can be told without torch; the resolver of `conf/trainer/`."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

_DRIVER = Path("/proc/driver/nvidia/version")  # there where NVIDIA's driver is loaded


def sees_cuda() -> bool:
    """Whether this machine has an NVIDIA driver, and CUDA_VISIBLE_DEVICES hides no device of it from the run."""
    return _DRIVER.exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() not in ("", "-1", "NoDevFiles")


def where_cuda(there: str, elsewhere: str, *, _root_: DictConfig) -> str:
    """The resolver `${where_cuda:THERE,ELSEWHERE}`: one value where the composed configuration computes on CUDA.

    A plan, and a SLURM job, which may be composed on another machine than it runs on, count as on CUDA unless
    `cluster.accelerator` says otherwise: a sweep composes its jobs alike wherever it is started.
    """
    accelerator, kind, stage = (
        OmegaConf.select(_root_, key) for key in ("cluster.accelerator", "cluster.kind", "stage.name")
    )
    if accelerator in ("cpu", "mps"):
        return elsewhere
    return there if accelerator == "cuda" or stage == "plan" or kind == "slurm" or sees_cuda() else elsewhere


def register() -> None:
    """Makes the resolver known to OmegaConf."""
    OmegaConf.register_new_resolver("where_cuda", where_cuda, replace=True)
