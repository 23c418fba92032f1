"""Means over seeds of what changed during training, and which cells a figure has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harness.metrics.statistics import Estimate, t_interval
from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.run_facts import Facts, Track

ROOM = 8  # panels that a reader takes in; the rest stands in the tables


def over_seeds(cell: Cell, split: str, name: str) -> dict[int, Estimate]:
    """Mean and t interval over seeds by step, at the steps that every recorded run has. `split`: heldout or train."""
    tracks = [_track(facts, split) for _, facts in cell.recorded]
    tracks = [track for track in tracks if name in track.means]
    steps = sorted(set.intersection(*(set(track.steps) for track in tracks))) if tracks else []
    found = {}
    for step in steps:
        values = [float(track.means[name][track.steps.index(step)]) for track in tracks]
        if np.isfinite(values).all():
            found[step] = t_interval(values)
    return found


def _track(facts: Facts, split: str) -> Track:
    return facts.heldout if split == "heldout" else facts.train


def means(found: Mapping[int, Estimate]) -> tuple[list[int], list[float]]:
    """Steps and means, ready to draw."""
    return list(found), [one.mean for one in found.values()]


def band(panel: object, found: Mapping[int, Estimate], colour: str) -> None:
    """The interval as a pale band; nothing where there is none."""
    bounded = {step: one for step, one in found.items() if math.isfinite(one.low)}
    if bounded:
        low, high = [one.low for one in bounded.values()], [one.high for one in bounded.values()]
        panel.fill_between(list(bounded), low, high, color=colour, alpha=0.15, linewidth=0)  # type: ignore[attr-defined]


def worst(cells: Sequence[Cell]) -> Cell | None:
    """The recorded cell with the lowest mean ranking accuracy; None where none is recorded."""
    found = [cell for cell in cells if cell.recorded and cell.estimate("ranking_accuracy").n]
    return min(found, key=lambda cell: cell.estimate("ranking_accuracy").mean, default=None)


def spaced(cells: Sequence[Cell], count: int) -> list[Cell]:
    """At most `count` of the cells (at least 2 where there are as many), the ends among them, evenly spread."""
    if len(cells) <= count:
        return list(cells)
    return [cells[round(i * (len(cells) - 1) / (count - 1))] for i in range(count)]


def telling_cells(condition: Condition, baseline: str, room: int = ROOM) -> tuple[list[Cell], str]:
    """The baseline's cells and every other objective's worst beta, in the order of the cells, with what was left out.

    Where there is no room for all, the baseline keeps its lowest and highest beta and as many between, and of the
    others those stay that rank worst and best, turn by turn.
    """
    own = [cell for cell in condition.by_objective.get(baseline, ()) if cell.recorded]
    others = [w for name, cells in condition.by_objective.items() if name != baseline and (w := worst(cells))]
    total = len(own) + len(others)
    if total > room and len(own) > 2:
        own = spaced(own, max(2, room - len(others)))
    ranked = sorted(others, key=lambda cell: cell.estimate("ranking_accuracy").mean)
    kept: list[Cell] = []
    while ranked and len(kept) < room - len(own):
        kept.append(ranked.pop(-1 if len(kept) % 2 else 0))
    shown = [*own, *(cell for cell in others if cell in kept)]
    note = f" {len(shown)} of {total} shown." if len(shown) < total else ""
    return shown, note
