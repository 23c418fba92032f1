"""Generates docs/api.md from docstrings: `python -m tests.api_page`."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import harness
from harness import api
from harness.corruptions.row import Corruption
from harness.data.export_pairs import Written
from harness.frames import Frames
from harness.metrics.row import Metric
from harness.objectives.row import Objective
from tests.readme import meanings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
HEAD = """# Python API

Every name that `from harness import ...` offers, with what it takes and returns. `python -m tests.api_page` generates
this page from the docstrings. How the functions work together: [python.md](python.md); tables for pandas:
[notebooks.md](notebooks.md); the callback for TRL trainers: [trl-callback.md](trl-callback.md). What stands here stays
stable; everything else may move.
"""
REGISTRIES = {"OBJECTIVES": Objective, "CORRUPTIONS": Corruption, "METRICS": Metric}
RESULTS = (
    api.Plan, api.Outcome, api.Status, api.Report, api.Figure, api.Comparison, api.Published, api.Diagnosed, Written,
    Frames,
)  # fmt: skip


def page() -> str:
    """docs/api.md."""
    public = {name: getattr(harness, name) for name in harness.__all__}
    functions = {name: value for name, value in public.items() if inspect.isfunction(value)}
    types = {name: value for name, value in public.items() if inspect.isclass(value)}
    assert {*functions, *types, *REGISTRIES} == set(public)
    parts = [HEAD, "## Functions\n"]
    parts += [_section(f"harness.{name}", _call(name, value), value) for name, value in functions.items()]
    parts.append("## What they return\n")
    parts += [_section(value.__name__, "", value) + _members(value) for value in RESULTS]
    parts.append(
        "## Registries\n\nMappings from name to row. The rows of installed [plug-ins](plugins.md) are among them.\n"
    )
    parts += [
        _section(f"harness.{name}", f"{name}: Mapping[str, {row.__name__}]", row) + _members(row)
        for name, row in REGISTRIES.items()
    ]
    parts.append("## Types\n")
    parts += [_section(f"harness.{name}", "", value) + _members(value) for name, value in types.items()]
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, signature: str, value: Any) -> str:
    code = f"```python\n{signature}\n```\n\n" if signature else ""
    return f"### {title}\n\n{code}{_doc(value)}\n"


def _doc(value: Any) -> str:
    """A docstring as paragraphs of Markdown; lines of one paragraph are joined."""
    text = inspect.getdoc(value)
    assert text, f"{value} has no docstring"
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _call(name: str, function: Any, longest: float = 110) -> str:
    """The signature, one parameter per line where it is longer than `longest`."""
    signature = inspect.signature(function)
    parts = []
    for parameter in signature.parameters.values():
        body, equals, default = str(parameter.replace(annotation=inspect.Parameter.empty)).partition("=")
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        if body != "self":
            parts.append(f"{body}: {parameter.annotation}{f' = {default}' if equals else ''}")
    end = f" -> {signature.return_annotation}"
    line = f"{name}({', '.join(parts)}){end}"
    return line if len(line) <= longest else "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){end}"])


def _members(kind: type[Any]) -> str:
    """Fields, properties and methods, a line each; empty where there are none."""
    lines = [f"- `{name}`{f': {text}' if text else ''}" for name, text in _described(kind)]
    return "\n".join(["", *lines, ""]) if lines else ""


def _described(kind: type[Any]) -> Iterator[tuple[str, str]]:
    notes = meanings(kind)
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        if not field.name.startswith("_"):
            yield f"{field.name}: {field.type}", notes.get(field.name, "")
    for name, value in vars(kind).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            yield _call(name, value, math.inf), _doc(value).split("\n\n")[0]
        elif isinstance(value, property | cached_property):
            yield name, _doc(value).split("\n\n")[0]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
