"""While the loss falls, does the ranking follow? Loss and ranking accuracy over training, and one against the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.data.cells import RANKING, Cell
from harness.report.data.headline import evenly_spaced, figure_cells
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content
from harness.report.render.figures import Picture, legend, log_steps, picture, shades, small_multiples
from harness.report.render.text import ascii_visible
from harness.report.sections.row import Section

MAX_BETAS = 4  # betas in a panel, evenly spread over those swept

Series = tuple[Cell, Mapping[int, float], Mapping[int, float]]  # loss and ranking accuracy by step


def trajectories(data: ReportData) -> Content | None:
    """Phase picture (accuracy against the share of the loss's fall) and the two series over steps."""
    shown, note = _by_objective(data)
    if not shown:
        return None
    return Content(
        "While the loss falls, does the ranking follow?",
        "A healthy line climbs to the right: the loss falls and more pairs are ranked right. A flat line is"
        " satisfied too early: the loss nears its minimum while pairs are still misranked. A line that turns"
        " down is reversed or memorised noise.",
        (_phase(data, shown, note),),
        (_curves(data, shown, note),),
        "Loss and ranking accuracy over steps",
    )


def _by_objective(data: ReportData) -> tuple[dict[str, list[Series]], str]:
    cells, note = figure_cells(data.headline, data.baseline)
    series: dict[str, list[Series]] = {}
    for name in dict.fromkeys(cell.first.objective for cell in cells):
        for cell in evenly_spaced(data.headline.by_objective[name], MAX_BETAS):
            both = cell.over_steps("train", "loss"), cell.over_steps("heldout", RANKING)
            if all(both):
                loss, ranking = ({step: value.mean for step, value in one.items()} for one in both)
                series.setdefault(name, []).append((cell, loss, ranking))
    return series, note


def _phase(data: ReportData, shown: Mapping[str, Sequence[Series]], note: str) -> Picture:
    def paint(panel: Any, item: tuple[str, Sequence[Series]]) -> None:
        name, series = item
        for (cell, loss, ranking), style in zip(series, shades(data.looks[name], len(series)), strict=True):
            points = progress(loss, ranking)
            if points:
                panel.plot(*zip(*points, strict=True), label=_label(cell), **style)
        panel.set_title(ascii_visible(name))
        panel.axhline(0.5, color="#888888", linewidth=0.8)
        panel.set_xlim(-0.04, 1.06)
        panel.set_xticks([0, 0.5, 1], ["0", "half", "all"])
        panel.set_ylim(-0.03, 1.03)
        panel.set_yticks([0, 0.5, 1])
        legend(panel, loc="lower right")

    return small_multiples(
        "trajectories",
        "Ranking accuracy against the fall of the loss",
        f"Condition: {data.headline.title}. One mark per evaluated step, means over seeds. Horizontal: the share of"
        " its own total fall that the training loss has completed, so losses of two objectives are not compared."
        f" Vertical: clean held-out pairs ranked right (grey: chance).{note}",
        "Small multiples by objective: ranking accuracy against the completed share of the loss's fall.",
        list(shown.items()),
        paint,
        (2.35, 2.3),
        (0.2, 0.2),
        xlabel="share of the loss's own fall",
        ylabel="ranking accuracy",
        sharex=True,
        sharey=True,
    )


def progress(loss: Mapping[int, float], ranking: Mapping[int, float]) -> list[tuple[float, float]]:
    """(share of the loss's total fall, ranking accuracy) per common checkpoint; none where the loss did not fall."""
    steps = [step for step in loss if step in ranking]
    if len(steps) < 2:
        return []
    fall = loss[steps[0]] - loss[steps[-1]]
    if not (math.isfinite(fall) and fall > 0):
        return []
    return [((loss[steps[0]] - loss[step]) / fall, ranking[step]) for step in steps]


def _label(cell: Cell) -> str:
    return ascii_visible(cell.settings or "no beta")


def _curves(data: ReportData, shown: Mapping[str, Sequence[Series]], note: str) -> Picture:
    """Training loss and held-out ranking accuracy over steps: a column per objective, a line per beta."""

    def paint(_: Any, axes: Any) -> None:
        for column, (name, series) in enumerate(shown.items()):
            top, bottom = axes[:, column]
            for (cell, loss, ranking), style in zip(series, shades(data.looks[name], len(series)), strict=True):
                top.plot(list(loss), list(loss.values()), label=_label(cell), **style)
                bottom.plot(list(ranking), list(ranking.values()), **style)
            for panel in (top, bottom):
                log_steps(panel, sorted({step for _, loss, _ in series for step in loss}))
            top.set_title(ascii_visible(name))
            legend(top)
            bottom.set_ylim(-0.03, 1.03)
            bottom.set_yticks([0, 0.5, 1])
            bottom.axhline(0.5, color="#888888", linewidth=0.8)
            bottom.set_xlabel("step")
        axes[0, 0].set_ylabel("training loss\n(own scale per column)")
        axes[1, 0].set_ylabel("ranking accuracy\n(held out)")

    return picture(
        "curves",
        "Loss and ranking accuracy over steps",
        f"Condition: {data.headline.title}. Top: loss on the fixed training probe set; bottom: share of clean held-out"
        f" pairs that the policy ranks right (grey line: chance). Means over seeds.{note}",
        "Small multiples by objective: training loss over steps above, held-out ranking accuracy over steps below.",
        (2, len(shown)),
        (max(2.1 * len(shown), 5.0), 4.2),
        paint,
        sharex="col",
    )


ROWS = (Section("trajectories", "Loss and ranking", trajectories),)
