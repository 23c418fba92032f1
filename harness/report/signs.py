"""The divergence types of a cell, counted over its seeds: D1 satisfied too early, D2 reversal, D3 memorised noise."""

from __future__ import annotations

from harness.report.cells import Cell

NAMES = {"D1": "premature satisfaction", "D2": "reversal", "D3": "memorised noise"}


def signs(cell: Cell) -> dict[str, int]:
    """Number of recorded runs that show each type, types without any left out."""
    counts = {kind: sum(kind in facts.types for _, facts in cell.recorded) for kind in NAMES}
    return {kind: count for kind, count in counts.items() if count}


def signs_text(cell: Cell) -> str:
    """`premature satisfaction, D1, in 4 of 4 seeds; `, or nothing."""
    total = len(cell.recorded)
    return "".join(f"{NAMES[kind]}, {kind}, in {count} of {total} seeds; " for kind, count in signs(cell).items())


def signs_short(cell: Cell) -> str:
    """`D1 4/4, D3 1/4`, or nothing."""
    total = len(cell.recorded)
    return ", ".join(f"{kind} {count}/{total}" for kind, count in signs(cell).items())
