"""While the loss falls, does the ranking follow? Loss and ranking accuracy over training, and one against the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.data.series import means, over_seeds, spaced, telling_cells
from harness.report.render.blocks import Section
from harness.report.render.figures import Picture, legend, log_steps, panels, picture, shades, shape_of
from harness.report.render.text import ascii_visible, plain

LINES = 4  # betas in a panel, evenly spread over those swept

Path = tuple[Cell, Mapping[int, float], Mapping[int, float]]


def trajectories(m: Material) -> Section | None:
    """Phase picture (accuracy against the share of the loss's fall) and the two series over steps."""
    shown, note = _objectives(m)
    if not shown:
        return None
    return Section(
        "While the loss falls, does the ranking follow?",
        "A healthy line climbs to the right: the loss falls and more pairs are ranked right. A flat line is a loss that"
        " has converged too early (D1); one that turns down is a reversal (D2) or memorised noise (D3).",
        (_phase(m, shown, note),),
        (_curves(m, shown, note),),
        "Loss and ranking accuracy over steps",
    )


def _objectives(m: Material) -> tuple[dict[str, list[Path]], str]:
    cells, note = telling_cells(m.headline, m.baseline)
    names = dict.fromkeys(cell.first.objective for cell in cells)
    found: dict[str, list[Path]] = {}
    for name in names:
        for cell in spaced(m.headline.by_objective[name], LINES):
            loss, ranking = over_seeds(cell, "train", "loss"), over_seeds(cell, "heldout", "ranking_accuracy")
            if loss and ranking:
                one = {step: value.mean for step, value in loss.items()}
                found.setdefault(name, []).append((cell, one, {s: value.mean for s, value in ranking.items()}))
    return found, note


def _phase(m: Material, shown: Mapping[str, Sequence[Path]], note: str) -> Picture:
    rows, columns = shape_of(len(shown))

    def paint(_: Any, axes: Any) -> None:
        for panel, (name, series) in zip(panels(axes, len(shown)), shown.items(), strict=True):
            for (cell, loss, ranking), style in zip(series, shades(m.looks[name], len(series)), strict=True):
                points = progress(loss, ranking)
                if points:
                    x, y = zip(*points, strict=True)
                    panel.plot(x, y, label=_label(cell), **style)
            panel.set_title(ascii_visible(name))
            panel.axhline(0.5, color="#888888", linewidth=0.8)
            panel.set_xlim(-0.04, 1.06)
            panel.set_xticks([0, 0.5, 1], ["0", "half", "all"])
            panel.set_ylim(-0.03, 1.03)
            panel.set_yticks([0, 0.5, 1])
            legend(panel, loc="lower right")
        for row in axes:
            row[0].set_ylabel("ranking accuracy")
        for panel in axes[-1]:
            panel.set_xlabel("share of the loss's own fall")

    return picture(
        "trajectories",
        "Ranking accuracy against the fall of the loss",
        f"Condition: {m.headline.title}. One mark per checkpoint, means over seeds. Across: how much of its own total"
        " fall the training loss has made, so that no two losses are compared. Up: clean held-out pairs ranked right"
        f" (grey: chance).{note}",
        "Small multiples by objective: ranking accuracy against the completed share of the loss's fall.",
        (rows, columns),
        (2.35 * columns + 0.2, 2.3 * rows + 0.2),
        paint,
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
    beta = cell.first.beta
    parts = [] if beta is None else [f"beta {plain(beta)}"]
    return ascii_visible(", ".join([*parts, *filter(None, [cell.extra])]) or "no beta")


def _curves(m: Material, shown: Mapping[str, Sequence[Path]], note: str) -> Picture:
    """Training loss and held-out ranking accuracy over steps: a column per objective, a line per beta."""

    def paint(_: Any, axes: Any) -> None:
        for column, (name, series) in enumerate(shown.items()):
            top, bottom = axes[:, column]
            for (cell, loss, ranking), style in zip(series, shades(m.looks[name], len(series)), strict=True):
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
        f"Condition: {m.headline.title}. Top: loss on the fixed training probe set; bottom: share of clean held-out"
        f" pairs that the policy ranks right (grey line: chance). Means over seeds.{note}",
        "Small multiples by objective: training loss over steps above, held-out ranking accuracy over steps below.",
        (2, len(shown)),
        (max(2.1 * len(shown), 5.0), 4.2),
        paint,
        sharex="col",
    )


def final(cell: Cell, name: str) -> float:
    """The last mean of a held-out series, NaN without one."""
    _, values = means(over_seeds(cell, "heldout", name))
    return values[-1] if values else math.nan
