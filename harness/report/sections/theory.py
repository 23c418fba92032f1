"""Theory beside measurement: what the closed forms say of each pair's optimum, and what training reached."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.context import Material
from harness.report.render.blocks import Field, Section, Table, given
from harness.report.render.figures import Picture, drawn, picture, shape_of, whiskers
from harness.report.render.text import DASH, ascii_visible, plain, shown

SHOWN = 4  # conditions
DRAWN = ("dpo", "ppo", "rloo")  # whose optimum is the RLHF one that the violated share speaks of


def theory(m: Material) -> Section | None:
    """Conditions whose labels leave a finite optimum: Bradley-Terry ones, or uniform flips at a known rate."""
    conditions = [c for c in _ranked(m) if any(cell.theory_values("violated") for cell in c.cells)][:SHOWN]
    if not conditions:
        return None
    return Section(
        "Does theory predict it?",
        "One pair alone has its optimum at delta_ref + gap / beta, with the gap that noisy labels leave; pairs below 0"
        " are ranked wrong even there. One minus that share is the idealised ranking accuracy. A shared model after"
        " finite training need not reach it: the distance is what training, not the objective, adds or loses.",
        given(_picture(m, conditions), _table(m, conditions[0])),
        tuple(_table(m, condition) for condition in conditions[1:]),
        "The other conditions",
    )


def _ranked(m: Material) -> list[Condition]:
    """Bradley-Terry labels first, then the headline's setting, then the rest."""
    finite = [c for c in m.conditions if c.labels == "bradley_terry" or (c.corruption == "uniform_flip" and c.rate > 0)]
    return sorted(finite, key=lambda c: (c.labels != "bradley_terry", c not in m.family.conditions))


def _picture(m: Material, conditions: list[Condition]) -> Picture | None:
    shown_cells = {
        c.title: [cell for n in DRAWN for cell in c.by_objective.get(n, ()) if _known(cell)] for c in conditions
    }
    shown_cells = {title: cells for title, cells in shown_cells.items() if cells}
    if not shown_cells:
        return None
    rows, columns = shape_of(len(shown_cells))

    def paint(_: Any, axes: Any) -> None:
        for panel, (title, cells) in zip(axes.flat, shown_cells.items(), strict=False):
            places = np.arange(len(cells))
            for name, label, style in (
                ("violated", "predicted", {"color": "#555555", "marker": "_", "linestyle": "--"}),
                ("wrong", "measured", drawn(m.looks[cells[0].first.objective]) | {"linestyle": "none"}),
            ):
                found = [cell.theory_estimate(name) for cell in cells]
                ends = whiskers(found)
                panel.errorbar(places, [e.mean for e in found], yerr=ends, capsize=3, label=label, **style)
            panel.set_xticks(list(places), [plain(cell.first.beta) for cell in cells])
            panel.set_xlabel("beta")
            panel.set_title("\n".join(map(ascii_visible, title.split(", "))), fontsize=8.5)
            panel.set_ylim(-0.03, 1.03)
        axes[0, 0].set_ylabel("share ranked wrong")
        axes[0, 0].legend(fontsize=8)

    names = ", ".join(dict.fromkeys(cell.first.objective for cells in shown_cells.values() for cell in cells))
    return picture(
        "predicted",
        "Share ranked wrong: predicted and measured",
        f"{names}. Predicted from reference and gold reward alone, P(delta_ref + gap / beta < 0), the gap shrunk by the"
        " flip rate; measured on clean held-out pairs after training; 95 % intervals over seeds.",
        "Predicted and measured share of wrongly ranked pairs by beta, a panel per condition.",
        (rows, columns),
        (max(2.5 * columns, 3.4), 2.9 * rows),
        paint,
        sharey=True,
    )


def _known(cell: Cell) -> bool:
    return bool(cell.theory_values("violated"))


def _table(m: Material, condition: Condition) -> Table:
    rows = []
    for cell in condition.cells:
        if cell.theory_values("achieved"):
            names = ("idealised", "achieved", "predicted_right", "agreement")
            found = [cell.theory_estimate(name) for name in names]
            head = Field(cell.named, mark=m.looks[cell.first.objective].colour)
            rows.append((head, *(Field(shown(one) if one.n else DASH) for one in found)))
    header = (
        *("Objective and beta", "idealised ranking accuracy (RLHF optimum)", "achieved"),
        *("right at the objective's own optimum", "pairs on whose sign the two agree"),
    )
    return Table(f"Idealised and achieved, {condition.title}", header, tuple(rows), look="stack")
