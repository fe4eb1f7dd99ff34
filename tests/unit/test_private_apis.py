"""The page of private APIs lists what the code uses, and each use says why."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT

SOURCES = sorted(path for folder in ("spacer", "hydra_plugins") for path in (ROOT / folder).rglob("*.py"))
DOCUMENTED = {
    "_exit",  # of os, in Python's library reference
    "_target_",  # of Hydra: a key of configurations
}
_, _UNDERSCORED, _OTHER = (DOCS / "private-apis.md").read_text(encoding="utf-8").split("\n## ")


def listed(table: str) -> set[tuple[str, str]]:
    """File and name of each row; a row may have several names."""
    rows = re.findall(r"^\| `([\w/.]+)` \| ([^|]+) \|", table, re.MULTILINE)
    return {(path, name) for path, names in rows for name in re.findall(r"`([\w.]+)`", names)}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in DOCUMENTED


def own_names(tree: ast.AST) -> Iterator[str]:
    """The private names that a module gives to things of its own."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.arg(arg=name)
            ):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def foreign(tree: ast.AST, ours: set[str]) -> Iterator[tuple[str, int]]:
    """Private names of others, and the lines where they stand: attributes, names by `getattr`, and imports."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = "" if isinstance(node, ast.Import) else node.module or ""
            if not module.startswith("spacer"):
                imported |= {(name.asname or name.name).partition(".")[0] for name in node.names}
                parts = {part for name in node.names for part in (*module.split("."), *name.name.split("."))}
                yield from ((part, node.lineno) for part in parts if is_private(part))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=value, attr=name) if is_private(name):
                while isinstance(value, ast.Attribute):
                    value = value.value
                if name not in ours or (isinstance(value, ast.Name) and value.id in imported):
                    yield name, node.lineno
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=name), *_]):
                if isinstance(name, str) and is_private(name) and name not in ours:
                    yield name, node.lineno


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
OURS = {name for tree in TREES.values() for name in own_names(tree)}
USES = {(str(path.relative_to(ROOT)), name, line) for path, tree in TREES.items() for name, line in foreign(tree, OURS)}


def test_the_page_lists_each_private_name() -> None:
    assert {(path, name) for path, name, _ in USES} == listed(_UNDERSCORED)


@pytest.mark.parametrize(("path", "name", "line"), sorted(USES))
def test_each_use_says_why(path: str, name: str, line: int) -> None:
    """On its line, or on one of the few above."""
    above = (ROOT / path).read_text(encoding="utf-8").splitlines()[max(0, line - 8) : line]
    assert any("#" in text for text in above), f"{path}:{line} uses {name} without a comment"


@pytest.mark.parametrize(("path", "name"), sorted(listed(_OTHER)))
def test_the_others_are_used_where_the_page_says(path: str, name: str) -> None:
    assert name in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("test", sorted(set(re.findall(r"`(tests/[\w/.]+)`", _UNDERSCORED + _OTHER))))
def test_what_holds_them_is_there(test: str) -> None:
    assert Path(ROOT / test).is_file()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import torch\ntorch._C.x", {"_C"}),
        ("import torch\ntorch.ops.aten._x()", {"_x"}),
        ("from torch import _inductor", {"_inductor"}),
        ("from torch._dynamo import config", {"_dynamo"}),
        ("class A(B):\n    def f(self): return self._theirs", {"_theirs"}),
        ("class A:\n    def f(self):\n        self._x = 1\n        return self._x", set()),
        ("import torch\n_mine = 1\ntorch._mine", {"_mine"}),
        ("getattr(module, '_hidden')", {"_hidden"}),
        ("from spacer.data import build\nbuild.__name__", set()),
    ],
)
def test_what_counts_as_private_and_foreign(code: str, expected: set[str]) -> None:
    tree = ast.parse(code)
    assert {name for name, _ in foreign(tree, set(own_names(tree)))} == expected
