"""The registries as rows for `harness list`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.types import Parameter


def listing(what: str) -> list[dict[str, Any]]:
    """Rows of one registry (objectives, corruptions or metrics) as plain data, internal rows left out."""
    if what == "objectives":
        from harness.objectives.table import OBJECTIVES

        return [
            {
                "name": row.name,
                "family": row.family,
                "reduction": row.reduction,
                "needs_reference": row.needs_reference,
                "parameters": _parameters(row.hyperparameters),
                "summary": row.summary,
                "citation": row.citation,
            }
            for row in OBJECTIVES.values()
            if row.tier != "internal"
        ]
    if what == "corruptions":
        from harness.data.corrupt.table import CORRUPTIONS

        return [
            {
                "name": row.name,
                "rate": row.rate,
                "changes": row.changes,
                "needs": list(row.needs),
                "parameters": _parameters(row.parameters),
                "summary": row.summary,
            }
            for row in CORRUPTIONS.values()
        ]
    from harness.measure import METRICS

    return [{"name": name, "direction": row.direction, "summary": row.summary} for name, row in METRICS.items()]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as text: name, parameters with their defaults, and what it is."""
    width = max((len(row["name"]) for row in rows), default=0) + 2
    lines = []
    for row in rows:
        knobs = ", ".join(f"{name}={p['default']}" for name, p in row.get("parameters", {}).items())
        lines.append(f"{row['name']:<{width}}{row['summary']}{f'  [{knobs}]' if knobs else ''}")
    return "\n".join(lines)


def _parameters(parameters: Mapping[str, Parameter]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "default": p.default,
            "kind": p.kind,
            "allowed": list(p.choices) if p.kind == "choice" else p.interval() if p.kind in ("float", "int") else "",
            "doc": p.doc,
        }
        for name, p in parameters.items()
    }
