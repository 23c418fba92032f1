"""A/A check: replicas of one cell differ by chance alone, so comparing them must show a difference only by chance.

The comparisons run through the very functions that a report's contrasts use, on real runs: what they call "better" or
"worse" here is a false alarm of the whole chain, seeds, records and statistics together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.statistics import MIN_SEEDS, assumed_level, judge, paired_differences

DRAWS = 1000
TOLERATED = 0.05  # of the draws may be called better or worse


@dataclass(frozen=True, slots=True)
class AACounts:
    """Verdicts over `comparisons` drawn comparisons of `n` seeds each, `stored` values (seed, replica) behind them."""

    comparisons: int
    n: int
    stored: int
    better: int
    worse: int

    @property
    def share(self) -> float:
        """Share of the comparisons called better or worse, in [0, 1]."""
        return (self.better + self.worse) / self.comparisons

    @property
    def passed(self) -> bool:
        """Whether that is at most 5 %."""
        return self.share <= TOLERATED


def aa_check(
    values: Mapping[tuple[int, int], float],
    n: int | None = None,
    margin: float = 0.0,
    items: int | None = None,
    shared: bool = False,
    direction: str = "up",
    draws: int = DRAWS,
) -> AACounts:
    """Draw `draws` comparisons of two different replicas on each of `n` seeds and count the verdicts.

    `values`: one measure by (seed, replica); `n` seeds (default: all) are drawn without replacement among those with
    two replicas or more. With margin 0 and without `items` the paired t interval is on its own; give the report's
    margin and, for shares, the pairs behind each value and whether seeds share them, to check its verdicts as they are.
    Draws are seeded by the values. Raises ValueError below 6 usable seeds, where no verdict is ever given.
    """
    replicas: dict[int, list[int]] = {}
    for seed, replica in sorted(values):
        replicas.setdefault(seed, []).append(replica)
    seeds = [seed for seed, several in replicas.items() if len(several) > 1]
    n = len(seeds) if n is None else n
    if not MIN_SEEDS <= n <= len(seeds):
        raise ValueError(f"needs {MIN_SEEDS} to {len(seeds)} seeds of two replicas or more a comparison, got {n}")
    rng = generator("a/a", [x for key in sorted(values) for x in (*key, values[key])])
    words = []
    for _ in range(draws):
        first, second = {}, {}
        for place in rng.choice(len(seeds), n, replace=False):
            seed = seeds[int(place)]
            a, b = rng.choice(replicas[seed], 2, replace=False)
            first[seed], second[seed] = values[seed, int(a)], values[seed, int(b)]
        level = None if items is None else assumed_level(first, second, items, shared)
        differences = dict(zip(sorted(first), paired_differences(first, second).tolist(), strict=True))
        words.append(judge(differences, margin=margin, direction=direction, items=level).word)
    up, down = ("better", "worse") if direction != "none" else ("higher", "lower")
    return AACounts(draws, n, len(values), words.count(up), words.count(down))


def generator(purpose: str, *arrays: ArrayLike) -> np.random.Generator:
    """A generator seeded by a purpose and the data: the same data gives the same draws on every machine."""
    digest = hashlib.sha256(purpose.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return np.random.Generator(np.random.Philox(int.from_bytes(digest.digest()[:8], "big")))


def spread_of_replicas(values: Mapping[tuple[int, int], float]) -> float:
    """Standard deviation between replicas of one seed, pooled over seeds: what a repetition alone changes."""
    groups: dict[int, list[float]] = {}
    for (seed, _), value in sorted(values.items()):
        groups.setdefault(seed, []).append(value)
    several = [np.sort(np.array(group)) for group in groups.values() if len(group) > 1]
    if not several:
        return float("nan")
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return float(np.sqrt(squares / sum(group.size - 1 for group in several)))
