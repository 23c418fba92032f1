"""Ranking well and answering well are two things: ranking accuracy beside the reward of samples and KL."""

from __future__ import annotations

import math
from typing import Any

from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import REWARD_MODEL
from harness.report.render.blocks import Content, Table, fields, present
from harness.report.render.figures import line_style, picture, shared_legend, small_text, whiskers
from harness.report.render.text import ascii_visible, plain, shown
from harness.report.sections.row import Section

MEASURES = ("gold_reward", "kl")


def quality(data: ReportData) -> Content | None:
    """One mark per objective and beta: against the reward of samples and against KL, whichever was measured."""
    condition, reward = data.headline, data.sweep.reward
    titles = dict(zip(MEASURES, (f"{reward} of samples", "KL to the reference (nats)"), strict=True))
    measures = [name for name in MEASURES if any(math.isfinite(c.estimate(name).mean) for c in condition.cells)]
    if not measures:
        return None

    def paint(figure: Any, axes: Any) -> None:
        for panel, measure in zip(axes[0], measures, strict=True):
            for name, cells in condition.by_objective.items():
                marks = [(c, c.ranking, c.estimate(measure)) for c in cells]
                marks = [(c, x, y) for c, x, y in marks if math.isfinite(x.mean) and math.isfinite(y.mean)]
                style = line_style(data.looks[name]) | {"linestyle": "none", "markersize": 6.5}
                x, y = [one for _, one, _ in marks], [one for _, _, one in marks]
                panel.errorbar([one.mean for one in x], [one.mean for one in y], xerr=whiskers(x), yerr=whiskers(y),
                               elinewidth=0.6, label=ascii_visible(name), **style)  # fmt: skip
                for cell, at, height in marks:
                    small_text(panel, plain(cell.first.beta), at.mean, height.mean)
            panel.set_xlabel("ranking accuracy (held out)")
            panel.set_ylabel(titles[measure])
        shared_legend(figure, axes, "outside right upper")

    scatter = picture(
        "quality",
        f"Ranking accuracy beside {reward} and KL",
        f"Condition: {condition.title}. One mark per objective and beta (its number), means over seeds with 95 %"
        f" intervals of both. Marks at the lower right of the {reward} rank well but answer badly; KL is the distance"
        " from the reference.",
        f"Scatter of ranking accuracy against {reward} of samples and against KL, by objective and beta.",
        (1, len(measures)),
        (3.9 * len(measures) + 1.2, 3.5),
        paint,
    )
    return Content(
        "Does ranking well mean answering well?",
        "Ranking accuracy near 1 is not sample quality: an objective can rank every pair right and have moved far from"
        " the reference, or answer worse.",
        present(scatter, _reward_models(data)),
    )


def _reward_models(data: ReportData) -> Table | None:
    """How often each condition's reward model scores the truly better response higher, on clean held-out pairs."""
    cells = [c for c in data.cells if c.first.objective == REWARD_MODEL and c.estimate("reward_accuracy").n]
    settings = {c.first.condition: c.title for c in data.conditions}
    rows = tuple(
        fields(settings.get(cell.first.condition, cell.first.corruption_text), shown(cell.estimate("reward_accuracy")))
        for cell in cells
    )
    header = ("Trained on", "truly better response scored higher")
    return Table("Reward models that RLHF learnt from", header, rows) if rows else None


ROWS = (Section("quality", "Quality", quality),)
