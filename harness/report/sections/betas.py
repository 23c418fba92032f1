"""Which beta? Ranking accuracy against beta, with the prediction of the optimum and where it crosses one half."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.context import Material
from harness.report.render.blocks import Section
from harness.report.render.figures import Picture, drawn, panels, picture, shape_of, whiskers
from harness.report.render.text import ascii_visible, number, plain

ENOUGH = 4  # betas that make a curve; fewer stand in the heat maps
OPTIMUM = ("dpo", "ppo", "rloo")  # their optimum under finite labels is the RLHF one


def betas(m: Material) -> Section | None:
    """A panel per clean condition in which some objective has `ENOUGH` betas."""
    found = [c for c in m.conditions if c.clean and c in {f.clean for f in m.families} and _lines(c)]
    return Section(
        "Which beta?",
        "Every objective has a scale of its own; what counts is beta x |delta_ref|. The dotted line is what the optimum"
        " of DPO and RLHF would rank right, 1 - P(delta_ref + gap / beta < 0); the vertical line marks where that is"
        " one half. With hard labels there is no finite optimum, so nothing is predicted.",
        (_picture(m, found[:4]),),
    ) if found else None  # fmt: skip


def _lines(condition: Condition) -> dict[str, list[Cell]]:
    lines = {}
    for name, cells in condition.by_objective.items():
        own = {c.first.beta: c for c in reversed(cells) if c.first.beta and c.estimate("ranking_accuracy").n}
        if len(own) >= ENOUGH:
            lines[name] = [own[beta] for beta in sorted(own)]
    return lines


def _picture(m: Material, conditions: Sequence[Condition]) -> Picture:
    rows, columns = shape_of(len(conditions), 2)
    crossings = {c.title: crossing(*_predicted(c)) for c in conditions}

    def paint(figure: Any, axes: Any) -> None:
        for panel, condition in zip(panels(axes, len(conditions)), conditions, strict=True):
            lines = _lines(condition)
            for name, cells in lines.items():
                found = [c.estimate("ranking_accuracy") for c in cells]
                ends = whiskers(found)
                style = drawn(m.looks[name])
                panel.errorbar(_betas(cells), [e.mean for e in found], yerr=ends, capsize=2, label=name, **style)
            x, predicted = _predicted(condition)
            if x:
                panel.plot(x, predicted, color="#333333", linestyle=":", linewidth=1.8, label="predicted optimum")
            at = crossings[condition.title]
            if at is not None:
                panel.axvline(at, color="#333333", linewidth=0.8)
                panel.annotate(f" {at:.2g}", (at, 0.02), fontsize=8)
            panel.axhline(0.5, color="#888888", linewidth=0.8)
            panel.set_xscale("log")
            ticks = sorted({beta for cells in lines.values() for beta in _betas(cells)})
            panel.set_xticks(ticks, [plain(tick) for tick in ticks], fontsize=7.5)
            panel.set_xticks([], minor=True)
            panel.set_ylim(-0.03, 1.05)
            panel.set_title(ascii_visible(condition.title), fontsize=9)
            panel.set_xlabel("beta (log)")
        axes[0, 0].set_ylabel("ranking accuracy")
        handles = {label: h for p in axes.flat for h, label in zip(*p.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)

    told = [f"{title}: beta {number(at, 2)}" for title, at in crossings.items() if at is not None]
    crossed = f" Predicted crossing of one half: {'; '.join(told)}." if told else ""
    return picture(
        "betas",
        "Ranking accuracy against beta",
        f"Clean held-out pairs ranked right, with 95 % intervals over seeds; grey: chance.{crossed}",
        "Ranking accuracy against beta on a log axis, a line per objective.",
        (rows, columns),
        (4.3 * columns + 0.3, 3.0 * rows + 0.4),
        paint,
        sharey=True,
    )


def _betas(cells: Sequence[Cell]) -> list[float]:
    return [cell.first.beta for cell in cells if cell.first.beta is not None]


def _predicted(condition: Condition) -> tuple[list[float], list[float]]:
    """Betas and the idealised ranking accuracy at each, of the objectives whose optimum it is; none for hard labels."""
    if condition.labels != "bradley_terry":
        return [], []
    found: dict[float, float] = {}
    for name in OPTIMUM:
        for cell in condition.by_objective.get(name, ()):
            value = cell.theory_estimate("idealised")
            if value.n and cell.first.beta:
                found.setdefault(cell.first.beta, value.mean)
    return sorted(found), [found[beta] for beta in sorted(found)]


def crossing(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Where a falling curve, straight in log x between its points, first reaches one half; None where it does not."""
    for (a, ya), (b, yb) in zip(zip(x, y, strict=True), list(zip(x, y, strict=True))[1:], strict=False):
        if ya > 0.5 >= yb:
            return math.exp(math.log(a) + (math.log(b) - math.log(a)) * (ya - 0.5) / (ya - yb))
    return None
