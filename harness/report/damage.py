"""What each kind of damage costs: ranking accuracy on the corrupted set minus that on the clean set, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.measure.statistics import Estimate, paired_difference
from harness.report.answer import named, shown
from harness.report.cells import Cell
from harness.report.conditions import Condition
from harness.report.figures import picture
from harness.report.style import Picture, key
from harness.report.text import ascii_visible, plain, quantity, visible

# From this many kinds on a sweep asks which damage hurts, not how much of one kind is survived.
MANY_KINDS = 4


@dataclass(frozen=True)
class Damage:
    """One cell under one corruption against the same cell on clean labels; `cost` < 0 where accuracy was lost."""

    label: str
    cell: Cell
    cost: Estimate


def damages(conditions: Sequence[Condition]) -> list[Damage]:
    """Every corrupted cell that has a clean partner; empty where fewer than `MANY_KINDS` kinds were swept."""
    if len({c.corruption for c in conditions if not c.clean}) < MANY_KINDS:
        return []
    found = []
    dials = len({(c.labels, c.misaligned) for c in conditions}) > 1
    for condition in conditions:
        setting = (condition.labels, condition.misaligned)
        clean = [c for c in conditions if c.clean and (c.labels, c.misaligned) == setting]
        if condition.clean or not clean:
            continue
        partners = {(c.first.objective, repr(c.first.hyperparameters)): c for c in clean[0].cells}
        for cell in condition.cells:
            partner = partners.get((cell.first.objective, repr(cell.first.hyperparameters)))
            if partner is None:
                continue
            cost = paired_difference(cell.values("ranking_accuracy"), partner.values("ranking_accuracy"))
            if cost.n:
                found.append(Damage(_label(condition, dials), cell, cost))
    return found


def _label(condition: Condition, dials: bool) -> str:
    first = condition.cells[0].first
    dial = f" (misaligned {plain(first.misaligned)})" if dials and first.misaligned is not None else ""
    return f"{first.corruption_text}{dial}"


def damage_sentence(found: Sequence[Damage], baseline: str) -> str | None:
    """Which damage costs the baseline and the other objectives most, in one sentence; None without differences."""
    own = [d for d in found if d.cell.first.objective == baseline]
    if not own:
        return None
    worst = min(own, key=lambda d: d.cost.mean)
    kinds = len({d.label for d in found})
    text = (
        f"Of {kinds} kinds of damage, {visible(worst.label)} costs {named(worst.cell)} the most ranking accuracy,"
        f" {shown(worst.cost)} against clean labels"
    )
    others = [min((d for d in found if d.cell.first.objective == name), key=lambda d: d.cost.mean)
              for name in dict.fromkeys(d.cell.first.objective for d in found) if name != baseline]  # fmt: skip
    if others:
        most = min(others, key=lambda d: d.cost.mean)
        text += f"; of the others {named(most.cell)} loses most, {shown(most.cost)} to {visible(most.label)}"
    return f"{text} ({quantity(worst.cost.n, 'seed')}, paired; the extremes of {len(found)} differences)."


def damage_picture(found: Sequence[Damage]) -> Picture | None:
    """A row a corruption, sorted by its mean cost, a mark an objective and beta."""
    if not found:
        return None
    labels = list(dict.fromkeys(d.label for d in found))
    mean = {label: math.fsum(d.cost.mean for d in found if d.label == label) for label in labels}
    labels.sort(key=lambda label: (-mean[label], label))
    names = list(dict.fromkeys(named(d.cell) for d in found))

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0, 0]
        for i, name in enumerate(names):
            own = [d for d in found if named(d.cell) == name]
            height = [labels.index(d.label) + (i - (len(names) - 1) / 2) * 0.7 / max(len(names), 1) for d in own]
            centre = [d.cost.mean for d in own]
            ends = [(_end(d.cost.mean - d.cost.low), _end(d.cost.high - d.cost.mean)) for d in own]
            style = {**key(i), "linestyle": "none", "label": ascii_visible(name)}
            panel.errorbar(centre, height, xerr=tuple(zip(*ends, strict=True)), elinewidth=0.9, **style)
        panel.axvline(0, color="#555555", linewidth=0.8)
        panel.set_yticks(range(len(labels)), [ascii_visible(label) for label in labels])
        panel.set_xlabel("ranking accuracy minus that on clean labels")
        panel.grid(axis="x")
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return picture(
        "damage",
        "What each kind of damage costs",
        "Ranking accuracy on clean held-out pairs after training on the damaged set, minus that after training on the"
        " clean one: mean and 95 % interval over seeds, paired. Left of the line: lost.",
        "Cost of each corruption in ranking accuracy, by objective.",
        (1, 1),
        (8.6, 0.34 * len(labels) + 1.1),
        paint,
    )


def _end(length: float) -> float:
    return length if math.isfinite(length) else 0.0
