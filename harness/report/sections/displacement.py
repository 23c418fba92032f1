"""Chosen log-probs fall: is it broken? How far each side moved since the reference, and what became of the ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.metrics.statistics import Estimate
from harness.report.data.cells import RANKING, Cell
from harness.report.data.headline import figure_cells
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Table, estimated, present
from harness.report.render.figures import RIGHT, WRONG, Picture, band, log_steps, small_multiples
from harness.report.render.text import ascii_visible
from harness.report.sections.row import Section

SIDES = (("chosen_displacement", "chosen", RIGHT, "-", "o"), ("rejected_displacement", "rejected", WRONG, "--", "s"))
SHOWN = ("chosen_displacement", "rejected_displacement", RANKING, "gold_reward")


def displacement(data: ReportData) -> Content | None:
    """Both sides over steps, and a table that says what to make of it."""
    cells, note = figure_cells(data.headline, data.baseline)
    finished = [cell for cell in data.headline.cells if cell.described("chosen_displacement").n]
    if not finished:
        return None
    return Content(
        "Chosen log-probs fall: is it broken?",
        "Not by itself. A falling chosen line is harmless where the rejected one falls faster and samples stay good."
        " It is broken where the ranking stays wrong, or where a third, worse answer gains"
        f" ({data.sweep.reward} falls).",
        present(
            _picture(data, cells, note) if cells else None,
            _table(data, [c for c in finished if c in cells] or finished[:8]),
        ),
    )


def _picture(data: ReportData, cells: Sequence[Cell], note: str) -> Picture:
    def paint(panel: Any, cell: Cell) -> None:
        panel.axhline(0, color="#555555", linewidth=0.7)
        for name, label, colour, line, marker in SIDES:
            by_step = cell.over_steps("heldout", name)
            steps, values = list(by_step), list(by_step.values())
            band(panel, steps, values, colour)
            panel.plot(steps, [v.mean for v in values], color=colour, linestyle=line, marker=marker, label=label)
            log_steps(panel, steps)
        panel.set_title(ascii_visible(cell.panel_title), fontsize=9)

    return small_multiples(
        "displacement",
        "Displacement of chosen and rejected responses",
        f"Condition: {data.headline.title}. Mean change of each side's summed log-prob since the reference on clean"
        f" held-out pairs, with 95 % intervals over seeds. The baseline at its betas, the others at their worst.{note}",
        "Small multiples: change of the log-prob of chosen and rejected responses over training steps.",
        cells,
        paint,
        (2.35, 2.0),
        (0.2, 0.5),
        xlabel="step",
        ylabel="log-prob change (nats)",
        legend_columns=2,
        sharex=True,
    )


def _table(data: ReportData, cells: Sequence[Cell]) -> Table:
    rows = []
    for cell in cells:
        values = [cell.described(name) for name in SHOWN]
        rows.append((data.head(cell), *map(estimated, values), Field(reading(*values[:3]))))
    header = ("Objective and beta", "chosen (nats)", "rejected (nats)", "ranked right", data.sweep.reward, "Reading")
    return Table(f"Displacement at the last step, {data.headline.title}", header, tuple(rows), look="stack")


def reading(chosen: Estimate, rejected: Estimate, ranking: Estimate) -> str:
    """What the means say, in words; a change below a tenth of a nat is none."""
    if chosen.mean > -0.1:
        side = "chosen rises" if chosen.mean > 0.1 else "chosen stays"
    elif rejected.mean < chosen.mean:
        side = "both fall, rejected faster"
    else:
        side = "chosen falls, rejected does not fall faster"
    if ranking.mean < 0.5:
        return f"{side}; ranking broken: worse than chance"
    return (
        f"{side}; most pairs right" if ranking.mean >= 0.9 else f"{side}; {1 - ranking.mean:.0%} of pairs still wrong"
    )


ROWS = (Section("displacement", "Displacement", displacement),)
