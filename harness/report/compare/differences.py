"""What differs between levels: each matching cell, the order of objectives, and the slope over model size.

Seeds that both levels have are compared with each other; where too few are common, all seeds are, as independent
samples. Everything that gets a verdict between levels is one family: matching cells x measures x levels, changes of the
order, slopes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.metrics.statistics import (
    MIN_SEEDS,
    Estimate,
    ItemLevel,
    Pairs,
    Verdict,
    independent_contrast,
    judge,
    practical_margin,
    word_of,
)
from harness.report.compare.levels import Alignment, Match
from harness.report.data.cells import RANKING, Cell
from harness.report.data.contrasts import DIRECTIONS
from harness.report.data.tables import MEASURES

BETTER, WORSE = "better", "worse"


@dataclass(frozen=True, eq=False)
class Difference:
    """A matching cell on one measure: level `other` minus the first. `paired`: over common seeds."""

    match: Match
    other: int
    measure: str
    paired: bool
    verdict: Verdict

    @property
    def shown(self) -> bool:
        """Whether a difference is shown."""
        return self.verdict.word in (BETTER, WORSE)


@dataclass(frozen=True, eq=False)
class Order:
    """An objective's best cell against the baseline's under one condition, in every level that has both.

    `by_level`: the verdict in each level; `changes`: that of each other level's difference minus the first's.
    """

    cell: Match
    base: Match
    by_level: Mapping[int, Verdict]
    changes: Mapping[int, Verdict]

    @property
    def word(self) -> str:
        """holds: the same verdict in every level; reversed: shown the other way in one; changed: shown to differ in
        size; none: shown in no level; open: shown in some level, and neither of these."""
        words = {verdict.word for verdict in self.by_level.values()}
        shown = words & {BETTER, WORSE}
        if len(shown) == 2:
            return "reversed"
        if any(verdict.word in (BETTER, WORSE) for verdict in self.changes.values()):
            return "changed"
        if not shown:
            return "none"
        return "holds" if len(words) == 1 else "open"


@dataclass(frozen=True, eq=False)
class Slope:
    """The change of a measure per decade of parameters, of a cell that every level of known size has."""

    match: Match
    measure: str
    paired: bool
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Differences:
    """Everything that was tested. Corrected intervals hold for a `family` of tests between sweeps, and for a family of
    `family_within` orders within them."""

    alignment: Alignment
    baseline: str
    family: int
    family_within: int
    cells: tuple[Difference, ...]
    orders: tuple[Order, ...]
    slopes: tuple[Slope, ...]

    @cached_property
    def shown(self) -> tuple[Difference, ...]:
        """The differences between levels that are shown: those of ranking accuracy first, then measure by measure, as
        their units differ; of one measure the largest first."""
        order = (RANKING, *DIRECTIONS)
        found = [one for one in self.cells if one.shown]
        return tuple(sorted(found, key=lambda one: (order.index(one.measure), -abs(one.verdict.plain.mean))))


def compare_levels(alignment: Alignment, baseline: str) -> Differences:
    """All differences, orders and slopes of an alignment; `baseline` is the objective that orders are against."""
    measured = [
        (match, other, measure)
        for match in alignment.matches
        for other in match.cells
        if other
        for measure in DIRECTIONS
        if match.first.values(measure) and match.cells[other].values(measure)
    ]
    pairs = _order_pairs(alignment, baseline)
    sized = _sized(alignment)
    sloped = [
        (match, measure)
        for match in (alignment.matches if sized else ())
        for measure in DIRECTIONS
        if all(i in match.cells and match.cells[i].values(measure) for i in sized)
    ]
    # With two levels a slope is the difference itself on another scale, and no further test.
    more = len(sloped) if len(sized) > 2 else 0
    within = max(1, sum(len(_common(*pair)) for pair in pairs))
    family = max(1, len(measured) + sum(len(_common(*pair)) - 1 for pair in pairs) + more)
    return Differences(
        alignment,
        baseline,
        family,
        within,
        tuple(_difference(match, other, measure, family) for match, other, measure in measured),
        tuple(_order(cell, base, family, within) for cell, base in pairs),
        tuple(_slope(match, measure, sized, family) for match, measure in sloped),
    )


def _difference(match: Match, other: int, measure: str, family: int) -> Difference:
    first, second = match.first, match.cells[other]
    verdict, paired = contrast([(first, -1.0), (second, 1.0)], measure, family)
    return Difference(match, other, measure, paired, verdict)


def contrast(weighted: Sequence[tuple[Cell, float]], measure: str, family: int) -> tuple[Verdict, bool]:
    """The verdict on a weighted sum of cells' means, and whether it is over common seeds."""
    share, direction = MEASURES[measure], DIRECTIONS[measure]
    values = [cell.values(measure) for cell, _ in weighted]
    weights = [weight for _, weight in weighted]
    common = set.intersection(*(set(by_seed) for by_seed in values))
    margin = practical_margin(share)
    planned = min(cell.planned for cell, _ in weighted)
    if common and (len(common) >= MIN_SEEDS or len(common) == min(map(len, values))):
        sums = {seed: math.fsum(w * v[seed] for w, v in zip(weights, values, strict=True)) for seed in sorted(common)}
        planned = len(set.intersection(*({run.seed for run in cell.runs} for cell, _ in weighted)))
        verdict = judge(
            sums, family=family, planned=planned, margin=margin, direction=direction, items=_items(weighted, measure)
        )
        return verdict, True
    samples = [list(by_seed.values()) for by_seed in values]
    plain = independent_contrast(weights, samples)
    corrected = independent_contrast(weights, samples, 1 - 0.05 / family)
    return Verdict(plain, corrected, word_of(corrected, planned, margin, direction), family, None), False


def _items(weighted: Sequence[tuple[Cell, float]], measure: str) -> ItemLevel | None:
    """What single pairs add to t over seeds; of more than a difference, their variance where seeds share pairs."""
    if [weight for _, weight in weighted] == [-1.0, 1.0]:
        (first, _), (second, _) = weighted
        return second.item_level(measure, first)
    if not MEASURES[measure] or not weighted[0][0].shares_pairs:
        return None
    added, least, mean = 0.0, math.inf, 0.0
    for cell, weight in weighted:
        values, pairs = cell.values(measure), min(cell.items(measure) or [0])
        if not pairs:
            return None
        mean = math.fsum(values.values()) / len(values)
        added, least = added + weight**2 * mean * (1 - mean) / pairs, min(least, pairs)
    return ItemLevel(Pairs(mean, None, None, least), added=added, prompts=int(least))


def _order_pairs(alignment: Alignment, baseline: str) -> list[tuple[Match, Match]]:
    """Under each condition of the first level, the best cell of every other objective with the baseline's best.

    Equal betas are points on different scales. The best is chosen by the mean over all levels, so that the choice
    favours none of them.
    """
    groups: dict[str, dict[str, list[Match]]] = {}
    for match in alignment.matches:
        first = match.first.first
        groups.setdefault(first.condition, {}).setdefault(first.objective, []).append(match)
    pairs = []
    for by_objective in groups.values():
        best = {name: max(matches, key=_ranked) for name, matches in by_objective.items()}
        pairs += [(cell, best[baseline]) for name, cell in best.items() if name != baseline and baseline in best]
    return [pair for pair in pairs if len(_common(*pair)) > 1]


def _ranked(match: Match) -> tuple[int, float]:
    """Levels with a ranking accuracy, then its mean over them."""
    means = [one.mean for cell in match.cells.values() if (one := cell.estimate(RANKING)).n and math.isfinite(one.mean)]
    return len(means), math.fsum(means) / len(means) if means else 0.0


def _common(cell: Match, base: Match) -> list[int]:
    """Levels in which both cells have ranking accuracies, if the first has."""
    levels = [
        i for i in sorted(cell.cells.keys() & base.cells.keys()) if cell.cells[i].values(RANKING)
        and base.cells[i].values(RANKING)
    ]  # fmt: skip
    return levels if levels and levels[0] == 0 else []


def _order(cell: Match, base: Match, family: int, family_within: int) -> Order:
    levels = _common(cell, base)

    def weighted(i: int, sign: float) -> list[tuple[Cell, float]]:
        return [(base.cells[i], -sign), (cell.cells[i], sign)]

    by_level = {i: contrast(weighted(i, 1.0), RANKING, family_within)[0] for i in levels}
    changes = {i: contrast([*weighted(i, 1.0), *weighted(0, -1.0)], RANKING, family)[0] for i in levels[1:]}
    return Order(cell, base, by_level, changes)


def _sized(alignment: Alignment) -> dict[int, float]:
    """log10 of the parameters of each level, where all are known and two differ; else nothing."""
    sizes = [level.parameters for level in alignment.levels]
    if None in sizes or len(set(sizes)) < 2:
        return {}
    return {i: math.log10(size) for i, size in enumerate(sizes) if size}


def _slope(match: Match, measure: str, sized: Mapping[int, float], family: int) -> Slope:
    """Least squares over log10(parameters): a weighted sum of the levels' means."""
    mean = math.fsum(sized.values()) / len(sized)
    spread = math.fsum((x - mean) ** 2 for x in sized.values())
    if len(sized) > 2:
        verdict, paired = contrast([(match.cells[i], (x - mean) / spread) for i, x in sized.items()], measure, family)
        return Slope(match, measure, paired, verdict)
    (small, low), (large, high) = sorted(sized.items(), key=lambda one: one[1])
    verdict, paired = contrast([(match.cells[small], -1.0), (match.cells[large], 1.0)], measure, family)
    return Slope(match, measure, paired, _scaled(verdict, 1 / (high - low)))


def _scaled(verdict: Verdict, factor: float) -> Verdict:
    plain, corrected = (
        Estimate(one.n, factor * one.mean, factor * one.low, factor * one.high)
        for one in (verdict.plain, verdict.corrected)
    )
    return Verdict(plain, corrected, verdict.word, verdict.family, verdict.mde and factor * verdict.mde)
