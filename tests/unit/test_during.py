"""What an evaluation during training logs: means with their intervals, where there are scenes enough."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from spacer.config.settings import EvaluationSettings
from spacer.evaluation.during import BEST, PREFIX, DuringTraining, judges
from spacer.statistics.summaries import mean_scores

REWARD = {"answer": 0.0, "map": 0.0, "map_quality": 0.0, "format": 1.0, "length": 0.0, "temporal": 0.0}


def rows(scenes: int) -> list[dict[str, Any]]:
    """Two questions about each scene; the answers to every third scene are right."""
    return [
        {
            "id": f"{scene}/{n}",
            "scene": str(scene),
            "question_type": "object_counting",
            "drawn": False,
            "completion_tokens": 3,
            "reward": {**REWARD, "answer": float(scene % 3 == 0), "total": 1.0 + float(scene % 3 == 0)},
        }
        for scene in range(scenes)
        for n in range(2)
    ]


@pytest.mark.parametrize(("scenes", "with_interval"), [(12, True), (3, False)])
def test_means_and_their_intervals_are_logged(scenes: int, with_interval: bool) -> None:
    held: Any = SimpleNamespace(_settings=SimpleNamespace(resamples=500), _request=SimpleNamespace(seed=0))
    logged = DuringTraining._metrics(held, rows(scenes), SimpleNamespace(prompts_seen=7))
    assert logged["train/prompts_seen"] == 7.0
    assert logged[f"{PREFIX}reward/total"] == pytest.approx(4 / 3)
    assert logged[f"{PREFIX}answer/object_counting"] == pytest.approx(1 / 3)
    assert (f"{PREFIX}reward/total/low" in logged) == with_interval
    if with_interval:
        score = mean_scores(rows(scenes), 500, 0)["reward/total"]
        assert logged[f"{PREFIX}reward/total/low"] == score["low"] < 4 / 3 < logged[f"{PREFIX}reward/total/high"]


class Left(DuringTraining):
    """With the folders that a run has left, and no questions to ask."""

    def __init__(self, folder: Path, settings: EvaluationSettings) -> None:
        self._folder, self._settings = folder, settings
        self._judges = judges(settings, folder)
        self._unlogged = None

    def _tell_cost(self, module: Any, step: int) -> None:
        """There is none."""

    @property
    def judges(self) -> tuple[EarlyStopping, ModelCheckpoint]:
        stopping, best = self._judges
        assert isinstance(stopping, EarlyStopping) and isinstance(best, ModelCheckpoint)
        return stopping, best


MODULE: Any = SimpleNamespace(device=torch.device("cpu"))


def resumed(at: int) -> Any:
    return SimpleNamespace(global_step=at, is_global_zero=True, should_stop=False)


@pytest.mark.parametrize(("best_of", "kept"), [(15, True), (35, False)])
def test_a_best_checkpoint_of_steps_that_are_made_again_is_forgotten(best_of: int, kept: bool, tmp_path: Path) -> None:
    during = Left(tmp_path, EvaluationSettings(every_n_steps=5, patience=3, keep_best=True))
    torch.save({"global_step": best_of, "state_dict": {}}, tmp_path / BEST)
    for step in (15, 35):
        (tmp_path / f"{step}.jsonl").write_text("")
    _, best = during.judges
    best.load_state_dict(
        {
            "dirpath": best.dirpath,
            "best_model_score": torch.tensor(0.5),
            "best_model_path": str(tmp_path / BEST),
            "best_k_models": {str(tmp_path / BEST): torch.tensor(0.5)},
            "kth_best_model_path": str(tmp_path / BEST),
        }
    )
    during.on_train_start(resumed(20), MODULE)
    assert (tmp_path / BEST).exists() == kept == bool(best.best_k_models) == (best.best_model_score is not None)
    assert (tmp_path / "15.jsonl").exists() and not (tmp_path / "35.jsonl").exists()
    if not kept:  # whatever comes next is the best so far
        assert best.check_monitor_top_k(resumed(20), torch.tensor(0.1))


@pytest.mark.parametrize(("patience", "stops"), [(3, True), (10, False)])
def test_patience_is_what_the_settings_say_now(
    patience: int, stops: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    during = Left(tmp_path, EvaluationSettings(every_n_steps=5, patience=patience, keep_best=True))
    stopping, _ = during.judges
    stopping.load_state_dict({"wait_count": 3, "stopped_epoch": 0, "best_score": torch.tensor(0.5), "patience": 3})
    trainer = resumed(20)
    with caplog.at_level("INFO"):
        during.on_train_start(trainer, MODULE)
    assert trainer.should_stop == stops == ("training stops" in caplog.text)
