"""How often the recommended set leaves out the truly best arm, and how large it is: `python -m` this, for the docs.

Arms share half of their variance over seeds (paired seeds). `equal`: all arms have one true quality, and the arm that
counts as the best is any of them. `behind`: one arm is best, half of the others are 1, half 3 standard deviations of a
paired difference behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.metrics.not_shown_worse import not_shown_worse


@dataclass(frozen=True)
class Found:
    """Share of draws that leave the best arm out, and the mean size of the set."""

    left_out: float
    size: float


def drawn(rng: np.random.Generator, arms: int, seeds: int, shape: str, behind: np.ndarray) -> np.ndarray:
    """Quality `(arms, seeds)`; `behind` (arms,) in standard deviations of a paired difference."""
    common, own = rng.standard_normal(seeds), rng.standard_normal((arms, seeds))
    if shape == "skewed":
        common, own = rng.exponential(size=seeds) - 1, rng.exponential(size=(arms, seeds)) - 1
    values = 0.02 * (common + own - np.sqrt(2) * behind[:, None])
    if shape == "shares":  # of 256 pairs, near 1
        return rng.binomial(256, np.clip(0.95 + values, 0, 1)) / 256
    return 0.8 + values


def simulate(arms: int, seeds: int, shape: str, draws: int) -> tuple[Found, Found]:
    """What happens where all arms are equal, and where one is best."""
    rng = np.random.default_rng(arms * 1000 + seeds)
    others = np.where(np.arange(arms) % 2, 1.0, 3.0)
    others[0] = 0.0
    found = []
    for behind in (np.zeros(arms), others):
        missed, size = 0, 0
        for _ in range(draws):
            values = drawn(rng, arms, seeds, shape, behind)
            table = {arm: dict(enumerate(row.tolist())) for arm, row in enumerate(values)}
            kept = not_shown_worse(table).arms
            missed += 0 not in kept
            size += len(kept)
        found.append(Found(missed / draws, size / draws))
    return found[0], found[1]


def main() -> None:
    """The table of docs/statistics.md."""
    print("| arms | seeds | data | equal arms: best left out | set | one best: left out | set |")
    print("|---|---|---|---|---|---|---|")
    for arms in (6, 18):
        for seeds in (4, 6, 10):
            for shape in ("normal", "skewed", "shares"):
                equal, behind = simulate(arms, seeds, shape, 2000)
                print(
                    f"| {arms} | {seeds} | {shape} | {equal.left_out:.3f} | {equal.size:.1f} of {arms} "
                    f"| {behind.left_out:.3f} | {behind.size:.1f} of {arms} |"
                )


if __name__ == "__main__":
    main()
