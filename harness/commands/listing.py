"""The registries as rows for `harness list`. Imports no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from harness.plugins import Registry, short
from harness.types import Parameter

BUILT_IN = "built in"


def listing(what: str) -> list[dict[str, Any]]:
    """Rows of one registry as plain data, each with its origin; internal rows left out."""
    registry, rows = _registry(what)
    return [{**row, "origin": short(registry.plugin(row["name"])) or BUILT_IN} for row in rows]


def problems(what: str) -> tuple[str, ...]:
    """What plug-ins offer and the listing leaves out, a line each."""
    return _registry(what)[0].problems


def _registry(what: str) -> tuple[Registry[Any], list[dict[str, Any]]]:
    if what == "objectives":
        from harness.objectives.registry import OBJECTIVES

        return OBJECTIVES, [
            {
                "name": row.name,
                "family": row.family,
                "reduction": row.reduction,
                "needs_reference": row.needs_reference,
                "beta": _beta(row.hyperparameters),
                "parameters": _parameters(row.hyperparameters),
                "presets": {name: {**preset.values, "source": preset.source} for name, preset in row.presets.items()},
                "summary": row.summary,
                "citation": row.citation,
            }
            for row in OBJECTIVES.values()
            if row.tier != "internal"
        ]
    if what == "corruptions":
        from harness.corruptions.registry import CORRUPTIONS

        return CORRUPTIONS, [
            {
                "name": row.name,
                "rate": row.rate,
                "changes": row.changes,
                "needs": list(row.needs_of({})),
                "parameters": _parameters(row.parameters),
                "summary": row.summary,
                "citation": row.citation,
            }
            for row in CORRUPTIONS.values()
        ]
    if what == "metrics":
        from harness.metrics import METRICS

        rows = [{"name": name, "direction": row.direction, "summary": row.summary} for name, row in METRICS.items()]
        return METRICS, rows
    if what == "formats":
        from harness.data.formats.registry import FORMATS

        return FORMATS, [{"name": name, "summary": form.doc} for name, form in FORMATS.items()]
    from harness.report.sections.registry import SECTIONS

    return SECTIONS, [{"name": name, "summary": row.short} for name, row in SECTIONS.items()]


def table(rows: Sequence[Mapping[str, Any]], width: int) -> str:
    """Rows as text of `width` columns: name, kind of row, what it does and, where not built in, its origin."""
    heads = [*(["reads", "beta"] if rows and "beta" in rows[0] else []), "what it does"]
    plain = [
        (row["name"], *((_kind(row), row["beta"]) if "beta" in row else ()), row["summary"] + _origin(row))
        for row in rows
    ]
    sizes = [max(len(cell) for cell in column) + 2 for column in zip(("name", *heads), *plain, strict=True)][:-1]
    lines = []
    for *cells, text in [("name", *heads), *plain]:
        start = "".join(f"{cell:<{size}}" for cell, size in zip(cells, sizes, strict=True))
        wrapped = textwrap.wrap(text, max(width - len(start), 30), break_on_hyphens=False)
        lines += [start + wrapped[0], *(" " * len(start) + line for line in wrapped[1:])]
    return "\n".join(lines)


def details(row: Mapping[str, Any], width: int) -> str:
    """One row in full: what it does, its source, and each parameter with default, allowed values and meaning."""
    lines = [row["name"], *textwrap.wrap(row["summary"] + _origin(row), width)]
    if row.get("citation"):
        lines += textwrap.wrap(f"source: {row['citation']}", width)
    for name, parameter in row.get("parameters", {}).items():
        allowed = parameter["allowed"]
        among = " | ".join(map(str, allowed)) if isinstance(allowed, list) else allowed
        head = f"  {name}: {written(parameter['default'])}" + (f"  ({among})" if among else "")
        text = parameter["doc"] + (f" ({parameter['source']})" if parameter["source"] else "")
        lines += [head, *textwrap.wrap(text, width - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    for name, preset in row.get("presets", {}).items():
        values = ", ".join(f"{key} {written(value)}" for key, value in preset.items() if key != "source")
        text = f"preset {name}: {values or 'the defaults'} ({preset['source']})"
        lines += textwrap.wrap(text, width, subsequent_indent=" " * 6, initial_indent="  ")
    return "\n".join(lines)


def _kind(row: Mapping[str, Any]) -> str:
    return f"{row['family']}{', reference' if row['needs_reference'] else ''}"


def _origin(row: Mapping[str, Any]) -> str:
    return f" ({row['origin']})" if row["origin"] != BUILT_IN else ""


def written(value: Any) -> str:
    """A default as a spec writes it, in YAML's flow style: `null`, `true`, `[{name: dpo, weight: 1}]`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(written(_component(part)) for part in value) + "]"
    return str(value)


def _component(part: Any) -> Any:
    """A component of a mixture, held as (name, weight, hyperparameters), as the mapping that a spec writes."""
    if isinstance(part, tuple) and len(part) == 3:
        name, weight, hyperparameters = part
        return {"name": name, "weight": weight, **dict(hyperparameters)}
    return part


def markdown(what: str) -> str:
    """A registry as a Markdown table, for docs/reference.md."""
    rows = listing(what)
    if what == "objectives":
        head = ("objective", "family", "reference", "beta searched", "what it optimises", "source")
        cells = [
            (
                f"`{row['name']}`",
                f"{row['family']}, {row['reduction']}",
                "yes" if row["needs_reference"] else "no",
                row["beta"],
                row["summary"],
                row["citation"],
            )
            for row in rows
        ]
    else:
        head = ("corruption", "rate", "changes", "needs", "what it does", "source (arXiv)")
        cells = [
            (
                f"`{row['name']}`",
                row["rate"],
                row["changes"],
                ", ".join(row["needs"]) or "-",
                row["summary"],
                row["citation"],
            )
            for row in rows
        ]
    table_rows = [head, ("---",) * len(head), *cells]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in table_rows)


def _beta(parameters: Mapping[str, Parameter]) -> str:
    """The range of beta a search looks in, or `-` for a row without one."""
    beta = parameters.get("beta")
    if beta is None:
        return "-"
    return f"{beta.search[0]:g} to {beta.search[1]:g}" if beta.search else f"{beta.default:g}"


def _parameters(parameters: Mapping[str, Parameter]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "default": p.default,
            "kind": p.kind,
            "allowed": list(p.choices) if p.kind == "choice" else p.interval() if p.kind in ("float", "int") else "",
            "doc": p.doc,
            "source": p.source,
        }
        for name, p in parameters.items()
    }
