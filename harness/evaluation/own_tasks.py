"""lm-eval tasks of a user's own: which a folder of YAML files defines, and which of them are code.

A task's YAML can name Python (`!function utils.score`, `class`), and a template can reach Python through attributes
such as `__class__`. Such a task runs only where the user trusts it. Imports neither lm_eval nor torch.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.identity import content_hash, file_sha256
from harness.types import InputError

IGNORED = {"__pycache__", ".ipynb_checkpoints"}  # by lm-eval, too


@dataclass(frozen=True)
class OwnTasks:
    """The tasks of a folder. `members`: task, group or tag -> the tasks it stands for, itself for a task.

    `code`: task -> what in its files would run code. `digests`: task -> hash of its files and local data, so that a
    result is not taken for one of an earlier state.
    """

    folder: Path | None = None
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


NO_TASKS = OwnTasks()


@dataclass(frozen=True)
class _File:
    """One YAML with its includes merged, as lm-eval merges them, and what in them is code."""

    path: Path
    config: Mapping[str, Any]
    sources: tuple[Path, ...]
    code: str


class _Function(str):
    """The argument of a `!function` tag."""


def own_tasks(folder: Path | None, key: str) -> OwnTasks:
    """The tasks of the YAML files below `folder`; none for None. `key` is where the folder was given.

    Raises InputError for a folder that is not there or defines no task, for files that cannot be read and for a name
    that two files define.
    """
    if folder is None:
        return NO_TASKS
    if not folder.is_dir():
        raise InputError(f"{key}: {folder} is no folder; expected one with lm-eval tasks as YAML files")
    files = [_read(path, ()) for path in sorted(folder.rglob("*.yaml")) if not IGNORED & set(path.parts)]
    named: dict[str, _File] = {}
    groups: dict[str, list[str]] = {}
    for file in files:
        is_group = "group" in file.config
        name = file.config.get("group" if is_group else "task")
        if not isinstance(name, str):
            continue  # a file that others include
        if name in named:
            raise InputError(f"{key}: '{name}' is defined in {named[name].path} and in {file.path}; keep one")
        named[name] = file
        if is_group:
            groups[name] = _children(file)
        for tag in _texts(file.config.get("tag")):
            groups.setdefault(tag, []).append(name)
    if not named:
        raise InputError(f"{key}: no lm-eval task in {folder}; expected a YAML file with `task: NAME`")
    members = {name: tuple(dict.fromkeys(_leaves(name, groups, ()))) for name in [*named, *groups]}
    code = {
        name: reason
        for name, leaves in members.items()
        if (reason := next((named[one].code for one in (name, *leaves) if one in named and named[one].code), ""))
    }
    digests = {name: _digest(file) for name, file in named.items()}
    return OwnTasks(folder.resolve(), members, code, digests)


def _children(file: _File) -> list[str]:
    """The names in a group's list; a member with settings of its own has no name that could be asked for again."""
    children = file.config.get("task") or []
    if not isinstance(children, list) or not all(isinstance(child, str) for child in children):
        raise InputError(f"{file.path}: task: expected a list of names of tasks; give each task a file of its own")
    return list(children)


def _leaves(name: str, groups: Mapping[str, Sequence[str]], above: tuple[str, ...]) -> Iterator[str]:
    if name in above:
        raise InputError(f"lm-eval group '{name}' contains itself")
    if name not in groups:
        yield name
    for child in groups.get(name, ()):
        yield from _leaves(child, groups, (*above, name))


def _read(path: Path, above: tuple[Path, ...]) -> _File:
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe YAML in which a function is only its name."""

    Loader.add_constructor("!function", lambda _, node: _Function(node.value))
    if path in above:
        raise InputError(f"{path}: include: it includes itself")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:160]})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a mapping with `task: NAME`")
    included = [_read(path.parent / name, (*above, path)) for name in _texts(config.pop("include", None))]
    merged: dict[str, Any] = {}
    for file in included:
        merged |= file.config
    code = next((file.code for file in included if file.code), "") or _code(path, config)
    return _File(path, merged | config, (path, *(source for file in included for source in file.sources)), code)


def _code(path: Path, config: Mapping[str, Any]) -> str:
    """What in one file would run code, with its place; empty: nothing."""
    if "class" in config:
        return f"{path.name}: class"
    if config.get("unsafe_code") or (config.get("dataset_kwargs") or {}).get("trust_remote_code"):
        return f"{path.name}: it asks for unsafe code"
    for key, value in _values(config, ""):
        if isinstance(value, _Function):
            return f"{path.name}: {key}: !function {value}"
        if isinstance(value, str) and "__" in value and ("{{" in value or "{%" in value):
            return f"{path.name}: {key}: a template with `__`"
    return ""


def _values(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield key, value
    for name, child in children:
        yield from _values(child, f"{key}.{name}" if key else str(name))


def _digest(file: _File) -> str:
    """Hash of a task's YAML, the Python beside it and its local data."""
    beside = [path for source in file.sources for path in source.parent.glob("*.py")]
    given = (file.config.get("dataset_kwargs") or {}).get("data_files") or {}
    patterns = [value for _, value in _values(given, "") if isinstance(value, str)]
    data = [Path(found) for pattern in patterns for found in glob.glob(pattern)]  # noqa: PTH207  (absolute ones, too)
    paths = sorted({path.resolve() for path in (*file.sources, *beside, *data) if path.is_file()})
    return content_hash([file_sha256(path) for path in paths])[:12]


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value or ()]
