"""Writes what the documentation says about the registries and the spec, from them: `python -m tests.readme`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.data.corrupt.table import CORRUPTIONS
from harness.listing import markdown
from harness.objectives.table import OBJECTIVES
from harness.spec_models import FIELDS, SECTIONS, VARIANTS, expected
from harness.types import Parameter

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference.md"
HEAD = """# Reference

Every key of a spec's sections and every parameter of an objective or a corruption, with default and allowed values.
Written by `python -m tests.readme` from the code that checks specs; how they play together: [specs.md](specs.md). A
list in place of a value is an axis.
"""

TITLES = {"path_model": "`model` with a `path`"}
KINDS = SECTIONS | VARIANTS


def rendered(text: str) -> str:
    """The README with its tables made anew."""
    for what in ("objectives", "corruptions"):
        pattern = rf"(<!-- {what}:[^\n]*-->\n).*?(<!-- /{what} -->)"
        text = re.sub(pattern, lambda m, what=what: f"{m[1]}{markdown(what)}\n{m[2]}", text, flags=re.DOTALL)
    return text


def reference() -> str:
    """docs/reference.md."""
    parts = [HEAD]
    for section, kind in KINDS.items():
        intro = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        head = f"## {TITLES.get(section, f'`{section}`')}\n\n{intro}\n\n"
        parts.append(head + _table(("key", "default", "accepts", "meaning"), _keys(section)) + "\n")
    for title, rows in (("Objectives", OBJECTIVES), ("Corruptions", CORRUPTIONS)):
        parts.append(f"## {title}\n\n{_table(('name', 'parameter', 'default', 'accepts', 'meaning'), _knobs(rows))}\n")
    return "\n".join(parts)


def _keys(section: str) -> Iterator[Sequence[str]]:
    kind = KINDS[section]
    notes = dict(re.findall(r"^    (\w+): [^\n#]*#\s*(.+)$", inspect.getsource(kind), re.MULTILINE))
    for field in dataclasses.fields(kind):
        if field.name in FIELDS[section]:
            yield (
                f"`{field.name}`",
                _value(field.default),
                expected(FIELDS[section][field.name]),
                notes.get(field.name, ""),
            )


def _knobs(rows: object) -> Iterator[Sequence[str]]:
    for name, row in rows.items():  # type: ignore[attr-defined]
        if getattr(row, "tier", "") == "internal":
            continue
        parameters: dict[str, Parameter] = getattr(row, "hyperparameters", None) or getattr(row, "parameters", {})
        for key, parameter in parameters.items():
            accepted = expected(parameter) if parameter.kind in ("float", "int", "choice", "bool", "text") else ""
            yield f"`{name}`", f"`{key}`", _value(parameter.default), accepted, parameter.doc


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value in (None, "") or value is dataclasses.MISSING else str(value)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
    REFERENCE.write_text(reference(), encoding="utf-8")
