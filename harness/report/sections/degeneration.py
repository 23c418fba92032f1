"""Do free-running answers fall apart: length, answers that do not end, that repeat themselves, that say nothing.

What can be said of answers to real prompts, whose truth nobody knows; each number stands beside the reference's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness.metrics.records import Array, Columns, numbers
from harness.metrics.samples import empty, repetitive
from harness.metrics.statistics import cell_estimate, t_interval
from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.data.samples import REFERENCE, faults_of, rate, split_of
from harness.report.render.blocks import Field, Table
from harness.report.render.text import DASH, shown

# name -> (what the column is made of, the column itself, whether it is a share)
COLUMNS: Mapping[str, tuple[str, Callable[[Columns], Array], bool]] = {
    "tokens": ("length", lambda own: numbers(own, "length"), False),
    "does not end": ("ended", lambda own: 1.0 - numbers(own, "ended"), True),
    "repeats itself": ("response", lambda own: repetitive(own).astype(np.float64), True),
    "empty": ("response", lambda own: empty(own).astype(np.float64), True),
}


def degeneration(m: Material, cells: Sequence[Cell]) -> Table | None:
    """A row of rates for the reference and for each cell, with the sentinel's flags of the cell."""
    if not cells:
        return None
    rows = []
    if all(f"{REFERENCE}{needs}" in own for own in m.samples.values() for needs, _, _ in COLUMNS.values()):
        fields = [_field(m, cells[0], name, REFERENCE) for name in COLUMNS]
        rows.append((Field("reference", "before training"), *fields, Field(DASH)))
    for cell in cells:
        flags = faults_of(m.samples, cell)
        head = Field(cell.named, mark=m.looks[cell.first.objective].colour)
        rows.append((head, *(_field(m, cell, name) for name in COLUMNS), Field("; ".join(flags) or "none")))
    note = (
        "Held-out prompts, mean and 95 % interval over seeds. A flag: worse than the reference's own answers to the"
        " same prompts by a stated margin, in more than half of the runs. An answer ends with end-of-sequence within"
        " the length that was sampled."
    )
    header = ("Objective and beta", *COLUMNS, "flags")
    return Table(f"How answers are made, {m.headline.title}", header, tuple(rows), note, "stack")


def _field(m: Material, cell: Cell, name: str, prefix: str = "") -> Field:
    needs, column, share = COLUMNS[name]
    found = []
    for run in cell.runs:
        samples = m.samples.get(run.key)
        if samples is None or f"{prefix}{needs}" not in samples:
            continue
        values = column({needs: samples[f"{prefix}{needs}"]})
        one = rate({name: values}, name, split_of(samples, "eval"))
        found += [one] if one is not None else []
    if not found:
        return Field(DASH)
    shares, counts = [value for value, _ in found], [count for _, count in found]
    return Field(shown(cell_estimate(shares, counts, share=True) if share else t_interval(shares)))


def faults_in(samples: Columns, row: int) -> list[str]:
    """What is wrong with the making of one answer, in words."""
    own = {name: samples[name][row : row + 1] for name in ("response", "ended") if name in samples}
    names = ["empty"] if empty(own)[0] else []
    names += ["repeats itself"] if repetitive(own)[0] else []
    return names + (["does not end"] if "ended" in own and not bool(own["ended"][0]) else [])
