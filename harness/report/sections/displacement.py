"""Chosen log-probs fall: is it broken? How far each side moved since the reference, and what became of the ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.metrics.statistics import Estimate
from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.data.series import band, means, over_seeds, telling_cells
from harness.report.render.blocks import Field, Section, Table, given
from harness.report.render.figures import RIGHT, WRONG, Picture, log_steps, panels, picture, shape_of
from harness.report.render.text import DASH, ascii_visible, plain, shown

SIDES = (("chosen_displacement", "chosen", RIGHT, "-", "o"), ("rejected_displacement", "rejected", WRONG, "--", "s"))


def displacement(m: Material) -> Section | None:
    """Both sides over steps, and a table that says what to make of it."""
    cells, note = telling_cells(m.headline, m.baseline)
    rows = [cell for cell in m.headline.cells if cell.described("chosen_displacement").n]
    if not rows:
        return None
    return Section(
        "Chosen log-probs fall: is it broken?",
        "Not by itself. A falling chosen line is harmless where the rejected one falls faster and samples stay good."
        " It is broken where the ranking stays wrong, or where a third, worse answer gains (gold reward falls).",
        given(_picture(m, cells, note) if cells else None, _table(m, [c for c in rows if c in cells] or rows[:8])),
    )


def _picture(m: Material, cells: Sequence[Cell], note: str) -> Picture:
    rows, columns = shape_of(len(cells))

    def paint(figure: Any, axes: Any) -> None:
        for panel, cell in zip(panels(axes, len(cells)), cells, strict=True):
            panel.axhline(0, color="#555555", linewidth=0.7)
            for name, label, colour, line, marker in SIDES:
                found = over_seeds(cell, "heldout", name)
                steps, values = means(found)
                band(panel, found, colour)
                panel.plot(steps, values, color=colour, linestyle=line, marker=marker, label=label)
                log_steps(panel, steps)
            beta = "" if cell.first.beta is None else f", beta {plain(cell.first.beta)}"
            panel.set_title(ascii_visible(cell.first.objective) + beta, fontsize=9)
        for row in axes:
            row[0].set_ylabel("log-prob change (nats)")
        for panel in axes[-1]:
            panel.set_xlabel("step")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)

    return picture(
        "displacement",
        "Displacement of chosen and rejected responses",
        f"Condition: {m.headline.title}. Mean change of each side's summed log-prob since the reference on clean"
        f" held-out pairs, with 95 % intervals over seeds. The baseline at its betas, the others at their worst.{note}",
        "Small multiples: change of the log-prob of chosen and rejected responses over training steps.",
        (rows, columns),
        (2.35 * columns + 0.2, 2.0 * rows + 0.5),
        paint,
        sharex=True,
    )


def _table(m: Material, cells: Sequence[Cell]) -> Table:
    rows = []
    for cell in cells:
        found = {
            n: cell.described(n)
            for n in ("chosen_displacement", "rejected_displacement", "ranking_accuracy", "gold_reward")
        }
        rows.append(
            (
                Field(cell.named, mark=m.looks[cell.first.objective].colour),
                *(Field(shown(one) if one.n else DASH) for one in found.values()),
                Field(reading(*(found[n] for n in list(found)[:3]))),
            )
        )
    header = ("Objective and beta", "chosen (nats)", "rejected (nats)", "ranked right", "gold reward", "Reading")
    return Table(f"Displacement at the last step, {m.headline.title}", header, tuple(rows), look="stack")


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
