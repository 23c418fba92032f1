"""What the cells of a sweep say about a claim: one function a claim, its cells fixed by the design.

Highest beta, dial or rate: never chosen by their result. None where the sweep has no such cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.metrics.statistics import SHARE_MARGIN, paired_differences
from harness.report.data.cells import Cell
from harness.report.data.context import Material, measured
from harness.report.data.families import Family
from harness.report.render.text import plain
from harness.report.sections.robustness import MEASURE


@dataclass(frozen=True)
class Evidence:
    """What the named cells say: `values` by seed of a quantity (named by `what`) that the claim puts above 0.

    The claim holds where the corrected interval lies above 0 and the mean reaches the margin (one point for shares),
    and fails where the interval lies below 0.
    """

    cells: str
    what: str
    values: Mapping[int, float]
    margin: float = 0.0


def _differences(one: Cell, other: Cell, measure: str = MEASURE) -> dict[int, float]:
    a, b = one.values(measure), other.values(measure)
    seeds = sorted(a.keys() & b.keys())
    return dict(zip(seeds, paired_differences(a, b).tolist(), strict=True))


def _minus(values: Mapping[int, float], amount: float) -> dict[int, float]:
    return {seed: value - amount for seed, value in values.items()}


def _hard(m: Material) -> Family | None:
    """The hard-label (or real-data) family with the highest dial."""
    found = [f for f in m.families if f.clean is not None and f.clean.labels != "bradley_terry"]
    return max(found, key=lambda f: (f.clean.misaligned or 0.0) if f.clean else 0.0, default=None)


def _top(cells: Sequence[Cell]) -> Cell | None:
    """The cell at the highest beta with any finished run."""
    return max(measured(cells), key=lambda cell: cell.first.beta or 0.0, default=None)


def _clean_top(m: Material, name: str) -> Cell | None:
    family = _hard(m)
    return _top(family.clean.by_objective.get(name, ())) if family and family.clean else None


def _misaligned(m: Material) -> bool:
    family = _hard(m)
    return bool(family and family.clean and (family.clean.misaligned is None or family.clean.misaligned > 0))


def _place(cell: Cell) -> str:
    first = cell.first
    dial = "" if first.misaligned is None else f", misaligned {plain(first.misaligned)}"
    damage = "clean" if first.corruption == "none" else f"{first.corruption_text}"
    return f"{cell.named}{dial}, {damage}"


def satisfied_too_early(m: Material) -> Evidence | None:
    """Loss fell while wrong, beyond 5 % of pairs."""
    cell = _clean_top(m, "dpo") if _misaligned(m) else None
    if cell is None:
        return None
    values = _minus(cell.fact_values("fell_while_wrong"), 0.05)
    return Evidence(_place(cell), "share of pairs whose loss fell while they are ranked wrong, minus .05", values)


def reward_hides_ranking(m: Material) -> Evidence | None:
    """Reward accuracy minus ranking accuracy beyond .05."""
    cell = _clean_top(m, "dpo") if _misaligned(m) else None
    if cell is None:
        return None
    a, b = cell.values("reward_accuracy"), cell.values(MEASURE)
    values = {seed: a[seed] - b[seed] - 0.05 for seed in sorted(a.keys() & b.keys())}
    return Evidence(_place(cell), "reward accuracy minus ranking accuracy, minus .05", values)


def grows_with_beta(m: Material) -> Evidence | None:
    """Undesirable zone at the highest beta minus at the lowest."""
    family = _hard(m)
    cells = measured(family.clean.by_objective.get("dpo", ())) if family and family.clean and _misaligned(m) else []
    betas = sorted(cells, key=lambda cell: cell.first.beta or 0.0)
    if len({cell.first.beta for cell in betas}) < 2:
        return None
    values = _differences(betas[-1], betas[0], "undesirable_zone")
    what = f"undesirable zone at beta {plain(betas[-1].first.beta)} minus at {plain(betas[0].first.beta)}"
    return Evidence(_place(betas[-1]), what, values, SHARE_MARGIN)


def accuracy_drops(m: Material) -> Evidence | None:
    """Reference accuracy minus ranking accuracy after training on clean labels."""
    cell = _clean_top(m, "dpo") if _misaligned(m) else None
    return None if cell is None else _drop(cell)


def accuracy_drops_under_noise(m: Material) -> Evidence | None:
    """The same at the highest corruption rate, with the best aligned reference."""
    found = [f for f in m.families if f.kinds]
    family = min(found, key=lambda f: f.conditions[0].misaligned or 0.0, default=None)
    if family is None:
        return None
    worst = max((c for c in family.conditions if not c.clean), key=lambda c: c.rate)
    cell = _top(worst.by_objective.get("dpo", ()))
    return None if cell is None else _drop(cell)


def _drop(cell: Cell) -> Evidence:
    reference, own = cell.reference, cell.values(MEASURE)
    values = {seed: reference[seed] - own[seed] for seed in sorted(reference.keys() & own.keys())}
    return Evidence(_place(cell), "the reference's ranking accuracy minus the policy's", values, SHARE_MARGIN)


def chosen_falls(m: Material) -> Evidence | None:
    """Minus the chosen displacement."""
    cell = _clean_top(m, "dpo")
    if cell is None:
        return None
    values = {seed: -value for seed, value in cell.finished("chosen_displacement").items()}
    return Evidence(_place(cell), "fall of the chosen log-prob, nats", values)


def constrained_keeps(m: Material) -> Evidence | None:
    """Constrained minus dpo, both at their highest beta, clean labels, highest dial."""
    return _versus(m, "cpo_smooth", "dpo") if _misaligned(m) else None


def rlhf_keeps(m: Material) -> Evidence | None:
    """RLHF minus dpo, both at their highest beta."""
    names = {name for family in m.families for name in family.objectives}
    name = next((name for name in ("ppo", "rloo", "grpo", "reinforce") if name in names), None)
    return _versus(m, name, "dpo") if name and _misaligned(m) else None


def _versus(m: Material, name: str, base: str) -> Evidence | None:
    one, other = _clean_top(m, name), _clean_top(m, base)
    if one is None or other is None:
        return None
    what = f"ranking accuracy minus that of {other.named}"
    return Evidence(_place(one), what, _differences(one, other), SHARE_MARGIN)


def _at_most_noise(m: Material, name: str) -> Evidence | None:
    """An objective minus dpo at the highest rate of uniform flips, each at its highest beta."""
    family = _hard(m)
    conditions = [c for c in family.conditions if c.corruption == "uniform_flip"] if family else []
    if not conditions:
        return None
    worst = max(conditions, key=lambda c: c.rate)
    one, other = _top(worst.by_objective.get(name, ())), _top(worst.by_objective.get("dpo", ()))
    if one is None or other is None:
        return None
    what = f"ranking accuracy minus that of {other.named}"
    return Evidence(_place(one), what, _differences(one, other), SHARE_MARGIN)


def robust(name: str) -> Callable[[Material], Evidence | None]:
    """The test of an objective that is said to stand flips better than dpo."""
    return lambda m: _at_most_noise(m, name)


def constrained_enforces_noise(m: Material) -> Evidence | None:
    """What flips cost the constrained objective minus what they cost dpo, at the highest betas, best reference."""
    found = [f for f in m.families if f.clean is not None and "uniform_flip" in {c.corruption for c in f.conditions}]
    family = min(found, key=lambda f: f.conditions[0].misaligned or 0.0, default=None)
    if family is None or family.clean is None:
        return None
    worst = max((c for c in family.conditions if c.corruption == "uniform_flip"), key=lambda c: c.rate)
    losses = {}
    for name in ("cpo_smooth", "dpo"):
        clean, noisy = _top(family.clean.by_objective.get(name, ())), _top(worst.by_objective.get(name, ()))
        if clean is None or noisy is None:
            return None
        losses[name] = _differences(clean, noisy)
    values = {s: losses["cpo_smooth"][s] - v for s, v in losses["dpo"].items() if s in losses["cpo_smooth"]}
    cell = _top(worst.by_objective["cpo_smooth"])
    what = "ranking accuracy lost to flips, minus what dpo loses"
    return Evidence("" if cell is None else _place(cell), what, values, SHARE_MARGIN)


def constrained_pays_kl(m: Material) -> Evidence | None:
    """KL of the constrained objective minus dpo's, same rank of beta, highest dial."""
    one, other = _clean_top(m, "cpo_smooth"), _clean_top(m, "dpo")
    if one is None or other is None:
        return None
    return Evidence(_place(one), f"KL (nats) minus that of {other.named}", _differences(one, other, "kl"))


def optimum_predicts(m: Material) -> Evidence | None:
    """Bradley-Terry labels: .1 minus |measured - predicted violated share|."""
    families = [f for f in m.families if f.clean is not None and f.clean.labels == "bradley_terry"]
    cell = _top(families[0].clean.by_objective.get("dpo", ())) if families and families[0].clean else None
    if cell is None:
        return None
    predicted, found = cell.theory_values("violated"), cell.theory_values("wrong")
    values = {s: 0.1 - abs(found[s] - predicted[s]) for s in sorted(predicted.keys() & found.keys())}
    what = ".1 minus the distance of measured and predicted share ranked wrong"
    return Evidence(f"{_place(cell)}, Bradley-Terry labels", what, values)


def stalls_within_budget(m: Material) -> Evidence | None:
    """Hard labels: ranking accuracy of dpo at the most steps minus at the fewest, everything else equal."""
    found: dict[str, dict[int, Cell]] = {}
    for family in m.families:
        if family.clean is not None and family.clean.labels == "hard" and (family.clean.misaligned or 0) > 0:
            for cell in measured(family.clean.by_objective.get("dpo", ())):
                rest = {**cell.first.config, "seed": 0, "training": {**cell.first.config["training"], "steps": 0}}
                found.setdefault(repr(sorted(rest.items())), {})[cell.first.planned_steps] = cell
    several = [cells for cells in found.values() if len(cells) > 1]
    if not several:
        return None
    cells = max(several, key=lambda one: one[max(one)].first.beta or 0.0)
    most, fewest = cells[max(cells)], cells[min(cells)]
    what = f"ranking accuracy after {max(cells)} steps minus after {min(cells)}"
    return Evidence(_place(most), what, _differences(most, fewest), SHARE_MARGIN)
