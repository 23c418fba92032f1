"""Fits the noise or survives it? Policy margins of clean and of wrongly labelled training pairs, at the last step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.headline import figure_cells
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Table, estimated
from harness.report.render.figures import RIGHT, WRONG, Picture, small_multiples
from harness.report.render.text import ascii_visible, interval, number
from harness.report.sections.row import Section

BINS = 30


def densities(data: ReportData) -> Content | None:
    """Margins in the direction of the observed label, in the noisiest condition of the headline's setting."""
    condition = data.noisiest
    if condition is None:
        return None
    cells, note = figure_cells(condition, data.baseline)
    cells = [cell for cell in cells if cell.has_wrong_labels]
    if not cells:
        return None
    return Content(
        "Does it learn the labels or the noise?",
        "Margins point to the label the optimiser saw. A wrongly labelled pair right of the line is ranked as its wrong"
        " label says; an objective that resists the noise leaves the orange curve on the left.",
        (_picture(condition, cells, note), _table(data, condition, cells)),
    )


def _margins(cell: Cell, wrong: bool) -> np.ndarray[Any, Any]:
    """Margins of the wrongly or of the rightly labelled probe pairs over all seeds."""
    probes = [facts.probe for _, facts in cell.recorded if facts.probe is not None]
    return np.concatenate([probe.margin[probe.wrong == wrong] for probe in probes])


def _picture(condition: Condition, cells: Sequence[Cell], note: str) -> Picture:
    every = np.concatenate([_margins(cell, wrong) for cell in cells for wrong in (False, True)])
    limit = float(np.quantile(np.abs(every), 0.99))
    edges = np.linspace(-limit, limit, BINS + 1)

    def paint(panel: Any, cell: Cell) -> None:
        right, wrong = (np.clip(_margins(cell, wrong), -limit, limit) for wrong in (False, True))
        panel.hist(right, edges, density=True, color=RIGHT, alpha=0.35, label="rightly labelled")
        panel.hist(wrong, edges, density=True, histtype="step", color=WRONG, linewidth=1.6, label="wrongly labelled")
        panel.axvline(0, color="#555555", linewidth=0.8)
        panel.set_title(ascii_visible(cell.panel_title), fontsize=9)
        panel.set_yticks([])

    return small_multiples(
        "densities",
        "Margins of rightly and wrongly labelled training pairs",
        f"Condition: {condition.title}, training probe pairs of all seeds at the last step. Right of the line the"
        f" policy prefers what the label says. The baseline at its betas, the others at their worst.{note}",
        "Small multiples: density of policy margins for rightly and for wrongly labelled training pairs.",
        cells,
        paint,
        (2.35, 1.8),
        (0.2, 0.6),
        xlabel="margin towards the\nobserved label (nats)",
        ylabel="density",
        legend_columns=2,
        sharex=True,
    )


def _table(data: ReportData, condition: Condition, cells: Sequence[Cell]) -> Table:
    rows = []
    for cell in cells:
        share = cell.memorised()
        followed = " ".join(filter(None, [number(share.mean), interval(share.low, share.high)]))
        before = [f.probe.reference for _, f in cell.recorded if f.probe is not None and f.probe.wrong.any()]
        rows.append((data.head(cell), Field(followed), Field(number(float(np.mean(before)))), estimated(cell.ranking)))
    return Table(
        f"Memorised noise, {condition.title}",
        ("Objective and beta", "wrong labels followed", "by the reference already", "clean pairs ranked right"),
        tuple(rows),
        "Wrongly labelled training probe pairs that the policy ranks as their wrong label says, 95 % intervals over"
        " seeds; only what goes beyond the reference's own share was memorised in training.",
    )


ROWS = (Section("densities", "Memorised noise", densities),)
