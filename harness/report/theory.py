"""Theory beside measurement: the share that the optimum ranks wrong, predicted from the reference alone, and found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.measure.statistics import t_interval
from harness.report.blocks import Section
from harness.report.cells import Cell
from harness.report.material import Material
from harness.report.style import drawn, picture
from harness.report.text import ascii_visible, plain

EXACT = ("dpo",)  # objectives whose optimum under Bradley-Terry labels is the closed form used here


def theory(m: Material) -> Section | None:
    """A panel per clean condition of the objectives in `EXACT`; dashed where hard labels leave no finite optimum."""
    shown: Mapping[str, list[Cell]] = {
        condition.title: [
            c for name in EXACT for c in condition.by_objective.get(name, ()) if c.fact_values("predicted")
        ]
        for condition in m.conditions
        if condition.clean
    }
    shown = {title: cells for title, cells in shown.items() if cells}
    if not shown:
        return None

    def paint(_: Any, axes: Any) -> None:
        for panel, (title, cells) in zip(axes[0], shown.items(), strict=True):
            places = np.arange(len(cells))
            look = m.looks[cells[0].first.objective]
            for fact, label, style in (
                ("predicted", "predicted for the optimum", {"color": "#555555", "marker": "_", "linestyle": "--"}),
                ("violated", "measured", drawn(look) | {"linestyle": "none"}),
            ):
                found = [t_interval(list(cell.fact_values(fact).values())) for cell in cells]
                ends = [[0.0 if np.isnan(e.low) else e.mean - e.low for e in found]] * 2
                panel.errorbar(places, [e.mean for e in found], yerr=ends, capsize=3, label=label, **style)
            panel.set_xticks(list(places), [plain(cell.first.beta) for cell in cells])
            panel.set_xlabel("beta")
            panel.set_title(ascii_visible(title.replace(", clean labels", "")), fontsize=9)
            panel.set_ylim(-0.03, 1.03)
        axes[0, 0].set_ylabel("share ranked wrong")
        axes[0, 0].legend(fontsize=8)

    drawing = picture(
        "predicted",
        "Share ranked wrong: predicted and measured",
        "Clean labels, dpo. Predicted from reference and gold reward alone, P(delta_ref + gap / beta < 0); measured on"
        " clean held-out pairs after training; 95 % intervals over seeds.",
        "Predicted and measured share of wrongly ranked pairs by beta, a panel per setting.",
        (1, len(shown)),
        (max(2.9 * len(shown), 4.0), 2.9),
        paint,
        sharey=True,
    )
    return Section(
        "Does theory predict it?",
        "With Bradley-Terry labels the optimum is finite and the two should agree; one minus the share is the idealised"
        " against the achieved ranking accuracy. With hard labels there is no finite optimum: what is measured is how"
        " far training got.",
        (drawing,),
    )
