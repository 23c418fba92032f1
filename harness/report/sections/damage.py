"""What each kind of damage costs: ranking accuracy on the corrupted set minus that on the clean set, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics.statistics import Estimate, paired_difference
from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.data.families import Family
from harness.report.render.blocks import Section
from harness.report.render.figures import Picture, drawn, picture, whiskers
from harness.report.render.text import ascii_visible, quantity, shown

# From this many kinds on a sweep asks which damage hurts, not how much of one kind is survived.
MANY_KINDS = 4


@dataclass(frozen=True)
class Damage:
    """One cell under one corruption against the same cell on clean labels; `cost` < 0 where accuracy was lost."""

    label: str
    cell: Cell
    cost: Estimate


def damages(families: Sequence[Family]) -> list[Damage]:
    """Every corrupted cell that has a clean partner; empty where fewer than `MANY_KINDS` kinds were swept."""
    if len({kind for family in families for kind in family.kinds}) < MANY_KINDS:
        return []
    found = []
    for family in families:
        where = f" ({family.title})" if len([f for f in families if f.kinds]) > 1 else ""
        for condition in family.conditions:
            for cell in () if condition.clean else condition.cells:
                partner = None if family.clean is None else family.cell(cell.first.arm, family.clean)
                values = {} if partner is None else partner.values("ranking_accuracy")
                cost = paired_difference(cell.values("ranking_accuracy"), values)
                if cost.n:
                    found.append(Damage(f"{condition.damage}{where}", cell, cost))
    return found


def damage(m: Material) -> Section | None:
    """One picture of all kinds, where a sweep is over kinds."""
    found = damages(m.families)
    return Section(
        "Which damage costs what?",
        "Ranking accuracy on clean held-out pairs after training on the damaged set, minus that after training on the"
        " clean one. Left of the line: lost.",
        (damage_picture(m, found),),
    ) if found else None  # fmt: skip


def damage_sentence(found: Sequence[Damage], baseline: str) -> str | None:
    """Which damage costs the baseline and the other objectives most, in one sentence; None without differences."""
    own = [d for d in found if d.cell.first.objective == baseline]
    if not own:
        return None
    worst = min(own, key=lambda d: d.cost.mean)
    kinds = len({d.label for d in found})
    text = (
        f"Of {kinds} kinds of damage, {worst.label} costs {worst.cell.named} the most ranking accuracy,"
        f" {shown(worst.cost)} against clean labels"
    )
    others = [min((d for d in found if d.cell.first.objective == name), key=lambda d: d.cost.mean)
              for name in dict.fromkeys(d.cell.first.objective for d in found) if name != baseline]  # fmt: skip
    if others:
        most = min(others, key=lambda d: d.cost.mean)
        text += f"; of the others {most.cell.named} loses most, {shown(most.cost)} to {most.label}"
    return f"{text} ({quantity(worst.cost.n, 'seed')}, paired; the extremes of {len(found)} differences)."


def damage_picture(m: Material, found: Sequence[Damage]) -> Picture:
    """A row a corruption, sorted by its mean cost, a mark an objective and beta."""
    labels = list(dict.fromkeys(d.label for d in found))
    mean = {label: math.fsum(d.cost.mean for d in found if d.label == label) for label in labels}
    labels.sort(key=lambda label: (-mean[label], label))
    names = list(dict.fromkeys(d.cell.named for d in found))

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0, 0]
        for i, name in enumerate(names):
            own = [d for d in found if d.cell.named == name]
            height = [labels.index(d.label) + (i - (len(names) - 1) / 2) * 0.7 / max(len(names), 1) for d in own]
            centre = [d.cost.mean for d in own]
            ends = whiskers([d.cost for d in own])
            style = {**drawn(m.looks[own[0].cell.first.objective]), "linestyle": "none", "label": ascii_visible(name)}
            panel.errorbar(centre, height, xerr=ends, elinewidth=0.9, **style)
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
