"""A page of the site for each group of `conf/`, made at build time from its YAML files and the settings classes.

MkDocs calls `on_config` and `on_files`; `pages` is what they show. A key's meaning is the comment beside its field in
the class or, failing that, beside it in a YAML file.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from spacer.config.describe import bound, members, options, sections
from spacer.config.settings import Settings
from spacer.config.settings.section import Section

ROOT = Path(__file__).resolve().parents[2]
_KEY = re.compile(r"^( *)([\w-]+):(?:\s[^#]*?)?(?:\s+# (.*))?$")


def groups() -> dict[str, list[Path]]:
    """Group → its YAML files, those of groups within it included: of `conf/`, then experiments and sweeps."""
    folders = sorted(path for path in (ROOT / "conf").iterdir() if path.is_dir())
    folders += [ROOT / "experiments", ROOT / "sweeps"]
    return {folder.name: sorted(folder.rglob("*.yaml"), key=lambda path: (path.parent, path)) for folder in folders}


def pages() -> dict[str, str]:
    """The place of each page in the site, and its Markdown."""
    found = {f"settings/{name}.md": _page(name, files) for name, files in groups().items()}
    return {"settings/index.md": _overview(), **found}


def _overview() -> str:
    listed = "\n".join(f"- [`{name}`]({name}.md)" for name in groups())
    text = (ROOT / "conf/config.yaml").read_text(encoding="utf-8")
    return (
        "# Settings\n\n"
        "A run is composed of one option from each group, and every value can be overridden: `group=option`, "
        "`group.key=value`. `python run.py --cfg job` prints the result.\n\n"
        "Defaults on these pages are those of the settings classes, which hold the published values; the option's file "
        "states what a run uses.\n\n"
        f"{listed}\n\n## Outside the groups\n\n{_table(Settings, '', _comments(text), alone=True)}\n"
        f"## The defaults\n\n```yaml\n{text.partition(chr(10) + 'hydra:')[0].strip()}\n```\n"
    )


def _page(group: str, files: list[Path]) -> str:
    """Options, settings and files of a group."""
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    comments: dict[str, str] = {}
    for text in sorted(texts.values(), key=lambda text: "defaults:" in text):  # not of what differs from these
        for key, comment in _comments(text).items():
            comments.setdefault(key.removeprefix(f"{group}."), comment)
    parts = [f"# {group}\n"]
    for folder in dict.fromkeys(path.parent for path in files):
        choice = str(folder.relative_to(ROOT)).removeprefix("conf/")
        parts.append(f"## Options of `{choice}`\n\n| `{choice}=…` | |\n| --- | --- |")
        parts += [f"| `{path.stem}` | {_cell(_head(texts[path]))} |" for path in files if path.parent == folder]
        parts.append("")
    for cls in _classes(group):
        inherited = [f"`{base.__name__}`" for base in cls.__bases__ if _is_settings(base)]
        more = f"\n\nAnd the settings of {', '.join(inherited)}." if inherited else ""
        parts.append(f"## {cls.__name__}\n\n{inspect.getdoc(cls)}{more}\n\n{_table(cls, group, comments)}")
    parts.append("## The files\n")
    for path, text in texts.items():
        block = "\n".join(f"    {line}".rstrip() for line in f"```yaml\n{text.rstrip()}\n```".splitlines())
        parts.append(f'??? note "{path.relative_to(ROOT)}"\n\n{block}\n')
    return "\n".join(parts)


def _head(text: str) -> str:
    """The comment that a file begins with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(line for line in lines if not line.startswith("@package"))


def _comments(text: str) -> dict[str, str]:
    """Dotted key → the comment beside it, whose further lines stand below it in the same column."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []  # sections that the line stands in, by their indentation
    last, column = "", -1
    for line in text.splitlines():
        if line.lstrip().startswith("# ") and line.index("#") == column:
            found[last] += " " + line.lstrip()[2:]
        elif match := _KEY.match(line):
            indent = len(match[1])
            above = [entry for entry in above if entry[0] < indent]
            above.append((indent, match[2]))
            last, column = ".".join(key for _, key in above), -1
            if match[3]:
                found[last], column = match[3], match.start(3) - 2
    return found


def _classes(group: str) -> list[type]:
    """The settings classes of a group, with those that they inherit from first."""
    found: dict[type, None] = {}
    for cls in sections(typing.get_type_hints(Settings, include_extras=True).get(group)):
        found |= {base: None for base in reversed(inspect.getmro(cls)) if _is_settings(base)}
    return list(found)


def _is_settings(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and cls is not Section


def _table(cls: type, group: str, comments: dict[str, str], alone: bool = False) -> str:
    """A row for each field of the class; `alone` leaves out those that are sections."""
    rows = list(_rows(cls, "", group, comments, alone))
    if not rows:
        return ""
    return "\n".join(["| key | type | default | |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _rows(
    cls: type, prefix: str, group: str, comments: dict[str, str], alone: bool = False, made: Any = None
) -> Iterator[str]:
    """`made` is what the section is where nothing sets it."""
    hints, beside = typing.get_type_hints(cls, include_extras=True), _field_comments(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in fields if prefix else [name for name in fields if name in inspect.get_annotations(cls)]:
        key, allowed = f"{prefix}{name}", list(options(hints[name]))
        within = sections(hints[name])
        if within and (alone or len(within) > 1):
            continue
        if len(allowed) == len(members(hints[name])) == 1:
            continue  # `kind` or `name`, of which this class is the only one
        several = sum(option is not type(None) for option, _ in allowed) > 1
        bounds = [
            f"{_type(option)} " * several + words for option, metadata in allowed for words in _bounds(option, metadata)
        ]
        said = [beside.get(name) or _choices(hints[name]) or comments.get(key, ""), *bounds]
        nullable = " or null" if any(option is type(None) for option, _ in allowed) else ""
        kind = f"a section{nullable}" if within else ", ".join(_type(option) for option, _ in allowed)
        value = _default(fields[name]) if made is None else getattr(made, name)
        default = "" if within or value is dataclasses.MISSING else _yaml(value)
        yield f"| `{key}` | {_cell(kind)} | {default} | {_cell('; '.join(filter(None, said)))} |"
        for section in within:
            given = value if isinstance(value, section) else None
            yield from _rows(section, f"{key}.", group, comments, made=given)


def _bounds(option: Any, metadata: tuple[Any, ...]) -> list[str]:
    """
    >>> from pydantic import PositiveInt
    >>> _bounds(int, ()), _bounds(tuple[PositiveInt, PositiveInt], ())
    ([], ['each must be greater than 0'])
    """
    inner = [entry for arg in typing.get_args(option) if arg is not ... for entry in options(arg)]
    each = dict.fromkeys(words for _, within in inner if (words := bound(within)))
    return [f"must be {words}" for words in filter(None, [bound(metadata)])] + [
        f"each must be {words}" for words in each
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    """What a field is where nothing sets it; MISSING for one that must be set."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _yaml(value: Any) -> str:
    """
    >>> [_yaml(value) for value in (None, True, ("a", "b"), 0.5)]
    ['`null`', '`true`', '`[a, b]`', '`0.5`']
    """
    plain = list(value) if isinstance(value, tuple) else value.value if isinstance(value, Enum) else value
    return f"`{json.dumps(plain)}`".replace('"', "")


def _field_comments(cls: type) -> dict[str, str]:
    """Field → the comment at the end of its line in the class's source, and in those that it inherits from."""
    found: dict[str, str] = {}
    for base in inspect.getmro(cls):
        if dataclasses.is_dataclass(base):
            found = _comments_in(base) | found
    return found


def _comments_in(cls: type) -> dict[str, str]:
    """Field or member of an enumeration → the comment at the end of its line in the class's source."""
    found: dict[str, str] = {}
    source = inspect.getsource(cls)
    (tree,) = ast.parse(source).body
    for node in tree.body if isinstance(tree, ast.ClassDef) else ():
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and node.end_lineno:
            rest = source.splitlines()[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
            if rest.strip().startswith("# "):
                found[target.id] = rest.strip()[2:]
    return found


def _choices(hint: Any) -> str:
    """What the members of an enumeration mean, where they are commented."""
    for option, _ in options(hint):
        if isinstance(option, type) and issubclass(option, Enum):
            return "; ".join(f"{option[name].value}: {comment}" for name, comment in _comments_in(option).items())
    return ""


def _type(hint: Any) -> str:
    """
    >>> [_type(hint) for hint in (int, tuple[str, ...], tuple[float, float], dict[str, int], type(None))]
    ['integer', 'list of text', '[number, number]', 'mapping to integer', 'null']
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and args[1:] == (...,):
        return f"list of {_type(args[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_type, args))}]"
    if origin is typing.Annotated:
        return _type(args[0])
    if origin is typing.Literal:
        return " / ".join(f"`{value}`" for value in args)
    if origin is dict:
        return f"mapping to {' or '.join(_type(option) for option, _ in options(args[1]))}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " / ".join(f"`{member.value}`" for member in hint)
    names = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint) or hint.__name__


def _cell(text: str) -> str:
    """Text that stays in a cell of a table, as it stands."""
    return re.sub(r"([|<*_])", r"\\\1", text) if "`" not in text else text.replace("|", r"\|")


def on_config(config: Any) -> Any:
    """Puts the pages behind the guide in the navigation."""
    entries: list[Any] = [{"Overview": "settings/index.md"}]
    entries += [{name: f"settings/{name}.md"} for name in groups()]
    config["nav"].insert(2, {"Settings": entries})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to the site."""
    from mkdocs.structure.files import File

    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files
