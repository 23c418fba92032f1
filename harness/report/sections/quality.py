"""Ranking well and answering well are two things: ranking accuracy beside gold reward of samples and KL."""

from __future__ import annotations

import math
from typing import Any

from harness.report.data.context import Material
from harness.report.data.run_facts import REWARD_MODEL
from harness.report.render.blocks import Section, Table, fields, given
from harness.report.render.figures import drawn, picture
from harness.report.render.text import ascii_visible, plain, shown

TITLES = {"gold_reward": "gold reward of samples", "kl": "KL to the reference (nats)"}


def quality(m: Material) -> Section | None:
    """One mark per objective and beta: against gold reward and against KL, whichever was measured."""
    condition = m.headline
    means = {
        cell: {name: cell.estimate(name).mean for name in ("ranking_accuracy", *TITLES)} for cell in condition.cells
    }
    drawn_measures = [name for name in TITLES if any(math.isfinite(mean[name]) for mean in means.values())]
    if not drawn_measures:
        return None

    def paint(figure: Any, axes: Any) -> None:
        for panel, measure in zip(axes[0], drawn_measures, strict=True):
            for name, cells in condition.by_objective.items():
                own = [(c, means[c]["ranking_accuracy"], means[c][measure]) for c in cells]
                own = [(c, x, y) for c, x, y in own if math.isfinite(x) and math.isfinite(y)]
                style = drawn(m.looks[name]) | {"linestyle": "none", "markersize": 6.5}
                panel.plot([x for _, x, _ in own], [y for _, _, y in own], label=ascii_visible(name), **style)
                for cell, x, y in own:
                    place = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 7, "color": "#444444"}
                    panel.annotate(plain(cell.first.beta), (x, y), **place)
            panel.set_xlabel("ranking accuracy (held out)")
            panel.set_ylabel(TITLES[measure])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)

    drawing = picture(
        "quality",
        "Ranking accuracy beside gold reward and KL",
        f"Condition: {condition.title}. One mark per objective and beta (its number), means over seeds. Marks far right"
        " and low rank well but sample badly; where KL is shown, it is what they paid.",
        "Scatter of ranking accuracy against gold reward of samples and against KL, by objective and beta.",
        (1, len(drawn_measures)),
        (3.9 * len(drawn_measures) + 1.2, 3.5),
        paint,
    )
    return Section(
        "Does ranking well mean answering well?",
        "Ranking accuracy near 1 is not sample quality: an objective can rank every pair right and have moved far from"
        " the reference, or answer worse.",
        given(drawing, _reward_models(m)),
    )


def _reward_models(m: Material) -> Table | None:
    """How often each condition's reward model scores the truly better response higher, on clean held-out pairs."""
    cells = [c for c in m.cells if c.first.objective == REWARD_MODEL and c.estimate("reward_accuracy").n]
    settings = {c.cells[0].first.condition: c.title for c in m.conditions}
    rows = tuple(
        fields(settings.get(cell.first.condition, cell.first.corruption_text), shown(cell.estimate("reward_accuracy")))
        for cell in cells
    )
    header = ("Trained on", "truly better response scored higher")
    return Table("Reward models that RLHF learnt from", header, rows) if rows else None
