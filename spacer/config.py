"""From a composed Hydra config to typed `Settings`, with every mistake reported at once.

Three kinds are looked for: what the dataclasses of `spacer.settings` do not allow (read off their fields and
annotations), values out of range (`CHECKS`), and values that contradict each other (`RULES`). Nothing heavy is
imported, so that a mistake shows within a second. `spacer.weights` checks the model's files.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterable
from enum import Enum
from os.path import expanduser, isdir, isfile, join  # unlike Path, never raise: an unreadable folder is no folder
from typing import Any, Literal, NoReturn

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spacer.settings import JsonlSettings, RoomsSettings, Settings

STAGES = ("train", "sft", "evaluate")  # valid values of stage.name
TRAINING_STAGES = ("train", "sft")
DTYPES = ("bfloat16", "float16", "float32", "float64")
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true", "64-true", "32", "bf16", "16", "64")


class ConfigError(ValueError):
    """Every mistake found in a config, in `problems`.

    >>> print(ConfigError(["seed: must be set: add seed=…"]))
    1 mistake in the configuration:
      1. seed: must be set: add seed=…
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)  # not the text: a pickled error is made again from these arguments
        self.problems = problems

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{count} mistake{'' if count == 1 else 's'} in the configuration:"]
        for number, problem in enumerate(self.problems, 1):
            lines.append(f"{number:3}. " + problem.replace("\n", "\n     "))
        return "\n".join(lines)


def load_settings(cfg: DictConfig) -> Settings:
    """Resolves and checks a composed config. Raises ConfigError that lists all mistakes."""
    reader = _Reader()
    settings = reader.section(reader.resolve(cfg, ""), (Settings,), "")
    problems = reader.problems
    for broken, message in RULES:
        try:
            if broken(settings):
                problems.append(message.format(s=settings))
        except _Unreadable:
            continue  # what the rule looks at is among the problems already
    if problems:
        raise ConfigError(problems)
    assert isinstance(settings, Settings)
    return settings


@dataclasses.dataclass(frozen=True)
class Check:
    """A test of a value, and how what passes it is called ("must be …")."""

    passes: Callable[[Any], object]  # truthy when it does
    words: str
    names: tuple[str, ...] = ()  # the valid values, where they can be listed


def _one_of(*names: str) -> Check:
    return Check(names.__contains__, "one of " + ", ".join(names), names)


# check → the settings it holds for; null passes where the annotation allows it, a list passes when each element does
_CHECKED: tuple[tuple[Check, str], ...] = (
    (
        Check(lambda n: n >= 1, "at least 1"),
        "model.prompts_per_batch model.lora.rank model.lora.alpha model.completion.max_tokens "
        "model.completion.bonus_max dataset.max_prompt_length dataset.train_scenes dataset.heldout_scenes "
        "dataset.questions_per_scene dataset.heldout_questions_per_scene dataset.min_objects dataset.max_objects "
        "dataset.video_fps reward.length.max_tokens objective.prompts_per_batch objective.max_completion_length "
        "objective.updates_per_rollout benchmark.limit benchmark.max_new_tokens benchmark.batch_size "
        "benchmark.resamples cluster.num_nodes trainer.accumulate_grad_batches trainer.log_every_n_steps "
        "trainer.checkpoint_every_n_steps stage.batch_size",
    ),
    (
        Check(lambda x: x >= 0, "0 or more"),
        "model.completion.bonus_min dataset.seed dataset.workers reward.length.bonus reward.length.min_tokens "
        "reward.temporal.bonus reward.temporal.margin objective.beta objective.advantage_eps objective.clip_high "
        "benchmark.temperature trainer.gradient_clip_val logger.rollouts_every_n_steps stage.optimizer.weight_decay "
        "stage.optimizer.warmup_steps stage.guess_after",
    ),
    (
        Check(lambda x: 0 <= x < 1, "at least 0 and less than 1"),
        "model.learning_rate model.lora.dropout stage.optimizer.learning_rate stage.optimizer.betas",
    ),
    (
        Check(lambda x: 0 <= x <= 1, "between 0 and 1"),
        "reward.map_min_answer reward.length.min_answer reward.temporal.min_answer objective.clip_low "
        "stage.guess_share",
    ),
    (Check(lambda x: 0 < x <= 1, "greater than 0 and at most 1"), "objective.top_p benchmark.top_p"),
    (Check(lambda x: x > 0, "greater than 0"), "dataset.video.fps dataset.seconds objective.kl_clamp"),
    (Check(lambda x: x > 0, "greater than 0: greedy completions would all be equal"), "objective.temperature"),
    (Check(lambda n: n >= 2, "at least 2, to compare a group's completions, such as 8"), "objective.group_size"),
    (Check(lambda n: n >= 2, "at least 2: the vision tower joins frames in pairs"), "dataset.video.max_frames"),
    (Check(lambda n: n >= 28, "at least 28, the side of a vision token"), "dataset.size_px"),
    (Check(lambda n: n >= 784, "at least 784 (28 * 28)"), "dataset.video.max_pixels dataset.image_max_pixels"),
    (Check(lambda n: 0 <= n < 2**32, "between 0 and 2**32 - 1"), "seed"),
    (Check(lambda n: n == -1 or n >= 1, "at least 1, or -1 for no limit"), "trainer.max_steps trainer.max_epochs"),
    (Check(lambda n: isinstance(n, str) or n == -1 or n >= 1, "at least 1, -1 (all) or auto"), "cluster.devices"),
    (Check(re.compile(r"\d+:\d\d:\d\d:\d\d").fullmatch, "like 00:12:00:00, from days to seconds"), "trainer.max_time"),
    (_one_of(*STAGES), "stage.name"),
    (_one_of(*DTYPES), "model.dtype stage.save_dtype"),
    (_one_of(*PRECISIONS), "trainer.precision"),
)
CHECKS: dict[str, Check] = {path: check for check, paths in _CHECKED for path in paths.split()}


def _trains(s: Settings) -> bool:
    return s.stage.name in TRAINING_STAGES


def _lacks(s: Settings, field: str) -> bool:
    """Whether the file that dataset.index or dataset.maps names is not in the folder, which exists."""
    if not isinstance(s.dataset, JsonlSettings) or (name := getattr(s.dataset, field)) is None:
        return False
    root = expanduser(s.dataset.root)
    return isdir(root) and not isfile(join(root, name))


def _no_checkpoint(path: str) -> bool:
    # a folder that holds meta.pt is a checkpoint that Lightning wrote in shards
    return path != "last" and not isfile(path) and not isfile(join(path, "meta.pt"))


# Contradictions: values that are fine alone and not together. (when it is one, the problem and its remedy)
RULES: tuple[tuple[Callable[[Settings], bool], str], ...] = (
    (
        lambda s: s.model.completion.bonus_min > s.model.completion.bonus_max,
        "model.completion.bonus_min={s.model.completion.bonus_min} exceeds "
        "model.completion.bonus_max={s.model.completion.bonus_max}: swap them",
    ),
    (
        lambda s: isinstance(s.dataset, RoomsSettings) and s.dataset.min_objects > s.dataset.max_objects,
        "dataset.min_objects={s.dataset.min_objects} exceeds dataset.max_objects={s.dataset.max_objects}: swap them",
    ),
    (
        lambda s: isinstance(s.dataset, JsonlSettings) and not isdir(expanduser(s.dataset.root)),
        "dataset.root={s.dataset.root} is not an existing folder: set dataset.root=/path/to/the/data, "
        "or choose dataset=rooms, which needs no files",
    ),
    (
        lambda s: _lacks(s, "index"),
        "dataset.index={s.dataset.index} is not a file in dataset.root={s.dataset.root}: "
        "set dataset.index to the questions' JSONL file, relative to the root",
    ),
    (
        lambda s: _lacks(s, "maps"),
        "dataset.maps={s.dataset.maps} is not a file in dataset.root={s.dataset.root}: "
        "correct it, or set dataset.maps=null",
    ),
    (
        lambda s: s.reward.length is not None and s.reward.length.min_tokens > s.reward.length.max_tokens,
        "reward.length.min_tokens={s.reward.length.min_tokens} exceeds "
        "reward.length.max_tokens={s.reward.length.max_tokens}, so that no completion earns the bonus: "
        "swap them, or set reward.length=null",
    ),
    (
        lambda s: (
            s.reward.length is not None
            and max(s.reward.length.min_tokens, s.reward.length.max_tokens) > s.objective.max_completion_length
        ),
        "reward.length pays for {s.reward.length.min_tokens} to {s.reward.length.max_tokens} tokens, but completions "
        "end at objective.max_completion_length={s.objective.max_completion_length}: raise that, lower the two, "
        "or set reward.length=null",
    ),
    (
        lambda s: s.reward.temporal is not None and s.objective.group_size % 2 == 1,
        "reward.temporal answers half as many shuffled videos as objective.group_size={s.objective.group_size}, "
        "which is odd: make it even, or set reward.temporal=null",
    ),
    (
        lambda s: (s.objective.clip_low is None) != (s.objective.clip_high is None),
        "objective.clip_low and objective.clip_high go together, and one of them is null: set both, or both to null",
    ),
    (
        lambda s: (
            s.objective.updates_per_rollout > 1 and s.objective.clip_low is None and s.objective.clip_high is None
        ),
        "objective.updates_per_rollout={s.objective.updates_per_rollout} learns from completions of an older policy, "
        "which takes a clipped ratio: set objective.clip_low=0.2 objective.clip_high=0.2, "
        "or objective.updates_per_rollout=1",
    ),
    (
        lambda s: (
            s.stage.name == "train"
            and s.objective.updates_per_rollout > 1
            and s.trainer.checkpoint_every_n_steps % s.objective.updates_per_rollout != 0
        ),
        "trainer.checkpoint_every_n_steps={s.trainer.checkpoint_every_n_steps} would stop between the updates of one "
        "rollout, which a resumed run cannot take up: make it a multiple of "
        "objective.updates_per_rollout={s.objective.updates_per_rollout}",
    ),
    (
        lambda s: _trains(s) and s.stage.optimizer is None,
        "stage.name={s.stage.name} trains, but stage.optimizer is null: add that section, or choose stage=evaluate",
    ),
    (
        lambda s: (
            _trains(s)
            and s.trainer.max_steps == -1
            and (s.trainer.max_epochs is None or s.trainer.max_epochs == -1)
            and s.trainer.max_time is None
            and not s.trainer.fast_dev_run
        ),
        "nothing ends this run: set trainer.max_epochs=1, trainer.max_steps=1000 or trainer.max_time=00:12:00:00",
    ),
    (
        lambda s: s.ckpt_path is not None and _no_checkpoint(s.ckpt_path),
        "ckpt_path={s.ckpt_path} is neither 'last' nor an existing checkpoint: set ckpt_path=/path/to/file.ckpt, "
        "or ckpt_path=last for the newest one of output_dir, or ckpt_path=null to start afresh",
    ),
)


class _Unreadable(AttributeError):  # so that hasattr and inspect get along with what raises it
    """A rule looked at a value that could not be read."""


class _Bad:
    """Stands where a value could not be read, so that all others are still checked: a rule that uses it is skipped."""

    def __repr__(self) -> str:
        return "???"

    def _use(self, *_: object) -> NoReturn:
        raise _Unreadable

    __getattr__ = __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _use
    __mod__ = __rmod__ = __format__ = __fspath__ = _use


_BAD: Any = _Bad()
_DEEPEST = 16  # a section nested deeper contains itself, by an interpolation


class _Reader:
    """Reads OmegaConf's nodes into dataclasses as their annotations say, and collects problems."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def fail(self, path: str, message: str) -> Any:
        self.problems.append(f"{path}: {message}")
        return _BAD

    def resolve(self, node: DictConfig | ListConfig, path: str) -> Any:
        """Plain dicts, lists and values; a missing value or a failing interpolation is a problem."""
        if isinstance(node, DictConfig):
            return {str(key): self._item(node, key, _join(path, key)) for key in node}
        return [self._item(node, index, f"{path}[{index}]") for index in range(len(node))]

    def _item(self, node: DictConfig | ListConfig, key: Any, path: str) -> Any:
        if OmegaConf.is_missing(node, key):
            return self.fail(path, f"must be set: add {path}=…")
        if path.count(".") > _DEEPEST:
            return self.fail(path, "an interpolation makes this section contain itself")
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            # the first line says what happened; the others are about OmegaConf's types
            return self.fail(path, "its interpolation fails: " + str(error).partition("\n")[0])
        return self.resolve(value, path) if isinstance(value, DictConfig | ListConfig) else value

    def section(self, values: dict[str, Any], classes: tuple[type, ...], path: str) -> Any:
        """An instance of that one of `classes` which `_target_` names; needless where there is only one."""
        # looked up among the annotated classes, never imported: a config cannot run code
        by_target = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}
        target = values.get("_target_", next(iter(by_target)) if len(classes) == 1 else None)
        if target is _BAD:
            return _BAD
        if not isinstance(target, str) or target not in by_target:
            given = "must be set" if target is None else f"{target!r} is not allowed{_did_you_mean(target, by_target)}"
            self.fail(_join(path, "_target_"), f"{given}. Valid here: {', '.join(by_target)}")
            if len(classes) > 1:
                return _BAD
            target = next(iter(by_target))
        cls = by_target[target]
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in values:
            if key not in fields and key != "_target_":
                known = f"Valid keys here: {', '.join(fields)}"
                self.fail(_join(path, key), f"unknown key{_did_you_mean(key, fields)}. {known}")
        arguments = {}
        for name, field in fields.items():
            if name in values:
                arguments[name] = self.value(values[name], hints[name], _join(path, name))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                arguments[name] = self.fail(_join(path, name), f"must be set: add {_join(path, name)}=…")
        return cls(**arguments)

    def value(self, value: Any, hint: Any, path: str) -> Any:
        """`value` as the annotation `hint` wants it."""
        options = _options(hint)
        if value is _BAD or (value is None and type(None) in options):
            return value
        if isinstance(value, dict) and (sections := tuple(o for o in options if _is_section(o))):
            return self.section(value, sections, path)
        for option in options:
            origin, args = typing.get_origin(option), typing.get_args(option)
            if origin is dict and isinstance(value, dict):
                return {key: self.value(item, args[1], _join(path, key)) for key, item in value.items()}
            if isinstance(value, list) and (origin is list or ... in args):
                args = args[:1] * len(value)
            if origin in (list, tuple) and isinstance(value, list) and len(args) == len(value):
                return origin(self.value(item, args[i], f"{path}[{i}]") for i, item in enumerate(value))
            if (read := _scalar(value, option)) is not _BAD:
                check = CHECKS.get(path.partition("[")[0])
                if check and not check.passes(read):
                    self.fail(path, f"is {_show(value)}{_did_you_mean(read, check.names)}, must be {check.words}")
                return read  # also when out of range, so that the rules still see it
        quote = f": quote it, {path}='\"…\"'" if str in options and isinstance(value, bool | int | float) else ""
        members = [str(member.value) for option in options if _is_enum(option) for member in option]
        return self.fail(path, f"is {_show(value)}{_did_you_mean(value, members)}, must be {_describe(options)}{quote}")


def _scalar(value: Any, hint: Any) -> Any:
    """`value` if it is of the type `hint`, else _BAD. Types are exact, since to Python a bool is an int."""
    if _is_enum(hint):
        return next((member for member in hint if value in (member, member.value)), _BAD)
    if typing.get_origin(hint) is Literal:
        return value if any(value == arg and type(value) is type(arg) for arg in typing.get_args(hint)) else _BAD
    if hint is float:
        return float(value) if type(value) in (int, float) and not math.isnan(value) else _BAD
    return value if type(value) is hint else _BAD


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


_NAMES: dict[Any, str] = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
_NAMES |= {type(None): "null", ...: "…"}


def _describe(options: Iterable[Any]) -> str:
    """
    >>> _describe([int, type(None)]), _describe([tuple[float, float]])
    ('an integer or null', 'a list [a number, a number]')
    """
    words = []
    for option in options:
        origin, args = typing.get_origin(option), typing.get_args(option)
        if _is_enum(option) or origin is Literal:
            words.append("one of " + ", ".join(str(getattr(one, "value", one)) for one in args or option))
        elif _is_section(option):
            words.append(f"a section with the keys {', '.join(field.name for field in dataclasses.fields(option))}")
        elif origin in (tuple, list):
            words.append(f"a list [{', '.join(_describe(_options(arg)) for arg in args)}]")
        elif origin is dict:
            words.append(f"a section of keys of your choice, each {_describe(_options(args[1]))}")
        else:
            words.append(_NAMES[option])
    return " or ".join(words)


def _show(value: Any) -> str:
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _did_you_mean(word: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1) if isinstance(word, str) else []
    return f" (did you mean {close[0]}?)" if close else ""


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
