"""What each kind of damage costs: ranking accuracy on the corrupted set minus that on the clean set, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics.statistics import Estimate, paired_difference
from harness.report.data.cells import RANKING, Cell
from harness.report.data.conditions import Family, cleans
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content
from harness.report.render.figures import Picture, line_style, picture, whiskers
from harness.report.render.text import ascii_visible, percents, quantity
from harness.report.sections.row import Section

# From this many kinds on a sweep asks which damage hurts, not how much of one kind is survived.
MANY_KINDS = 4
POINTS = "\u00a0points"


@dataclass(frozen=True)
class Damage:
    """One cell under one corruption against the same cell on clean labels; `cost` < 0 where accuracy was lost."""

    label: str
    cell: Cell
    cost: Estimate


def damages(families: Sequence[Family]) -> list[Damage]:
    """Every corrupted cell that has a clean partner; empty where fewer than `MANY_KINDS` kinds were swept. Labels that
    were cleaned are no kind of damage."""
    dirty = [(kind, c) for f in families for kind, same in f.kinds.items() for c in same if not cleans(c)]
    if len({kind for kind, _ in dirty}) < MANY_KINDS:
        return []
    out = []
    for family in families:
        where = f" ({family.title})" if len([f for f in families if f.kinds]) > 1 else ""
        for condition in family.conditions:
            for cell in () if condition.clean or cleans(condition) else condition.cells:
                partner = None if family.clean is None else family.cell(cell.first.arm, family.clean)
                cost = paired_difference(cell.values(RANKING), {} if partner is None else partner.values(RANKING))
                if cost.n:
                    out.append(Damage(f"{condition.damage}{where}", cell, cost))
    return out


def damage(data: ReportData) -> Content | None:
    """One picture of all kinds, where a sweep is over kinds."""
    costs = damages(data.families)
    return Content(
        "Which damage costs what?",
        "Ranking accuracy on clean held-out pairs after training on the damaged set, minus that after training on the"
        " clean one. Left of the line accuracy was lost.",
        (_picture(data, costs),),
    ) if costs else None  # fmt: skip


def most_costly(costs: Sequence[Damage], objective: str) -> Damage | None:
    """The damage that costs an objective most; None where none of its cells has a clean partner."""
    return min((d for d in costs if d.cell.first.objective == objective), key=lambda d: d.cost.mean, default=None)


def damage_sentence(costs: Sequence[Damage], baseline: str) -> str | None:
    """Which damage costs the baseline and the other objectives most, in one sentence; None without differences."""
    worst = most_costly(costs, baseline)
    if worst is None:
        return None
    rivals = dict.fromkeys(d.cell.first.objective for d in costs if d.cell.first.objective != baseline)
    largest = [found for name in rivals if (found := most_costly(costs, name)) is not None]
    kinds = len({d.label for d in costs})
    text = (
        f"Of {kinds} kinds of damage, for {worst.cell.named} the costliest is {worst.label}:"
        f" {percents(worst.cost, POINTS)} of pairs ranked right against clean labels"
    )
    if largest:
        most = min(largest, key=lambda d: d.cost.mean)
        text += f"; of the other objectives {most.cell.named} loses most, {percents(most.cost, POINTS)}"
        text += f" to {most.label}"
    return f"{text} ({quantity(worst.cost.n, 'seed')}, paired; the extremes of {len(costs)} differences)."


def _picture(data: ReportData, costs: Sequence[Damage]) -> Picture:
    """A row a corruption, sorted by its mean cost, a mark an objective and beta."""
    labels = list(dict.fromkeys(d.label for d in costs))
    mean = {label: math.fsum(d.cost.mean for d in costs if d.label == label) for label in labels}
    labels.sort(key=lambda label: (-mean[label], label))
    names = list(dict.fromkeys(d.cell.named for d in costs))

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0, 0]
        for i, name in enumerate(names):
            same = [d for d in costs if d.cell.named == name]
            height = [labels.index(d.label) + (i - (len(names) - 1) / 2) * 0.7 / max(len(names), 1) for d in same]
            style = line_style(data.looks[same[0].cell.first.objective]) | {"linestyle": "none"}
            ends = whiskers([d.cost for d in same])
            centre = [d.cost.mean for d in same]
            panel.errorbar(centre, height, xerr=ends, elinewidth=0.9, label=ascii_visible(name), **style)
        panel.axvline(0, color="#555555", linewidth=0.8)
        panel.set_yticks(range(len(labels)), [ascii_visible(label) for label in labels])
        panel.set_xlabel("ranking accuracy minus that on clean labels")
        panel.grid(axis="x")
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return picture(
        "damage",
        "What each kind of damage costs",
        "Mean and 95 % interval over seeds, paired with the same objective and beta on clean labels; kinds in the order"
        " of their mean cost.",
        "Cost of each corruption in ranking accuracy, by objective.",
        (1, 1),
        (8.6, 0.34 * len(labels) + 1.1),
        paint,
    )


ROWS = (Section("damage", "Damage", damage),)
