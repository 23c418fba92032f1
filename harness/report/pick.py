"""What to pick: the arm that ranks most pairs right over a setting's conditions, and whether its lead is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.measure.statistics import MIN_SEEDS, Estimate, bonferroni_interval, paired_differences, t_interval
from harness.report.cells import Cell
from harness.report.families import Family
from harness.report.material import Material
from harness.report.robustness import MEASURE, over_conditions
from harness.report.text import number, quantity, shown, visible


@dataclass(frozen=True, eq=False)
class Standing:
    """An arm with its mean ranking accuracy over all conditions of the family, by seed."""

    arm: str
    cell: Cell  # under the first condition
    values: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return math.fsum(self.values.values()) / len(self.values)


def standings(family: Family) -> list[Standing]:
    """Every arm with a cell and a common finished seed under every condition of the family, the best first."""
    found = []
    for name in family.objectives:
        for arm in family.arms(name):
            cells = [family.cell(arm, condition) for condition in family.conditions]
            values = dict(over_conditions(family, arm))
            if values and cells[0] is not None and None not in cells:
                found.append(Standing(arm, cells[0], values))
    return sorted(found, key=lambda one: -one.mean)


def pick_sentence(m: Material) -> str | None:
    """What survives best in the headline's setting, against the baseline at its own best beta."""
    ranked = standings(m.family)
    if len(ranked) < 2:
        return None
    best, count = ranked[0], len(m.family.conditions)
    own = next((one for one in ranked if one.cell.first.objective == m.baseline), None)
    over = f"over {count} conditions" if count > 1 else "there"
    where = f" with {m.family.title}" if m.family.title and count > 1 else ""
    mean = t_interval(list(best.values.values()))
    told = f"{best.cell.named} ranks most pairs right {over}{where}, {shown(mean)}{_ends(m.family, best)}"
    if own is None:
        return f"Of {len(ranked)} settings tested, {told} ({quantity(len(best.values), 'seed')})."
    if own is best:
        return _baseline_first(told, best, ranked[1], len(ranked))
    return _against(m, told, best, own, len(ranked))


def _ends(family: Family, best: Standing) -> str:
    """Its two ends, where rates were swept: clean and the rate that costs it most."""
    cells = [(c, cell) for c in family.conditions if (cell := family.cell(best.arm, c)) is not None]
    if len(cells) < 2:
        return ""
    worst = min(cells, key=lambda pair: pair[1].estimate(MEASURE).mean)
    return f" (lowest under {worst[0].damage}: {shown(worst[1].estimate(MEASURE))})"


def _lead(one: Standing, other: Standing, family: int) -> tuple[Estimate, int]:
    differences = paired_differences(one.values, other.values)
    n = int(differences.size)
    return (bonferroni_interval(differences, family) if n >= MIN_SEEDS else t_interval(differences)), n


def _baseline_first(told: str, best: Standing, second: Standing, count: int) -> str:
    lead, n = _lead(best, second, count - 1)
    return (
        f"Nothing tested is shown to beat it: {told}; {second.cell.named} comes next, {shown(lead)} ahead of it"
        f" ({quantity(n, 'seed')}, paired)."
    )


def _against(m: Material, told: str, best: Standing, own: Standing, count: int) -> str:
    # The pick is the best of many, so its lead is read against all it could have been.
    lead, n = _lead(best, own, count - 1)
    base = f"{own.cell.named}, the best {visible(m.baseline)},"
    if n < 2:
        return f"To look at next: {told}; it is {number(lead.mean)} ahead of {base} on one seed, which shows nothing."
    if n < MIN_SEEDS:
        return (
            f"To look at next: {told}; its lead on {base} is {shown(lead)} ({n} seeds, paired: an interval, no verdict"
            f" below {MIN_SEEDS} seeds)."
        )
    corrected = f"{n} seeds, paired, corrected for a pick among {count}"
    if lead.low > 0:
        return f"To pick: {told}; it beats {base} by {shown(lead)} ({corrected})."
    return f"Nothing is shown to beat {base} overall: {told}, a lead of {shown(lead)} ({corrected})."
