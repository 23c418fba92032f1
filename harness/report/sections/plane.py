"""Where the pairs sit: the plane of reference margin and policy margin, and the share in each zone over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.report.data.cells import Cell
from harness.report.data.headline import figure_cells
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content
from harness.report.render.figures import RIGHT, SHADE, WRONG, Picture, log_steps, picture, shape_of, shared_legend
from harness.report.render.text import ascii_visible
from harness.report.sections.row import Section

LEGEND = 4.8  # inches that the legend needs, whatever the panels do
POINTS = 100  # per panel of the plane; more overplots without telling more
# From the bottom of the stack to its top; pairs stuck wrong in the colour of their crosses.
ZONES = (
    ("zone_z1", "right, improved", "#7FB6DB"),
    ("zone_z2", "right, not improved", "#CFE3F2"),
    ("undesirable_zone", "stuck wrong: improved, still wrong", WRONG),
    ("zone_z4", "wrong, not improved", "#BBBBBB"),
)


def plane(data: ReportData) -> Content | None:
    """Scatter panels with the zone of pairs stuck wrong shaded, each above its zones' occupancy over steps."""
    cells, note = figure_cells(data.headline, data.baseline)
    return Content(
        "Where do the pairs sit?",
        "A pair in the shaded zone is stuck wrong: its margin is better than under the reference, so its loss is lower,"
        " and it is still ranked wrong. The paper calls this the undesirable zone.",
        (_picture(data, cells, note),),
    ) if cells else None  # fmt: skip


def _picture(data: ReportData, cells: Sequence[Cell], note: str) -> Picture:
    limit = float(np.ceil(np.quantile(np.abs(np.concatenate([_points(cell) for cell in cells], axis=1)), 0.995)))
    rows, columns = shape_of(len(cells))

    def paint(figure: Any, axes: Any) -> None:
        for panel in axes.flat:
            panel.set_axis_off()
        for i, cell in enumerate(cells):
            row, column = divmod(i, columns)
            top, bottom = axes[2 * row, column], axes[2 * row + 1, column]
            for panel in (top, bottom):
                panel.set_axis_on()
            _plane_panel(top, cell, limit)
            top.set_title(ascii_visible(cell.panel_title).replace(", beta", "\nbeta"), fontsize=8.5)
            _occupancy(bottom, cell)
            if column == 0:
                top.set_ylabel("policy margin (nats)")
                bottom.set_ylabel("share of pairs")
        shared_legend(figure, axes, "outside lower center", 2)

    return picture(
        "plane",
        "Reference margin, policy margin and zones",
        f"Condition: {data.headline.title}. Upper panels: each dot is a held-out pair at the last step, the reference's"
        f" margin (nats) horizontal, the policy's vertical (at most {POINTS} pairs); orange crosses sit in the shaded"
        " zone, stuck wrong; above the horizontal line the pair is ranked right. Lower panels: share of pairs in each"
        f" zone over training steps. The baseline at its betas, the others at their worst.{note}",
        "Scatter panels of policy margin against reference margin, each above the zones' occupancy over steps.",
        (2 * rows, columns),
        (max(2.25 * columns + 0.3, LEGEND), 4.0 * rows + 0.6),
        paint,
        height_ratios=[1.75, 1] * rows,
    )


def _points(cell: Cell) -> NDArray[np.float32]:
    """(2, n) reference and policy margins, spread evenly over seeds and over the order of the ids."""
    facts = [facts for _, facts in cell.recorded]
    share = -(-POINTS // len(facts))
    return np.concatenate([np.stack([f.delta_ref[:share], f.delta[:share]]) for f in facts], axis=1)


def _plane_panel(panel: Any, cell: Cell, limit: float) -> None:
    reference, policy = _points(cell)
    zone = (policy < 0) & (policy > reference)
    panel.fill([-limit, 0, -limit], [-limit, 0, 0], color=SHADE, linewidth=0)
    panel.axhline(0, color="#555555", linewidth=0.7)
    panel.plot([-limit, limit], [-limit, limit], color="#555555", linewidth=0.7, linestyle=":")
    # As one image a panel: hundreds of vector marks would make the page heavy and say no more.
    style = {"linestyle": "none", "rasterized": True}
    panel.plot(reference[~zone], policy[~zone], marker=".", markersize=3, color=RIGHT, **style)
    panel.plot(reference[zone], policy[zone], marker="x", markersize=3, color=WRONG, markeredgewidth=0.8, **style)
    panel.set_xlim(-limit, limit)
    panel.set_ylim(-limit, limit)
    panel.set_aspect("equal")
    panel.tick_params(labelsize=7.5)


def _occupancy(panel: Any, cell: Cell) -> None:
    by_zone = [cell.over_steps("heldout", name) for name, _, _ in ZONES]
    steps = list(by_zone[0])
    shares = [[value.mean for value in by_step.values()] for by_step in by_zone]
    if len(steps) > 1:  # best-of-n has no training to follow
        colours, labels = [colour for _, _, colour in ZONES], [label for _, label, _ in ZONES]
        panel.stackplot(steps, *shares, colors=colours, labels=labels, linewidth=0.4, edgecolor="white")
        log_steps(panel, steps)
        panel.set_xlim(steps[0], steps[-1])
    panel.set_ylim(0, 1)
    panel.set_yticks([0, 1])
    panel.tick_params(labelsize=7.5)


ROWS = (Section("plane", "Plane and zones", plane),)
