"""The tables of docs/statistics.md: how often intervals hold the truth, verdicts err, and real differences are found.

`python -m tests.metrics.simulate_coverage` prints them, `--write` puts them into the page; the same each time. Every
number comes from the functions that the report calls. Some 10 minutes on one core; tests repeat a part of it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from harness.metrics.aa import generator
from harness.metrics.robustness import breakdown_point
from harness.metrics.statistics import (
    Estimate,
    ItemLevel,
    SeedItems,
    Verdict,
    assumed_level,
    cell_estimate,
    item_level,
    joint_interval,
    judge,
    paired_differences,
    practical_margin,
    t_interval,
)

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"
Table = Iterator[Sequence[str]]


# Intervals of a mean.
SIZES = (5, 10, 30)
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

# Every kind has mean 0. Saturated: accuracies of .99 on 256 held-out pairs, seeds alike but for their items.
KINDS: Mapping[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "t, 5 df": lambda rng, shape: rng.standard_t(5, shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "lognormal": lambda rng, shape: rng.lognormal(size=shape) - np.exp(0.5),
    "saturated": lambda rng, shape: rng.binomial(256, 0.99, shape) / 256 - 0.99,
}


def studentised(values: np.ndarray, draws: int = 1000) -> Estimate:
    """The studentised bootstrap interval of a mean (Efron and Tibshirani 1993, ch. 12.5)."""
    ordered, n = np.sort(values), values.size
    mean = math.fsum(ordered) / n
    if ordered[0] == ordered[-1]:
        return Estimate(n, mean, mean, mean)
    drawn = ordered[generator("bootstrap studentised", ordered).integers(0, n, (draws, n))]
    moved, error = drawn.mean(axis=1) - mean, drawn.var(axis=1, ddof=1) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = moved / np.sqrt(error)
    ratio = np.where(error > 0, ratio, np.where(moved == 0, 0.0, np.copysign(np.inf, moved)))
    low, high = np.quantile(ratio, [0.025, 0.975], method="higher")
    scale = math.sqrt(float(ordered.var(ddof=1)) / n)
    return Estimate(n, mean, mean - float(high) * scale, mean - float(low) * scale)


METHODS = {"t": t_interval, "studentised": studentised}


def coverage(method: str, kind: str, n: int, repeats: int = 2000) -> float:
    """Share of `repeats` samples of size `n` whose interval holds the true mean."""
    rows = KINDS[kind](np.random.default_rng([n, *kind.encode()]), (repeats, n))
    return float(np.mean([not METHODS[method](row).excludes(0.0) for row in rows]))


def means_table() -> Table:
    columns = [(method, n) for method in METHODS for n in SIZES]
    yield ("data", *(f"{method}, n = {n}" for method, n in columns))
    for kind in KINDS:
        yield (kind, *(f"{coverage(m, kind, n):.3f}" for m, n in columns))


# Held-out pairs within prompts within seeds.
@dataclass(frozen=True)
class Design:
    """Accuracies of methods on `prompts` x `repeats` pairs per seed; `shared`: every seed has the same pairs.

    A method's accuracy on a seed is `level` plus normal effects of the seed (sd `seed`) and of method and seed (sd
    `method`); a pair is right where a normal score lies below the quantile of that accuracy. A share `.2` of the
    score's variance belongs to the prompt, `.2` to prompt and method, `.3` to the pair for all methods alike.
    """

    level: float
    seed: float
    method: float
    prompts: int = 256
    repeats: int = 1
    shared: bool = False

    def draw(self, rng: np.random.Generator, n: int, methods: int, effect: float = 0.0) -> np.ndarray:
        """Which pairs are right, `(methods, n, pairs)`; all but the first method are `effect` better."""
        seeds = 1 if self.shared else n
        shape = (seeds, self.prompts, 1)
        score = math.sqrt(0.2) * rng.normal(size=(1, *shape)) + math.sqrt(0.2) * rng.normal(size=(methods, *shape))
        pair = math.sqrt(0.3) * rng.normal(size=(1, seeds, self.prompts, self.repeats))
        rest = math.sqrt(0.3) * rng.normal(size=(methods, n, self.prompts, self.repeats))
        scores = (score + pair + rest).reshape(methods, n, -1)
        accuracy = self.level + self.seed * rng.normal(size=(1, n)) + self.method * rng.normal(size=(methods, n))
        accuracy[1:] += effect
        return np.asarray(scores < ndtri(np.clip(accuracy, 1e-9, 1 - 1e-9))[:, :, None])

    def items(self, right: np.ndarray, base: np.ndarray | None = None) -> ItemLevel | None:
        """The item level of one method's pairs `(n, pairs)`, or of a difference of two."""
        ids, prompts = self.names(right.shape[0])
        return item_level(
            {s: SeedItems(ids[s], prompts[s], row, None if base is None else base[s]) for s, row in enumerate(right)},
            self.shared,
        )

    @cache  # noqa: B019 - a handful of designs
    def names(self, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Ids and prompts of the pairs of each seed."""
        ids, prompts = [], []
        for seed in range(n):
            of = "" if self.shared else f"{seed}/"
            each = [f"{of}{i}" for i in range(self.prompts) for _ in range(self.repeats)]
            prompts.append(np.array(each, dtype=object))
            ids.append(np.array([f"{name}/{i}" for i, name in enumerate(each)], dtype=object))
        return ids, prompts


# Accuracies above .99 cannot have normal effects of seeds without a bound, so those designs have none.
CELLS: Mapping[str, Design] = {
    "own pairs, accuracy .70, sd over seeds .03": Design(0.7, 0.03, 0.015),
    "own pairs, .97": Design(0.97, 0.0, 0.005),
    "own pairs, .99": Design(0.99, 0.0, 0.0),
    "own pairs, .999": Design(0.999, 0.0, 0.0),
    "own pairs, .999, 4 per prompt": Design(0.999, 0.0, 0.0, 64, 4),
    "shared pairs, .70, sd .03": Design(0.7, 0.03, 0.015, shared=True),
    "shared pairs, .70, sd .005": Design(0.7, 0.005, 0.002, shared=True),
    "shared pairs, .70, 4 per prompt": Design(0.7, 0.005, 0.002, 64, 4, shared=True),
    "shared pairs, .999": Design(0.999, 0.0, 0.0, shared=True),
}
CELL_N = (4, 10)


def cell_coverage(name: str, n: int, repeats: int = 2000) -> tuple[float, float, float]:
    """Share of intervals of an accuracy that hold it: t over seeds alone, the report's, and the older rule's, which
    was never narrower than Wilson's interval on the pairs of one seed."""
    design, rng = CELLS[name], np.random.default_rng([n, *name.encode()])
    held = np.zeros(3)
    for _ in range(repeats):
        (right,) = design.draw(rng, n, 1)
        values, pairs = right.mean(axis=1), right.shape[1]
        ways = (t_interval(values), cell_estimate(values, design.items(right)), cell_estimate(values, pairs))
        held += [not one.excludes(design.level) for one in ways]
    t, ours, older = (held / repeats).tolist()
    return t, ours, older


def cells_table() -> Table:
    yield ("pairs", *(f"{way}, n = {n}" for n in CELL_N for way in ("t alone", "report", "floor of one seed")))
    for name in CELLS:
        yield (name, *(f"{share:.3f}" for n in CELL_N for share in cell_coverage(name, n)))


# A family of comparisons with one baseline.
RIVALS = 17
FAMILY_N = (4, 6, 10)
OF_PAIRS: Mapping[str, Design] = {
    "nested: own pairs, 4 per prompt": Design(0.7, 0.03, 0.015, 64, 4),
    "bounded: accuracy .985": Design(0.985, 0.0, 0.003),
    "shared pairs": Design(0.7, 0.03, 0.015, shared=True),
    "shared pairs, 4 per prompt": Design(0.7, 0.03, 0.015, 64, 4, shared=True),
}
# Noise of a method on a seed, sd .02. A/A: whatever its shape, two methods that do not differ differ symmetrically.
NOISE: Mapping[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, shape: 0.02 * rng.normal(size=shape),
    "skewed: exponential": lambda rng, shape: 0.02 * (rng.exponential(size=shape) - 1),
    "skewed: lognormal": lambda rng, shape: 0.02 * (rng.lognormal(size=shape) - math.exp(0.5)) / 2.161197,
}
FAMILIES = (*NOISE, *OF_PAIRS)


def judged(kind: str, rng: np.random.Generator, n: int, rivals: int, family: int, effect: float = 0.0) -> list[Verdict]:
    """The report's verdicts on `rivals` methods that are `effect` better than the baseline, one drawn sweep."""
    if kind in NOISE:
        table = NOISE[kind](rng, (rivals + 1, n))
        table[1:] += effect
        return [judge(dict(enumerate(row - table[0])), family=family) for row in table[1:]]
    design = OF_PAIRS[kind]
    base, *others = design.draw(rng, n, rivals + 1, effect)
    out = []
    for right in others:
        differences = dict(enumerate((right.mean(axis=1) - base.mean(axis=1)).tolist()))
        out.append(judge(differences, family=family, margin=practical_margin(True), items=design.items(right, base)))
    return out


def called(verdict: Verdict, share: bool) -> bool:
    """Whether the corrected interval shows a difference: from 6 seeds on the word, below what it would be."""
    return verdict.corrected.excludes(0.0) and abs(verdict.corrected.mean) >= practical_margin(share)


@dataclass(frozen=True)
class FamilyResult:
    """Of drawn sweeps without any difference: `covered`, the share of plain 95 % intervals that hold 0; `error`, the
    share of sweeps with any difference called; `mde`, the mean of the stated minimum detectable effects. `power`: share
    called where the true difference is `mde`."""

    covered: float
    error: float
    mde: float
    power: float


def family_error(kind: str, n: int, sweeps: int) -> float:
    """`FamilyResult.error` alone, from draws of its own."""
    rng, share = np.random.default_rng([n, 2, *kind.encode()]), kind in OF_PAIRS
    wrong = (any(called(one, share) for one in judged(kind, rng, n, RIVALS, RIVALS)) for _ in range(sweeps))
    return sum(wrong) / sweeps


def family_result(kind: str, n: int, sweeps: int = 500, rivals: int = RIVALS) -> FamilyResult:
    """`RIVALS` comparisons with one baseline on `n` seeds."""
    rng, share = np.random.default_rng([n, *kind.encode()]), kind in OF_PAIRS
    null = [judged(kind, rng, n, rivals, rivals) for _ in range(sweeps)]
    every = [verdict for sweep in null for verdict in sweep]
    mde = math.fsum(verdict.mde or 0.0 for verdict in every) / len(every)
    effect = -mde if share else mde  # an accuracy has more room below than above
    found = [called(judged(kind, rng, n, 1, rivals, effect)[0], share) for _ in range(4 * sweeps)]
    return FamilyResult(
        float(np.mean([not verdict.plain.excludes(0.0) for verdict in every])),
        float(np.mean([any(called(verdict, share) for verdict in sweep) for sweep in null])),
        mde,
        float(np.mean(found)),
    )


def families_table() -> Table:
    yield ("data", "95 % interval holds 0", "family error", "MDE", "power")
    for kind in FAMILIES:
        for n in FAMILY_N:
            one = family_result(kind, n)
            yield (f"{kind}; {n} seeds", *(f"{x:.3f}" for x in (one.covered, one.error, one.mde, one.power)))


def pick_error(kind: str, n: int = 4, sweeps: int = 1000) -> tuple[float, float]:
    """How often the lead of the best of 17 equal rivals on the baseline excludes 0: its interval alone, corrected."""
    rng = np.random.default_rng([n, 17, *kind.encode()])
    out = np.zeros(2)
    for _ in range(sweeps):
        best = max(judged(kind, rng, n, RIVALS, RIVALS), key=lambda verdict: verdict.plain.mean)
        out += [best.plain.excludes(0.0), best.corrected.excludes(0.0)]
    plain, corrected = (out / sweeps).tolist()
    return plain, corrected


def pick_table() -> Table:
    yield ("data, 4 seeds", "interval of one comparison", "corrected for 17")
    for kind in FAMILIES[:4]:
        yield (kind, *(f"{share:.3f}" for share in pick_error(kind)))


def floor_power(family: int, design: Design, n: int = 10, repeats: int = 1000) -> tuple[float, float]:
    """Share of true 5-point differences called: by the report's rule, and with the floor of one seed's pairs."""
    rng, margin = np.random.default_rng([n, family, 5]), practical_margin(True)
    out = np.zeros(2)
    for _ in range(repeats):
        base, right = design.draw(rng, n, 2, 0.05)
        a, b = (dict(enumerate(one.mean(axis=1).tolist())) for one in (right, base))
        differences = dict(enumerate(paired_differences(a, b).tolist()))
        both = dict(enumerate((base & right).mean(axis=1).tolist()))
        floor = assumed_level(a, b, right.shape[1], True, both)
        ours = judge(differences, family=family, margin=margin, items=design.items(right, base))
        older = joint_interval(list(differences.values()), floor, 1 - 0.05 / family)
        out += [called(ours, True), older.excludes(0.0) and older.mean >= margin]
    now, before = (out / repeats).tolist()
    return now, before


def floor_table() -> Table:
    families = (1, 18, 90)
    yield ("pairs", *(f"{way}, family of {family}" for family in families for way in ("report", "old floor")))
    designs = {"own pairs, accuracy .90, 1 per prompt": Design(0.9, 0.01, 0.005)} | OF_PAIRS
    for name, design in designs.items():
        if design.level + 0.05 < 1:
            powers = [floor_power(family, design) for family in families]
            yield (name, *(f"{share:.3f}" for power in powers for share in power))


# Breakdown points.
BREAKDOWN_N = (2, 3, 4, 6, 10)
BREAKDOWN_RATES: Mapping[tuple[float, ...], str] = {
    (0.0, 0.2, 0.4): "3 rates",
    (0.0, 0.1, 0.2, 0.3, 0.4): "5 rates",
}
CROSSING = 0.22
# Each falls through 0 at .22, once.
CURVES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "straight": lambda x: CROSSING - x,
    "bent down": lambda x: np.where(x < CROSSING, 0.03 * (CROSSING - x) / CROSSING, 3 * (CROSSING - x)),
    "bent up": lambda x: np.where(x < CROSSING, 2 * (CROSSING - x), 0.2 * (CROSSING - x)),
    "a step": lambda x: np.where(x < CROSSING, 0.2, -0.2),
    "touching at .2": lambda x: np.where(x < CROSSING, 1e-3 * (x > 0.15) + 0.2 * (x <= 0.15), CROSSING - x - 0.1),
}


def breakdown_coverage(curve: str, rates: Sequence[float], n: int, repeats: int = 2000) -> float:
    """Share of sets that hold the crossing; seeds shift whole curves, sd .05, and each point by as much."""
    rng = np.random.default_rng([n, len(rates), *curve.encode()])
    mean, held = CURVES[curve](np.array(rates)), 0
    for _ in range(repeats):
        table = mean[:, None] + rng.normal(0, 0.05, n) + rng.normal(0, 0.05, (len(rates), n))
        found = breakdown_point(rates, [t_interval(row) for row in table])
        held += not (found.low > CROSSING or found.high < CROSSING)
    return held / repeats


def breakdown_table() -> Table:
    yield ("curve", *(f"{name}, n = {n}" for name in BREAKDOWN_RATES.values() for n in BREAKDOWN_N))
    for curve in CURVES:
        shares = [breakdown_coverage(curve, rates, n) for rates in BREAKDOWN_RATES for n in BREAKDOWN_N]
        yield (curve, *(f"{share:.3f}" for share in shares))


TABLES: Mapping[str, Callable[[], Table]] = {
    "means": means_table,
    "cells": cells_table,
    "families": families_table,
    "pick": pick_table,
    "floor": floor_table,
    "breakdown": breakdown_table,
}


def markdown(rows: Table) -> str:
    """A table's rows, its header first."""
    header, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rest))


def stated(name: str) -> dict[str, list[str]]:
    """A table as the page has it: its cells by the first of each row."""
    text = PAGE.read_text("utf-8").split(f"<!-- {name} -->\n")[1].split("<!-- end -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.strip().splitlines()]
    return {row[0]: row[1:] for row in rows}


def main() -> None:
    """Print every table, or those named, in Markdown; `--write`: put them into the page."""
    names = [name for name in sys.argv[1:] if name != "--write"] or list(TABLES)
    for name in names:
        table = markdown(TABLES[name]())
        print(f"{name}\n{table}\n", flush=True)
        if "--write" in sys.argv:
            before, rest = PAGE.read_text("utf-8").split(f"<!-- {name} -->\n")
            after = rest.split("<!-- end -->", 1)[1]
            PAGE.write_text(f"{before}<!-- {name} -->\n{table}\n<!-- end -->{after}", "utf-8")


if __name__ == "__main__":
    main()
