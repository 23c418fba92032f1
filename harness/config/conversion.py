"""The options of `harness corrupt`, checked: how a set of pairs is read, and the parameters of the corruption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config.data_section import data_axes
from harness.config.overrides import apply_overrides
from harness.config.strict_yaml import Node, plain
from harness.types import DataSpec, InputError

# Keys of a spec's `data` that say how rows are read; the others are of training.
READING = ("format", "sha256", "limit", "on_bad_row", "split", "columns", "pairs", "pairs_per_prompt", "slices")


def load_conversion(data: Path, overrides: Sequence[str]) -> tuple[DataSpec, dict[str, Any]]:
    """How the rows of `data` are read, and the parameters of the kind. Raises InputError, one line for each mistake."""
    path = Node(str(data.absolute()), "--data")
    root, problems = apply_overrides(Node({"data": Node({"path": path}, "--data")}, "--data"), overrides)
    assert isinstance(root.value, dict)
    section = root.value["data"]
    keys = section.value if isinstance(section.value, dict) else {}
    if keys.get("path") is not path:
        problems.append("--set data: give the file with --data")
    problems += [
        f"--set data.{name}: does not change what is written" for name in keys if name not in ("path", *READING)
    ]
    params = {name: plain(node) for name, node in root.value.items() if name != "data"}
    problems += [f"--set {name}: give it as --{name}" for name in ("kind", "rate", "seed") if name in params]
    if problems:
        raise InputError(*problems)
    axes = data_axes(section, "", Path.cwd(), {}, problems)
    problems += [f"--set data.{name}: a list; expected one value" for name, values in axes.items() if len(values) > 1]
    if problems:
        raise InputError(*problems)
    return DataSpec(**{name: values[0] for name, values in axes.items()}), params


def load_reading(data: Path, overrides: Sequence[str]) -> DataSpec:
    """How the rows of `data` are read, where nothing else may be given. Raises InputError."""
    spec, params = load_conversion(data, overrides)
    if params:
        raise InputError(*(f"--set {name}: expected a key of data, such as data.format" for name in params))
    return spec
