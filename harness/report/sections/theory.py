"""Theory beside measurement: what the closed forms say of each pair's optimum, and what training reached."""

from __future__ import annotations

from typing import Any

from harness.report.data.conditions import Condition
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Table, estimated, present
from harness.report.render.figures import Picture, error_bars, line_style, picture, shape_of
from harness.report.render.text import ascii_visible, plain
from harness.report.sections.row import Section

MAX_CONDITIONS = 4
DRAWN = ("dpo", "ppo", "rloo")  # whose optimum is the RLHF one that the violated share speaks of
COLUMNS = {
    "idealised": "idealised ranking accuracy (RLHF optimum)",
    "achieved": "achieved",
    "predicted_right": "right at the objective's own optimum",
    "agreement": "pairs on whose sign the two agree",
}


def theory(data: ReportData) -> Content | None:
    """Conditions whose labels leave a finite optimum: Bradley-Terry ones, or uniform flips at a known rate."""
    ranked = [c for c in _ranked(data) if any(cell.fact_values("theory.violated") for cell in c.cells)]
    if not ranked:
        return None
    conditions = ranked[:MAX_CONDITIONS]
    first, *others = (_table(data, condition) for condition in conditions)
    return Content(
        "Does theory predict it?",
        "One pair alone has its optimum at delta_ref + gap / beta, with the gap that noisy labels leave; pairs below 0"
        " are ranked wrong even there. One minus that share is the idealised ranking accuracy. A shared model after"
        " finite training need not reach it: the distance is what training, not the objective, adds or loses.",
        present(_picture(data, conditions), first),
        tuple(others),
        "The other conditions",
    )


def _ranked(data: ReportData) -> list[Condition]:
    """Bradley-Terry labels first, then the headline's setting, then the rest."""
    finite = [c for c in data.conditions if _soft(c) or (c.first.corruption == "uniform_flip" and c.rate > 0)]
    return sorted(finite, key=lambda c: (not _soft(c), c not in data.family.conditions))


def _soft(condition: Condition) -> bool:
    return condition.first.labels == "bradley_terry"


def _picture(data: ReportData, conditions: list[Condition]) -> Picture | None:
    known = {
        c.title: [cell for n in DRAWN for cell in c.by_objective.get(n, ()) if cell.fact_values("theory.violated")]
        for c in conditions
    }
    known = {title: cells for title, cells in known.items() if cells}
    if not known:
        return None
    rows, columns = shape_of(len(known))

    def paint(_: Any, axes: Any) -> None:
        for panel, (title, cells) in zip(axes.flat, known.items(), strict=False):
            places = list(range(len(cells)))
            for name, label, style in (
                ("violated", "predicted", {"color": "#555555", "marker": "_", "linestyle": "--"}),
                ("wrong", "measured", line_style(data.looks[cells[0].first.objective]) | {"linestyle": "none"}),
            ):
                values = [cell.fact_estimate(f"theory.{name}") for cell in cells]
                error_bars(panel, places, values, capsize=3, label=label, **style)
            panel.set_xticks(places, [plain(cell.first.beta) for cell in cells])
            panel.set_xlabel("beta")
            panel.set_title("\n".join(map(ascii_visible, title.split(", "))), fontsize=8.5)
            panel.set_ylim(-0.03, 1.03)
        axes[0, 0].set_ylabel("share ranked wrong")
        axes[0, 0].legend(fontsize=8)

    names = ", ".join(dict.fromkeys(cell.first.objective for cells in known.values() for cell in cells))
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


def _table(data: ReportData, condition: Condition) -> Table:
    cells = [cell for cell in condition.cells if cell.fact_values("theory.achieved")]
    rows = [(data.head(cell), *(estimated(cell.fact_estimate(f"theory.{name}")) for name in COLUMNS)) for cell in cells]
    header = ("Objective and beta", *COLUMNS.values())
    return Table(f"Idealised and achieved, {condition.title}", header, tuple(rows), look="stack")


ROWS = (Section("theory", "Theory", theory),)
