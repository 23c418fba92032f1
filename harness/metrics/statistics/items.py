"""Noise of held-out pairs that all seeds share, added to the variance that seeds show.

Where every seed holds out pairs of its own, t over seeds already contains the noise of pairs, and nothing is added
unless nearly all pairs agree. Where seeds share pairs, t over seeds cannot see that noise: its variance is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.metrics.statistics.intervals import (
    MIN_SEEDS,
    Estimate,
    Floats,
    finite,
    moments,
    t_degrees,
    t_quantile,
    wilson_ends,
)
from harness.metrics.statistics.paired import newcombe_paired

# Below this many pairs that disagree with the rest, over all seeds, the normal approximation behind t is poor.
FEW = 10


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs behind a share, or behind `first` minus `second`, as if `items` independent ones.

    `both`: share of pairs that count in both; None where it is not known, which takes the two as independent.
    """

    first: float
    second: float | None
    both: float | None
    items: float

    def interval(self, level: float) -> Estimate:
        """Wilson's interval of one share, Newcombe's paired interval of a difference."""
        if self.second is None:
            return Estimate(int(self.items), self.first, *wilson_ends(self.first, self.items, level))
        return newcombe_paired(self.first, self.second, self.both, self.items, level)

    @property
    def discordant(self) -> float:
        """Share of pairs on which the two disagree (of one share: the rarer outcome); at most, where not known."""
        if self.second is None:
            return min(self.first, 1 - self.first)
        total = self.first + self.second
        return min(total, 2 - total) if self.both is None else max(0.0, total - 2 * self.both)

    def added_by(self, effect: float) -> float:
        """What a true difference of `effect` would add to the variance of the difference: it brings pairs of its own on
        which the two disagree, most of all where nearly all are right. Dependence between the two stays as it is."""
        if self.second is None:
            return 0.0
        high = max(self.first + self.second, 2 - self.first - self.second) / 2
        low = max(high - effect, 0.0)
        before, after = 2 * high * (1 - high), high * (1 - low) + low * (1 - high)
        grown = max(effect, self.discordant * after / before) if before > 0 else effect
        return max(0.0, grown - effect**2 - self.discordant) / self.items


@dataclass(frozen=True, slots=True)
class ItemLevel:
    """What the pairs say beyond t over seeds: `added` to the variance of the mean, on `prompts` clusters; with `floor`
    no interval is narrower than that of the `pairs`."""

    pairs: Pairs
    floor: bool = False
    added: float = 0.0
    prompts: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class SeedItems:
    """The held-out pairs of one seed: `ids`, `prompts` (text) and whether each counts, all `(n,)`.

    `base`: the same pairs under the method that is subtracted; None for a share on its own.
    """

    ids: NDArray[np.object_]
    prompts: NDArray[np.object_]
    counts: NDArray[np.bool_]
    base: NDArray[np.bool_] | None = None


def seeds_share(ids: Sequence[NDArray[np.object_]]) -> bool:
    """Whether any pair is held out by two of the seeds."""
    sets = [set(some.tolist()) for some in ids]
    return len(set().union(*sets)) < sum(map(len, sets))


def item_level(by_seed: Mapping[int, SeedItems], shared: bool) -> ItemLevel | None:
    """The item level of a share, or of a difference of two, from single pairs; None where there are none.

    Shared pairs: `added` is the mean covariance between two seeds, estimated from the prompts that they share: what
    two-way clustered variance (Cameron, Gelbach and Miller 2011) has beyond its part by seed, without its bias at few
    seeds. Fewer than `FEW` pairs that disagree, over all seeds: a floor on the number of pairs, divided by the design
    effect of their prompts; where all agree, a prompt counts as one pair.
    """
    seeds = sorted(by_seed)
    sizes = [by_seed[seed].ids.size for seed in seeds]
    if not seeds or min(sizes) == 0:
        return None
    counts = np.concatenate([by_seed[seed].counts for seed in seeds]).astype(np.float64)
    bases = [one for seed in seeds if (one := by_seed[seed].base) is not None]
    base = np.concatenate(bases).astype(np.float64) if len(bases) == len(seeds) else None
    both = None if base is None else float(np.mean(counts * base))
    pairs = Pairs(float(counts.mean()), None if base is None else float(base.mean()), both, float(counts.size))
    few = pairs.discordant * pairs.items < FEW
    if not (shared or few):
        return ItemLevel(pairs)
    values = counts if base is None else counts - base
    of_seed = np.repeat(np.arange(len(seeds)), sizes)
    means = np.bincount(of_seed, weights=values) / sizes
    codes: dict[str, int] = {}
    of_prompt = [
        codes.setdefault(str(prompt), len(codes)) for seed in seeds for prompt in by_seed[seed].prompts.tolist()
    ]
    # Of each prompt in each seed: the sum of its residuals, weighted as in the mean over seeds.
    both_of, index = np.unique(np.array(of_prompt) * len(seeds) + of_seed, return_inverse=True)
    place, of = np.divmod(both_of, len(seeds))
    residuals = np.bincount(index, weights=values) - np.bincount(index) * means[of]
    totals = residuals / (len(seeds) * np.array(sizes)[of])
    degrees = both_of.size / max(both_of.size - len(seeds), 1)
    by_both = math.fsum(totals**2) * degrees
    by_prompt = math.fsum(np.bincount(place, weights=totals) ** 2) * degrees
    prompts = len(codes) if shared else both_of.size
    added = max(0.0, by_prompt - by_both) * len(seeds) / (len(seeds) - 1) if shared and len(seeds) > 1 else 0.0
    if few:
        by_cluster, spread = by_prompt if shared else by_both, math.fsum((values - means[of_seed]) ** 2) / values.size
        items = float(prompts) if by_cluster == 0 else min(float(values.size), max(1.0, spread / by_cluster))
        pairs = replace(pairs, items=items)
    return ItemLevel(pairs, few, added, prompts)


def assumed_level(
    a: Mapping[int, float],
    b: Mapping[int, float] | None,
    items: int | Sequence[int] | None,
    shared: bool,
    both: Mapping[int, float] | None = None,
) -> ItemLevel | None:
    """The item level where only the shares by seed and the `items` behind each are known; None without any.

    `shared`: the pairs are taken as those of one seed, the smallest, and the interval is never narrower than those
    allow. Otherwise there is a floor, on all pairs, only where fewer than `FEW` of them can disagree. `both`: by seed,
    the share of pairs that count in both; it is used where every seed has it.
    """
    seeds = sorted(a if b is None else a.keys() & b.keys())
    least = items if isinstance(items, int) else min(items or (0,))
    if not seeds or least < 1:
        return None

    def mean(shares: Mapping[int, float]) -> float:
        return math.fsum(shares[seed] for seed in seeds) / len(seeds)

    first, second = mean(a), None if b is None else mean(b)
    if not all(0 <= share <= 1 for share in (first, second) if share is not None):
        raise ValueError(f"a share must lie in [0, 1], the means are {first} and {second}")
    common = mean(both) if both is not None and all(seed in both for seed in seeds) else None
    pairs = Pairs(first, second, common, float(least * (1 if shared else len(seeds))))
    return ItemLevel(pairs, floor=shared or pairs.discordant * pairs.items < FEW)


def cell_estimate(
    seed_values: ArrayLike,
    items: int | Sequence[int] | ItemLevel | None = None,
    share: bool = True,
    level: float = 0.95,
    shared: bool = True,
) -> Estimate:
    """Mean of one cell over its seeds (n,) with an interval that speaks about new seeds and new items.

    Student t at every n. For a share it is clipped to [0, 1] and joined with the item level: that of single pairs, or,
    where only their number by seed is known (one number, or one per seed), `assumed_level`. A single seed has no
    interval, since items say nothing about other seeds.
    """
    array = finite(seed_values)
    if not share or array.size < 2:
        return joint_interval(array, None, level)
    if not isinstance(items, ItemLevel):
        items = assumed_level(dict(enumerate(np.sort(array).tolist())), None, items, shared)
    estimate = joint_interval(array, items, level)
    if not 0 <= estimate.mean <= 1:
        raise ValueError(f"a share must lie in [0, 1], its mean is {estimate.mean}")
    return Estimate(estimate.n, estimate.mean, max(0.0, estimate.low), min(1.0, estimate.high))


def joint_interval(values: ArrayLike, items: ItemLevel | None = None, level: float = 0.95) -> Estimate:
    """Mean of `values` (n,) over seeds with Student's t, widened by what the item level adds; none below 2 seeds."""
    array = finite(values)
    if array.size < 2:
        return Estimate(array.size, float(array[0]) if array.size else math.nan, math.nan, math.nan)
    mean, error, df = standard_error(array, items, level)
    half = t_quantile(level, df) * error
    low, high = mean - half, mean + half
    if items is not None and items.floor:
        least = items.pairs.interval(level)
        low, high = min(low, least.low), max(high, least.high)
    return Estimate(array.size, mean, low, high)


def standard_error(values: Floats, items: ItemLevel | None, level: float) -> tuple[float, float, float]:
    """Mean of `values` (n,), n >= 2, its standard error, and the degrees of freedom of an interval at `level`.

    Of two parts of variance: Satterthwaite's. Below `MIN_SEEDS` those at which t has Cochran and Cox's critical value
    (1950), the mean of the parts' own weighted by the parts: the variance of a few seeds that is small by chance would
    give Satterthwaite's formula many degrees, and the corrected intervals of 17 comparisons on 4 seeds err in 9 %.
    """
    mean, error = moments(values)
    df = float(values.size - 1)
    if items is None or items.added == 0.0:
        return mean, error, df
    parts, degrees = (error**2, items.added), (df, float(max(items.prompts - 1, 1)))
    total = math.fsum(parts)
    if values.size < MIN_SEEDS:
        critical = math.fsum(part * t_quantile(level, own) for part, own in zip(parts, degrees, strict=True)) / total
        return mean, math.sqrt(total), t_degrees(level, critical)
    return mean, math.sqrt(total), total**2 / (parts[0] ** 2 / degrees[0] + parts[1] ** 2 / degrees[1])
