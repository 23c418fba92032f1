"""Survival curves: ranking accuracy against the corruption rate, a line per objective at its best beta."""

from __future__ import annotations

import math
from typing import Any

from harness.report.data.conditions import Family
from harness.report.data.curves import Curve, best_curve, curves
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content
from harness.report.render.figures import Picture, error_bars, line_style, panels, picture, shape_of, shared_legend
from harness.report.render.text import ascii_visible, plain, visible
from harness.report.sections.damage import MANY_KINDS
from harness.report.sections.row import Section

TOGETHER = 8  # lines in one panel; more objectives get a panel each


def survival(data: ReportData) -> Content | None:
    """One picture per kind of corruption with several rates."""
    kinds = dict.fromkeys(kind for family in data.families for kind in family.kinds)
    pictures = [drawing for kind in kinds if (drawing := _picture(data, kind)) is not None]
    if not pictures:
        return None
    return Content(
        "How much noise does each objective survive?",
        "Higher and flatter is better. Each objective is drawn at its best beta, the one with the highest mean over the"
        " tested rates, chosen on these same numbers. The heat maps below show all betas.",
        tuple(pictures),
    )


def _lines(family: Family, kind: str, least: int) -> dict[str, Curve]:
    """Each objective's best curve with at least `least` tested rates."""
    every = {name: curves(family, kind, name) for name in family.objectives}
    best = {name: best_curve(candidates) for name, candidates in every.items() if candidates}
    return {name: curve for name, curve in best.items() if len({c.rate for c, _ in curve.points}) >= least}


def _picture(data: ReportData, kind: str) -> Picture | None:
    # A sweep over kinds compares those; a curve is left to those with several rates.
    least = 3 if len(data.family.kinds) >= MANY_KINDS else 2
    by_family = [(f, lines) for f in data.families if kind in f.kinds and (lines := _lines(f, kind, least))]
    if not by_family:
        return None
    crowded = max(len(lines) for _, lines in by_family) > TOGETHER
    jobs = [(ascii_visible(family.title), lines, "") for family, lines in by_family]
    where = ""
    if crowded:
        family, lines = next((pair for pair in by_family if pair[0] is data.family), by_family[0])
        jobs = [(ascii_visible(name), lines, name) for name in lines]
        where = f" Setting: {family.title}." if family.title else ""
    rows, columns = shape_of(len(jobs), 6 if crowded else 3)
    width = 1.6 * columns + 0.4 if crowded else max(3.0 * columns + 0.5, 5.0)
    across = int(width / 1.7)  # legend entries side by side
    height = 1.6 * rows + 0.4 if crowded else 2.7 * rows + 0.3 + 0.2 * -(-len(data.looks) // across)

    def paint(figure: Any, axes: Any) -> None:
        for panel, (title, lines, highlight) in zip(panels(axes, len(jobs)), jobs, strict=True):
            _panel(panel, lines, data, highlight)
            panel.set_title(title, fontsize=8.5 if crowded else 10)
        for row in axes:
            row[0].set_ylabel("ranking accuracy")
        for panel in axes[-1]:
            panel.set_xlabel("share corrupted")
        if not crowded:
            names = list(data.looks)
            shared_legend(figure, axes, "outside lower center", across, lambda label: names.index(label.split(",")[0]))

    return picture(
        "survival-" + "".join(c if c.isalnum() else "-" for c in kind.lower())[:40],
        f"Survival under {visible(kind)}",
        "Share of clean held-out pairs ranked right against the share of corrupted training pairs, with 95 % intervals"
        f" over seeds. Dashed grey: the untrained reference; solid grey: chance;"
        f" dotted: the vote table, a majority of the training labels about the same question, where it is known.{where}"
        + (" Each panel shows one objective before all others." if crowded else ""),
        f"Ranking accuracy against the rate of {visible(kind)}, a line per objective at its best beta.",
        (rows, columns),
        (width, height),
        paint,
        sharex=True,
        sharey=True,
    )


def _panel(panel: Any, lines: dict[str, Curve], data: ReportData, highlight: str) -> None:
    panel.axhline(0.5, color="#888888", linewidth=0.8)
    reference = _reference(lines)
    if reference is not None:
        panel.axhline(reference, color="#888888", linewidth=1.0, linestyle="--")
    votes = {c.rate: cell.vote_table().mean for curve in lines.values() for c, cell in curve.points}
    known = {rate: mean for rate, mean in sorted(votes.items()) if math.isfinite(mean)}
    if known:
        panel.plot(list(known), list(known.values()), color="#444444", linewidth=1.2, linestyle=":", zorder=1)
    every = [c.rate for curve in lines.values() for c, _ in curve.points]
    step = (max(every) - min(every)) * 0.012
    for i, (name, curve) in enumerate(lines.items()):
        rates, values = [c.rate for c, _ in curve.points], [cell.ranking for _, cell in curve.points]
        if highlight and name != highlight:
            panel.plot(rates, [one.mean for one in values], color="#CCCCCC", linewidth=0.8, zorder=1)
            continue
        # A small side step keeps the intervals of neighbouring objectives apart.
        shift = 0.0 if highlight else (i - (len(lines) - 1) / 2) * step
        beta = curve.first.first.beta
        label = f"{ascii_visible(name)}, {'no beta' if beta is None else f'beta {plain(beta)}'}"
        style = line_style(data.looks[name])
        error_bars(panel, [rate + shift for rate in rates], values, capsize=2, elinewidth=0.9, label=label, **style)
    panel.set_ylim(-0.03, 1.05)
    panel.set_yticks([0, 0.5, 1])


def _reference(lines: dict[str, Curve]) -> float | None:
    values = [cell.reference_accuracy().mean for curve in lines.values() for _, cell in curve.points]
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else None


ROWS = (Section("survival", "Survival", survival),)
