"""What to pick: the arm that ranks most pairs right over a setting's conditions, and whether its lead is shown."""

from __future__ import annotations

from harness.metrics.statistics import MIN_SEEDS, Estimate, bonferroni_interval, paired_differences, t_interval
from harness.report.data.context import Material
from harness.report.data.families import Family
from harness.report.render.text import number, quantity, shown, visible
from harness.report.sections.robustness import MEASURE, Path, paths


def standings(family: Family) -> list[Path]:
    """Every arm with a seed that ended under every condition of the family, the best first.

    Where one kind of corruption was swept, an arm's height is the area under its survival curve.
    """
    kind = next(iter(family.kinds)) if len(family.kinds) == 1 else None
    found = [path for name in family.objectives for path in paths(family, kind, name)]
    whole = [path for path in found if path.by_seed and len(path.points) == len(family.conditions)]
    return sorted(whole, key=lambda path: -path.height)


def pick_sentence(m: Material) -> str | None:
    """What survives best in the headline's setting, against the baseline at its own best beta."""
    ranked = standings(m.family)
    if len(ranked) < 2:
        return None
    best, count = ranked[0], len(m.family.conditions)
    own = next((one for one in ranked if one.first.first.objective == m.baseline), None)
    over = f"over {count} conditions" if count > 1 else "there"
    where = f" with {m.family.title}" if m.family.title and count > 1 else ""
    told = f"{best.first.named} ranks most pairs right {over}{where}, {shown(best.area)}{_ends(best)}"
    if own is None:
        return f"Of {len(ranked)} settings tested, {told} ({quantity(len(best.by_seed), 'seed')})."
    if own is best:
        return _baseline_first(told, best, ranked[1], len(ranked))
    return _against(m, told, best, own, len(ranked))


def _ends(best: Path) -> str:
    """Where it stands worst, if there are several conditions."""
    if len(best.points) < 2:
        return ""
    condition, cell = min(best.points, key=lambda point: point[1].estimate(MEASURE).mean)
    return f" (lowest under {condition.damage}: {shown(cell.estimate(MEASURE))})"


def _lead(one: Path, other: Path, family: int) -> tuple[Estimate, int]:
    differences = paired_differences(one.by_seed, other.by_seed)
    n = int(differences.size)
    return (bonferroni_interval(differences, family) if n >= MIN_SEEDS else t_interval(differences)), n


def _baseline_first(told: str, best: Path, second: Path, count: int) -> str:
    lead, n = _lead(best, second, count - 1)
    name = visible(best.first.first.objective)
    return (
        f"Nothing tested is shown to beat {name}: {told}, {shown(lead)} more than the next, {second.first.named}"
        f" ({quantity(n, 'seed')}, paired)."
    )


def _against(m: Material, told: str, best: Path, own: Path, count: int) -> str:
    # The pick is the best of many, so its lead is read against all it could have been.
    lead, n = _lead(best, own, count - 1)
    base = f"{own.first.named}, the best {visible(m.baseline)},"
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
