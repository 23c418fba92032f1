"""The coverage table of docs/statistics.md: `python -m tests.measure.simulate_coverage` prints it, the same each time.

How often a nominal 95 % interval of the mean holds the true mean, by method, kind of data and number of units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from harness.metrics import statistics as s

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


def interval(method: str, values: np.ndarray) -> s.Estimate | None:
    """The interval by the method's name; None where it refuses so few units."""
    if method == "t":
        return s.t_interval(values)
    try:
        return s.bootstrap_interval(values, method=method, draws=1000)
    except ValueError:
        return None


def coverage(method: str, kind: str, n: int, repeats: int = 2000) -> float | None:
    """Share of `repeats` samples of size `n` whose interval holds the true mean; None where the method refuses."""
    rng = np.random.default_rng([n, *kind.encode()])
    found = [interval(method, row) for row in KINDS[kind](rng, (repeats, n))]
    known = [estimate for estimate in found if estimate is not None]
    return float(np.mean([not e.excludes(0.0) for e in known])) if known else None


def main() -> None:
    """Print the table in Markdown."""
    print("| data | " + " | ".join(f"{m}, n = {n}" for m in ("t", "studentised") for n in SIZES) + " | BCa, n = 30 |")
    for kind in KINDS:
        cells = [coverage(m, kind, n) for m in ("t", "studentised") for n in SIZES] + [coverage("bca", kind, 30)]
        print(f"| {kind} | " + " | ".join("-" if c is None else f"{c:.3f}" for c in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
