"""Every command that the README, the site and comments in `conf/` show composes into valid settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from spacer.config.load import forgiving, load_settings
from tests.cli.test_configs import CONF, ROOT, values_of
from tests.pages import commands, commands_in_configs

GROUPS = {folder.name for folder in CONF.iterdir() if folder.is_dir()} | {"experiments", "sweeps"}
OF_HYDRA = ("--help", "--cfg")  # which compose nothing
FILES = {  # what the placeholders of the pages stand for
    "DIR": ("index.jsonl", "questions.jsonl", "cognitive_map.jsonl", "meta_info/a.json", "SpaceR-151k.jsonl", "FILE"),
    "DIR/annotation": ("cognitive_map.jsonl",),
    "RUN": ("generated.jsonl",),
    "RUN/checkpoints": ("last.ckpt",),
    "A": ("per_question.jsonl", "summary.json"),
    "B": ("per_question.jsonl", "summary.json"),
    "FOLDER": ("SpaceR-151k.jsonl",),
    "SWEEP": ("sweep.json",),
    "outputs/sweeps/SWEEP": ("sweep.json",),
    ".": ("FILE",),
}


@pytest.fixture
def placeholders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder with the files that the pages' placeholders name, and Hydra at `conf/`."""
    for folder, names in FILES.items():
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).touch()
    (tmp_path / "my_rewards.py").write_text("def directions(thinking, **fields): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPACER_ROOT", str(ROOT))
    monkeypatch.setattr("spacer.config.rules.packages.find_spec", lambda name: name)  # what an extra installs is there
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def overrides_of(words: list[str]) -> list[str]:
    """The overrides of the run that a command starts, or of the first run of a sweep."""
    if "-m" not in words:
        return forgiving(words, GROUPS)
    words = [word for word in words if word != "-m"]
    named = [word for word in words if word.startswith("sweeps=")]
    params = OmegaConf.select(compose("config", named, return_hydra_config=True), "hydra.sweeper.params") or {}
    axes = OverridesParser.create().parse_overrides([*words, *(f"{key}={value}" for key, value in params.items())])
    return [f"{axis.get_key_element()}={values_of(axis)[0]}" for axis in axes]


def test_commands_are_found() -> None:
    found = commands()
    assert () in found and ("stage=report", "runs=[A,B]") in found and len(found) > 40


SHOWN = dict.fromkeys([*commands(), *commands_in_configs()])


@pytest.mark.parametrize("words", [words for words in SHOWN if not set(OF_HYDRA) & set(words)], ids=" ".join)
def test_a_command_gives_valid_settings(words: tuple[str, ...], placeholders: None, tmp_path: Path) -> None:
    load_settings(compose("config", [f"output_dir={tmp_path}", *overrides_of(list(words))]))
