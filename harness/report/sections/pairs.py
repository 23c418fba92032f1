"""Ranking accuracy by kind of pair, for the cells of the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.render.blocks import Field, Section, Table
from harness.report.render.text import DASH, number, quantity, shorten


def pairs(m: Material) -> Section | None:
    """Which kinds of pairs are ranked wrong."""
    cells = [cell for cell in m.sampled if cell.recorded]
    names = sorted({name for cell in cells for groups in _groups(cell) for name in groups})
    if len(names) < 2:
        return None
    rows = tuple(
        (Field(cell.named, mark=m.looks[cell.first.objective].colour), *(_field(cell, name) for name in names))
        for cell in cells
    )
    header = ("Objective and beta", *(shorten(name, 60) for name in names))
    table = Table(f"Held-out pairs ranked right by kind, {m.headline.title}", header, rows, "Means over seeds.")
    return Section("Which pairs are ranked wrong?", "", (table,))


def _groups(cell: Cell) -> list[Mapping[str, tuple[int, float]]]:
    return [facts.groups for _, facts in cell.recorded]


def _field(cell: Cell, name: str) -> Field:
    found = [groups[name] for groups in _groups(cell) if name in groups]
    if not found:
        return Field(DASH)
    count = sum(n for n, _ in found)
    return Field(number(math.fsum(share for _, share in found) / len(found)), quantity(count, "pair"))
