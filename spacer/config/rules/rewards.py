"""Rules about rewards from the user's own files, which are parsed here and not run."""

from __future__ import annotations

import ast
from collections import Counter

from spacer.config.settings import RewardFunctionSettings, Settings
from spacer.files import read_ordinary

# names that the metrics under `reward/` have already
TAKEN = ("total", "answer", "map", "map_quality", "format", "length", "temporal", "overlong")


def reward_function_faults(settings: Settings) -> list[str]:
    """A sentence for each fault of `reward.functions`."""
    faults = []
    counts = Counter(function.function for function in settings.reward.functions)
    for n, function in enumerate(settings.reward.functions):
        at = f"reward.functions[{n}]"
        if problem := _problem(function):
            faults.append(f"{at}.path is {function.path!r}: {problem}")
        elif function.function in TAKEN:
            faults.append(
                f"{at}.path is {function.path!r}: reward/{function.function} is built in: rename the function"
            )
        elif counts[function.function] > 1:
            faults.append(f"{at}.path is {function.path!r}: two functions have that name: rename one")
    return faults


def _problem(function: RewardFunctionSettings) -> str | None:
    file, name = function.file, function.function
    if file.suffix != ".py" or not name.isidentifier():
        return "it must be FILE.py:FUNCTION, such as my_rewards.py:directions"
    try:
        tree = ast.parse(read_ordinary(file), str(file))
    except OSError as error:
        return f"{file} cannot be read: {error.strerror or error}"
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"{file}{f':{line}' if line else ''} is no Python: {error.args[0]}"
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    imported = [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    ]
    assigned = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    if name not in (*defined, *imported, *assigned):
        return f"{file} has no function {name}; it has {', '.join(defined) or 'none'}"
    return None
