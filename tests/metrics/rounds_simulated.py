"""Seeds in rounds, simulated with the functions that sweeps and reports call.

`python -m tests.metrics.rounds_simulated` prints the table of docs/statistics.md. One sweep: objectives (arms) against
one baseline on seeds 0 to 11, with four kinds of noise. An arm stops when it is settled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from harness.metrics.statistics import is_settled, judge, look_alpha
from harness.types import SeedRounds

ROUNDS = SeedRounds(4, 12)
ITEMS = 256
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _shares(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Accuracies of 256 held-out pairs around .9, the probability itself different from seed to seed; sd 1."""
    accuracy = rng.binomial(ITEMS, rng.beta(45, 5, shape)) / ITEMS
    return (accuracy - 0.9) / math.sqrt(0.9 * 0.1 * (1 / 51 + (1 - 1 / 51) / ITEMS))


# Noise of one arm on one seed, mean 0 and sd 1: an arm and the baseline draw it independently, so differences are even.
NOISE: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(1, shape) - 1,
    "bounded": lambda rng, shape: rng.uniform(-math.sqrt(3), math.sqrt(3), shape),
    "nested shares": _shares,
}


@dataclass(frozen=True)
class Found:
    """Over many sweeps: shares of arms called different and of sweeps with a wrong call, and seeds per arm (`fixed`:
    with all 12 at once); `covered`: corrected intervals at the stop that hold the true difference."""

    power: float
    family_error: float
    seeds: float
    fixed_power: float
    covered: float


def simulate(effects: tuple[float, ...], noise: str, sweeps: int, seed: int = 0) -> Found:
    """`effects`: true differences of the arms, in sd of a paired difference; 0 is a null arm."""
    rng, arms = np.random.default_rng(seed), len(effects)
    values = NOISE[noise](rng, (sweeps, arms + 1, ROUNDS.most)) / math.sqrt(2)
    differences = values[:, 1:] - values[:, :1] + np.array(effects)[:, None]
    error = np.sqrt(differences.var(-1, ddof=1) / ROUNDS.most)
    critical = -stdtrit(ROUNDS.most - 1, 0.05 / arms / 2)
    fixed = np.abs(differences.mean(-1)) / error > critical
    called, seeds, covered = np.zeros((3, sweeps, arms))
    for sweep in range(sweeps):
        for arm, effect in enumerate(effects):
            for look in ROUNDS.looks:
                shown = dict(enumerate(differences[sweep, arm, :look].tolist()))
                verdict = judge(shown, family=arms, planned=look, alpha=look_alpha(ROUNDS, look))
                if look == ROUNDS.most or is_settled(verdict, ROUNDS, look):
                    break
            called[sweep, arm] = verdict.word in ("better", "worse")
            covered[sweep, arm] = not verdict.corrected.excludes(effect)
            seeds[sweep, arm] = look
    null, real = [e == 0 for e in effects], [e != 0 for e in effects]
    return Found(
        called[:, real].mean() if any(real) else math.nan,
        called[:, null].any(1).mean() if any(null) else math.nan,
        seeds.mean(),
        fixed[:, real].mean() if any(real) else math.nan,
        covered.all(1).mean(),
    )


if __name__ == "__main__":
    print("noise           effects              power (fixed 12)   family error   all covered   seeds per arm")
    for noise in NOISE:
        for effects, sweeps in (((0.0,) * 10, 2000), *(((e,) * 10, 400) for e in (0.75, 1.0, 1.5, 2.0, 3.0, 5.0)),
                                ((0.0,) * 5 + (3.0,) * 5, 1000)):  # fmt: skip
            if noise == "normal" or effects[0] == 0:
                f = simulate(effects, noise, sweeps)
                print(
                    f"{noise:15} {effects[0]:g} .. {effects[-1]:g} x {len(effects)}   {f.power:.3f} "
                    f"({f.fixed_power:.3f})   {f.family_error:.4f}   {f.covered:.4f}   {f.seeds:.2f}",
                    flush=True,
                )
