"""The divergence types of a cell, counted over its seeds: D1 premature convergence, D2 reversal, D3 memorised noise."""

from __future__ import annotations

from collections.abc import Mapping

from harness.metrics.divergence import Divergence, confirmed
from harness.report.data.cells import Cell
from harness.report.data.run_facts import Facts

NAMES = {"D1": "premature convergence", "D2": "reversal", "D3": "memorised noise"}
Types = Mapping[str, tuple[str, ...]]


def fired(facts: Mapping[str, Facts]) -> dict[str, tuple[str, ...]]:
    """The types of each run by its key: D1 by its rule, D2 and D3 where Holm over all runs confirms them."""
    tests: dict[tuple[str, str, str], Divergence] = {}
    for key, one in facts.items():
        for kind, found in (("D2", one.diagnosis.reversal), ("D3", one.diagnosis.memorisation)):
            tests |= {(key, kind, split): divergence for split, divergence in found.items()}
    sure = {(key, kind) for key, kind, _ in confirmed(tests)} if tests else set()
    types = {}
    for key, one in facts.items():
        early = any(found.last.fires() for found in one.diagnosis.premature.values())
        types[key] = (*(["D1"] if early else []), *(kind for kind in ("D2", "D3") if (key, kind) in sure))
    return types


def signs(cell: Cell, types: Types) -> dict[str, int]:
    """Number of recorded runs that show each type, types without any left out."""
    counts = {kind: sum(kind in types[run.key] for run, _ in cell.recorded) for kind in NAMES}
    return {kind: count for kind, count in counts.items() if count}


def signs_text(cell: Cell, types: Types) -> str:
    """`premature convergence, D1, in 4 of 4 seeds; `, or nothing."""
    total = len(cell.recorded)
    return "".join(f"{NAMES[kind]}, {kind}, in {n} of {total} seeds; " for kind, n in signs(cell, types).items())
