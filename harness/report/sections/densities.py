"""Fits the noise or survives it? Policy margins of clean and of wrongly labelled training pairs, at the last step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.context import Material
from harness.report.data.series import telling_cells
from harness.report.render.blocks import Field, Section, Table
from harness.report.render.figures import RIGHT, WRONG, Picture, panels, picture, shape_of
from harness.report.render.text import DASH, ascii_visible, interval, number, plain, shown
from harness.report.sections.robustness import MEASURE

BINS = 30


def densities(m: Material) -> Section | None:
    """Margins in the direction of the observed label, in the noisiest condition of the headline's setting."""
    condition = noisiest(m)
    if condition is None:
        return None
    cells, note = telling_cells(condition, m.baseline)
    cells = [cell for cell in cells if _margins(cell) is not None]
    if not cells:
        return None
    return Section(
        "Does it learn the labels or the noise?",
        "Margins point to the label the optimiser saw. A wrongly labelled pair right of the line is ranked as its wrong"
        " label says; an objective that resists the noise leaves the orange curve on the left.",
        (_picture(condition, cells, note), _table(m, condition, cells)),
    )


def noisiest(m: Material) -> Condition | None:
    """The headline where its labels are corrupted, else the condition of its setting with the most wrong labels.

    None where no such condition left records.
    """
    found = [c for c in m.family.conditions if not c.clean and any(_margins(cell) is not None for cell in c.cells)]
    return m.headline if m.headline in found else max(found, key=_wrong_share, default=None)


def _wrong_share(condition: Condition) -> float:
    shares = [f.probe.wrong.mean() for cell in condition.cells for _, f in cell.recorded if f.probe is not None]
    return float(np.mean(shares)) if shares else 0.0


def _margins(cell: Cell) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Margins of rightly and wrongly labelled pairs over all seeds; None unless there are both."""
    probes = [facts.probe for _, facts in cell.recorded if facts.probe is not None]
    if not any(probe.wrong.any() for probe in probes):
        return None
    return (
        np.concatenate([probe.margin[~probe.wrong] for probe in probes]),
        np.concatenate([probe.margin[probe.wrong] for probe in probes]),
    )


def _picture(condition: Condition, cells: Sequence[Cell], note: str) -> Picture:
    rows, columns = shape_of(len(cells))
    both = {id(cell): _margins(cell) for cell in cells}
    everything = np.concatenate([part for pair in both.values() if pair for part in pair])
    limit = float(np.quantile(np.abs(everything), 0.99))
    edges = np.linspace(-limit, limit, BINS + 1)

    def paint(figure: Any, axes: Any) -> None:
        for panel, cell in zip(panels(axes, len(cells)), cells, strict=True):
            pair = both[id(cell)]
            assert pair is not None
            right, wrong = (np.clip(part, -limit, limit) for part in pair)
            panel.hist(right, edges, density=True, color=RIGHT, alpha=0.35, label="rightly labelled")
            panel.hist(
                wrong, edges, density=True, histtype="step", color=WRONG, linewidth=1.6, label="wrongly labelled"
            )
            panel.axvline(0, color="#555555", linewidth=0.8)
            beta = "" if cell.first.beta is None else f", beta {plain(cell.first.beta)}"
            panel.set_title(ascii_visible(cell.first.objective) + beta, fontsize=9)
            panel.set_yticks([])
        for row in axes:
            row[0].set_ylabel("density")
        for panel in axes[-1]:
            panel.set_xlabel("margin towards the\nobserved label (nats)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)

    return picture(
        "densities",
        "Margins of rightly and wrongly labelled training pairs",
        f"Condition: {condition.title}, training probe pairs of all seeds at the last step. Right of the line the"
        f" policy prefers what the label says. The baseline at its betas, the others at their worst.{note}",
        "Small multiples: density of policy margins for rightly and for wrongly labelled training pairs.",
        (rows, columns),
        (2.35 * columns + 0.2, 1.8 * rows + 0.6),
        paint,
        sharex=True,
    )


def _table(m: Material, condition: Condition, cells: Sequence[Cell]) -> Table:
    rows = tuple(
        (
            Field(cell.named, mark=m.looks[cell.first.objective].colour),
            _share(cell),
            Field(number(_before(cell))),
            Field(shown(cell.estimate(MEASURE)) if cell.estimate(MEASURE).n else DASH),
        )
        for cell in cells
    )
    return Table(
        f"Memorised noise, {condition.title}",
        ("Objective and beta", "wrong labels followed", "by the reference already", "clean pairs ranked right"),
        rows,
        "Wrongly labelled training probe pairs that the policy ranks as their wrong label says, 95 % intervals over"
        " seeds; only what goes beyond the reference's own share was memorised in training.",
    )


def _before(cell: Cell) -> float:
    values = [f.probe.reference for _, f in cell.recorded if f.probe is not None and f.probe.wrong.any()]
    return float(np.mean(values)) if values else float("nan")


def _share(cell: Cell) -> Field:
    found = cell.memorised()
    return Field(" ".join(filter(None, [number(found.mean), interval(found.low, found.high)])))
