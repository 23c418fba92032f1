"""The coverage table of docs/statistics.md: `python -m tests.metrics.simulate_coverage` prints it, the same each time.

How often a nominal 95 % interval of the mean holds the true mean, by method, kind of data and number of units. The
bootstrap is here to be compared with: the report uses t at every number of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from harness.metrics.aa import generator
from harness.metrics.statistics import Estimate, t_interval

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


def main() -> None:
    """Print the table in Markdown."""
    columns = [(method, n) for method in METHODS for n in SIZES]
    print("| data | " + " | ".join(f"{method}, n = {n}" for method, n in columns) + " |")
    for kind in KINDS:
        print(f"| {kind} | " + " | ".join(f"{coverage(m, kind, n):.3f}" for m, n in columns) + " |", flush=True)


if __name__ == "__main__":
    main()
