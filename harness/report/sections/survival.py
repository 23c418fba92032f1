"""Survival curves: ranking accuracy against the corruption rate, a line per objective at its best beta."""

from __future__ import annotations

import math
from typing import Any

from harness.palette import Look
from harness.report.data.context import Material
from harness.report.data.families import Family
from harness.report.render.blocks import Section
from harness.report.render.figures import Picture, drawn, panels, picture, shape_of, whiskers
from harness.report.render.text import ascii_visible, plain, visible
from harness.report.sections.robustness import MEASURE, Path, best_path, paths

TOGETHER = 8  # lines in one panel; more objectives get a panel each


def survival(m: Material) -> Section | None:
    """One picture per kind of corruption with several rates."""
    kinds = dict.fromkeys(kind for family in m.families for kind in family.kinds)
    drawings = [drawing for kind in kinds if (drawing := _picture(m, kind)) is not None]
    if not drawings:
        return None
    return Section(
        "How much noise does each objective survive?",
        "Higher and flatter is better. Each objective stands at its best beta: the highest mean over the tested rates,"
        " chosen on these very numbers. All betas: the heat maps below.",
        tuple(drawings),
    )


def _lines(family: Family, kind: str, least: int) -> dict[str, Path]:
    """Each objective's best path with at least `least` tested rates."""
    found = {name: paths(family, kind, name) for name in family.objectives}
    best = {name: best_path(own) for name, own in found.items() if own}
    return {name: path for name, path in best.items() if len({c.rate for c, _ in path.points}) >= least}


def _picture(m: Material, kind: str) -> Picture | None:
    many = len(m.family.kinds) >= 4  # a sweep over kinds compares those; a curve is left to those with several rates
    found = [(f, lines) for f in m.families if kind in f.kinds and (lines := _lines(f, kind, 3 if many else 2))]
    if not found:
        return None
    crowded = max(len(lines) for _, lines in found) > TOGETHER
    if crowded:
        family, lines = next(((f, own) for f, own in found if f is m.family), found[0])
        jobs = [(ascii_visible(name), lines, name) for name in lines]
        where = f" Setting: {family.title}." if family.title else ""
    else:
        jobs = [(ascii_visible(f.title), lines, "") for f, lines in found]
        where = ""
    rows, columns = shape_of(len(jobs), 6 if crowded else 3)

    width = 1.6 * columns + 0.4 if crowded else max(3.0 * columns + 0.5, 5.0)
    across = int(width / 1.7)  # legend entries side by side
    height = 1.6 * rows + 0.4 if crowded else 2.7 * rows + 0.3 + 0.2 * -(-len(m.looks) // across)

    def paint(figure: Any, axes: Any) -> None:
        for panel, (title, lines, highlight) in zip(panels(axes, len(jobs)), jobs, strict=True):
            _panel(panel, lines, m, highlight)
            panel.set_title(title, fontsize=8.5 if crowded else 10)
        for row in axes:
            row[0].set_ylabel("ranking accuracy")
        for panel in axes[-1]:
            panel.set_xlabel("share corrupted")
        if not crowded:
            found = {label: h for p in axes.flat for h, label in zip(*p.get_legend_handles_labels(), strict=True)}
            labels = sorted(found, key=lambda label: list(m.looks).index(label.split(",")[0]))
            figure.legend(
                [found[label] for label in labels], labels, loc="outside lower center", ncols=across, fontsize=8
            )

    return picture(
        "survival-" + "".join(c if c.isalnum() else "-" for c in kind.lower())[:40],
        f"Survival under {visible(kind)}",
        "Share of clean held-out pairs ranked right against the share of corrupted training pairs, with 95 % intervals"
        f" over seeds. Dashed grey: the untrained reference; solid grey: chance.{where}"
        + (" Each panel shows one objective before all others." if crowded else ""),
        f"Ranking accuracy against the rate of {visible(kind)}, a line per objective at its best beta.",
        (rows, columns),
        (width, height),
        paint,
        sharex=True,
        sharey=True,
    )


def _panel(panel: Any, lines: dict[str, Path], m: Material, highlight: str) -> None:
    panel.axhline(0.5, color="#888888", linewidth=0.8)
    reference = _reference(lines)
    if reference is not None:
        panel.axhline(reference, color="#888888", linewidth=1.0, linestyle="--")
    rates = [c.rate for path in lines.values() for c, _ in path.points]
    step = (max(rates) - min(rates)) * 0.012
    for i, (name, path) in enumerate(lines.items()):
        if highlight and name != highlight:
            points = [(c.rate, cell.estimate(MEASURE).mean) for c, cell in path.points]
            panel.plot(*zip(*points, strict=True), color="#CCCCCC", linewidth=0.8, zorder=1)
        else:
            shift = 0.0 if highlight else (i - (len(lines) - 1) / 2) * step
            _line(panel, path, m.looks[name], f"{ascii_visible(name)}, {_beta(path)}", shift)
    panel.set_ylim(-0.03, 1.05)
    panel.set_yticks([0, 0.5, 1])


def _line(panel: Any, path: Path, look: Look, label: str, shift: float) -> None:
    found = [(c.rate, cell.estimate(MEASURE)) for c, cell in path.points]
    # A small side step keeps the intervals of neighbouring objectives apart.
    x, y = [rate + shift for rate, _ in found], [one.mean for _, one in found]
    ends = whiskers([one for _, one in found])
    panel.errorbar(x, y, yerr=ends, capsize=2, elinewidth=0.9, label=label, **drawn(look))


def _beta(path: Path) -> str:
    beta = path.first.first.beta
    return "no beta" if beta is None else f"beta {plain(beta)}"


def _reference(lines: dict[str, Path]) -> float | None:
    values = [cell.reference_accuracy().mean for path in lines.values() for _, cell in path.points]
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else None
