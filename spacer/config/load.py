"""Turns a composed Hydra config into typed `Settings`, reporting all mistakes at once."""

from __future__ import annotations

import copy
import os

from omegaconf import DictConfig, OmegaConf

from spacer.config import device
from spacer.config.derived import asked_benchmarks, sections
from spacer.config.faults import PROMPTS_RULE, prompt_faults, run_faults
from spacer.config.paths import export_paths
from spacer.config.reader import Reader, readable
from spacer.config.rules import DATASET_RULES, RULES
from spacer.config.rules.rewards import reward_function_faults
from spacer.config.settings import Settings
from spacer.config.settings.stages import STAGES
from spacer.errors import UserError

device.register()


class ConfigError(UserError):
    """All mistakes found in a config, in `problems`.

    >>> print(ConfigError(["seed: must be set: add seed=…"]))
    1 mistake in the configuration:
      1. seed: must be set: add seed=…
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)  # not the text: unpickling passes these arguments again
        self.problems = problems

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{count} mistake{'' if count == 1 else 's'} in the configuration:"]
        for number, problem in enumerate(self.problems, 1):
            lines.append(f"{number:3}. " + problem.replace("\n", "\n     "))
        return "\n".join(lines)


def forgiving(words: list[str], groups: set[str]) -> list[str]:
    """Turns `key=value` into `++key=value` in the command line, so that Hydra accepts unknown keys.

    Hydra would stop at the first one; `load_settings` then reports all of them with the other mistakes. Not in a
    sweep, where `++seed=7` would be added beside the `seed=0,1,2` of its file instead of replacing it.

    >>> forgiving(["reward=grpo", "objective.bta=0", "hydra.run.dir=x"], {"reward"})
    ['reward=grpo', '++objective.bta=0', 'hydra.run.dir=x']
    >>> forgiving(["-m", "objective.bta=0"], {"reward"})
    ['-m', 'objective.bta=0']
    """
    if any(word in ("-m", "--multirun") or word.startswith("sweeps=") for word in words):
        return words

    def is_value(word: str) -> bool:
        key, equals, _ = word.partition("=")
        return bool(equals) and key[:1] not in "+~-" and "/" not in key and key not in groups and key[:6] != "hydra."

    return [f"++{word}" if is_value(word) else word for word in words]


def load_settings(cfg: DictConfig) -> Settings:
    """Resolves and checks a composed config. Raises ConfigError listing all mistakes."""
    export_paths()
    reader = Reader()
    values = reader.resolve(_without_data(cfg), "")
    reader.read_prompts(values.get("dataset"), "dataset")
    reader.refuse_nameless(values, "benchmark")
    settings = reader.read(values)
    problems = reader.problems

    problems += [problem for rule in RULES if (problem := readable(rule, settings))]
    problems += readable(run_faults, settings) or ()
    problems += readable(reward_function_faults, settings) or ()
    for at, dataset in readable(sections, settings) or ():
        problems += [problem for rule in DATASET_RULES if (problem := readable(rule, dataset, settings, at))]
        problems += [f"{at}.prompts: {fault}. {PROMPTS_RULE}" for fault in readable(prompt_faults, dataset) or ()]
    for at, benchmark in readable(asked_benchmarks, settings) or ():
        found = readable(prompt_faults, benchmark) or ()
        problems += [f"{at}.prompts: {fault}. {PROMPTS_RULE}" for fault in found]
        if benchmark.root is None or not os.path.isdir(os.path.expanduser(benchmark.root)):
            problems.append(
                f"{at}.root={benchmark.root} is not an existing folder: set {at}.root=DIR to the benchmark's files, "
                "as its authors distribute them"
            )
    if problems:
        raise ConfigError(problems)
    return settings


def _without_data(cfg: DictConfig) -> DictConfig:
    """The config with an empty `dataset.root` if it is unset and the stage needs no data."""
    stage = STAGES.get(OmegaConf.select(cfg, "stage.name"))
    if stage is None or stage.needs_data:
        return cfg
    cfg = copy.deepcopy(cfg)
    dataset = cfg.get("dataset")
    parts = dataset.get("parts") if isinstance(dataset, DictConfig) else None
    for part in (dataset, *(parts.values() if isinstance(parts, DictConfig) else ())):
        if isinstance(part, DictConfig) and OmegaConf.is_missing(part, "root"):
            part.root = ""
    return cfg
