"""Ranking accuracy predicted before training, from the first steps of one pilot run and the slope of the loss.

Pair i stands at delta_i = delta_ref_i + s_i G + o_i. G is common to all pairs, which move together as one model's do:
s_i is how far the pilot moved the pair (mean 1), and what pulls at G is the mean over pairs of the loss's slope along
s_i, averaged over right and flipped labels. o_i is the pair's own move, pulled by its own slope alone, under the labels
that its few neighbours in the training set happened to get. Of the pull a share, `common`, acts on G, the rest
on the o_i. Adam turns it into steps of kappa times the learning rate, damped by the noise of a batch's gradient; kappa
is read off the pilot.

The constants were chosen on one sweep of each version of the embedded world (`docs/prediction.md`) and are not fitted
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.metrics.margin_columns import delta, delta_ref
from harness.metrics.records import Columns, Floats, numbers, turned

PILOT_STEPS = 25
COMMON = 0.85  # share of the pull that acts on all pairs together
COMMON_BY_RULE = 0.6  # the same where held-out facts are new and follow from a rule: version 2 of the embedded world
NOISE = 16.0  # variance of one pair's gradient, in its own squared pull: a batch of B adds NOISE / B of it to Adam's
BAND = 0.3  # the band: gains larger or smaller by a factor of exp(BAND)
FLOOR = 0.04  # and by so much accuracy beyond that
NEIGHBOURHOOD = 150  # of so many training pairs one speaks for a held-out pair by itself
STILL = 1e-3  # nats: a pilot that raised its margins by less moved nothing to learn from

# (grad_w, grad_l) of pairs (L, n), as `pair_losses` gives them: -d loss/d log p(chosen) and d loss/d log p(rejected).
Slopes = Callable[[Columns], tuple[Floats, Floats]]


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Adam's settings of L runs; arrays `(L, T)` and `(L, 1)`."""

    rates: Floats  # of each update
    beta1: Floats
    beta2: Floats
    batch_size: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Held-out pairs of L runs, arrays `(L, n)`, in the clean orientation.

    `columns` are the reference's log-probs and the lengths; `chosen`, `rejected`: how far each side moves, in nats, as
    the mean pair's margin rises by one; `flip`: the probability that a training label of such a pair is wrong, `drawn`:
    the share of wrong labels that its neighbours drew. `common` `(L, 1)`: the share of the pull that acts on all
    pairs together.
    """

    columns: dict[str, Floats]
    chosen: Floats
    rejected: Floats
    flip: Floats
    drawn: Floats
    common: Floats

    @property
    def spread(self) -> Floats:
        """s, the margin's share of the common gain."""
        return self.chosen - self.rejected


def pilot_pairs(columns: Columns, flip: Floats, trained: int, common: float = COMMON) -> tuple[Pairs, float] | None:
    """The pairs of one pilot `(1, n)` and its mean gain in nats; None where it moved nothing.

    `columns` are its held-out records after `PILOT_STEPS` updates; `trained` counts the training pairs.
    """
    gain = float(np.mean(delta(columns) - delta_ref(columns)))
    if not gain > STILL:
        return None
    chosen, rejected = (
        (numbers(columns, f"policy_{side}") - numbers(columns, f"reference_{side}")) / gain
        for side in ("chosen", "rejected")
    )
    kept = ("reference_chosen", "reference_rejected", "chosen_len", "rejected_len")
    rows = {name: numbers(columns, name)[None] for name in kept}
    moved = Pairs(rows, chosen[None], rejected[None], flip[None], flip[None], np.array([[common]]))
    return relabelled(moved, flip[None], trained), gain


def relabelled(pairs: Pairs, flip: Floats, trained: int) -> Pairs:
    """The pairs under other labels: wrong with probability `flip` `(L, n)`, in a training set of `trained` pairs."""
    neighbours = max(round(trained / NEIGHBOURHOOD), 1)
    drawn = np.random.default_rng(0).binomial(neighbours, flip) / neighbours  # the same luck for every objective
    return replace(pairs, flip=flip, drawn=drawn)


def stacked(several: Sequence[Pairs]) -> Pairs:
    """Pairs of several runs with as many pairs each, below each other."""
    return Pairs(
        {name: np.concatenate([one.columns[name] for one in several]) for name in several[0].columns},
        *(
            np.concatenate([getattr(one, part) for one in several])
            for part in ("chosen", "rejected", "flip", "drawn", "common")
        ),
    )


def simulate(slopes: Slopes, pairs: Pairs, schedule: Schedule, kappa: Floats, steps: int | None = None) -> Floats:
    """How far the margin of each pair rises in `steps` updates (None: all), `(L, n)` nats. `kappa` is `(L, 1)`."""
    shared = np.zeros((len(kappa), 1))
    own = np.zeros_like(pairs.chosen)
    shared_mean, own_mean, square = np.zeros_like(shared), np.zeros_like(own), np.zeros_like(shared)
    first, second, common = schedule.beta1, schedule.beta2, pairs.common
    for step in range(schedule.rates.shape[1] if steps is None else steps):
        together, alone, single = _pulls(slopes, pairs, shared, own)
        power = common * together**2 + (1 - common) * (alone**2).mean(1, keepdims=True)
        square = second * square + (1 - second) * (power + NOISE / schedule.batch_size * single)
        shared_mean = first * shared_mean + (1 - first) * common * together
        own_mean = first * own_mean + (1 - first) * (1 - common) * alone
        root = np.sqrt(square / (1 - second ** (step + 1)))
        size = kappa * schedule.rates[:, step : step + 1] / (1 - first ** (step + 1))
        scale = np.divide(size, root, out=np.zeros_like(root), where=root > 0)
        shared, own = shared + scale * shared_mean, own + scale * own_mean
    return np.asarray(pairs.spread * shared + own)


def _pulls(slopes: Slopes, pairs: Pairs, shared: Floats, own: Floats) -> tuple[Floats, Floats, Floats]:
    """-d loss / d G `(L, 1)`, -d loss / d o `(L, n)`, and the mean square `(L, 1)` of one labelled pair's own slope."""
    sides = {"chosen": pairs.chosen, "rejected": pairs.rejected}
    mean = {side: move.mean(1, keepdims=True) for side, move in sides.items()}
    policy = {
        f"policy_{side}": pairs.columns[f"reference_{side}"] + move * shared + mean[side] * own
        for side, move in sides.items()
    }
    now = pairs.columns | policy
    up, down = slopes(now)
    flipped_up, flipped_down = slopes(turned(now, np.ones(own.shape, dtype=bool)))
    right, wrong = 1 - pairs.drawn, pairs.drawn
    once = up * mean["chosen"] - down * mean["rejected"]
    flipped_once = flipped_up * mean["rejected"] - flipped_down * mean["chosen"]
    alone = right * once + wrong * flipped_once
    single = right * once**2 + wrong * flipped_once**2
    along = (1 - pairs.flip) * (up * pairs.chosen - down * pairs.rejected)
    along = along + pairs.flip * (flipped_up * pairs.rejected - flipped_down * pairs.chosen)
    return along.mean(1, keepdims=True), alone, single.mean(1, keepdims=True)


def calibrate(slopes: Slopes, pairs: Pairs, schedule: Schedule, gains: Floats, steps: int = PILOT_STEPS) -> Floats:
    """kappa `(L, 1)`: the one under which pilots of these `slopes` gain `gains` `(L, 1)` in `steps` updates."""
    low, high = np.full_like(gains, -3.0), np.full_like(gains, 9.0)  # decimal logarithms
    for _ in range(26):
        middle = (low + high) / 2
        short = simulate(slopes, pairs, schedule, 10**middle, steps).mean(1, keepdims=True) < gains
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(10 ** ((low + high) / 2))


def accuracy(pairs: Pairs, gain: Floats) -> tuple[Floats, Floats, Floats]:
    """Ranking accuracy (L,), and its band's low and high end: that of every gain smaller and larger by `BAND`."""
    start = delta_ref(pairs.columns)
    middle, less, more = ((start + factor * gain > 0).mean(1) for factor in (1.0, math.exp(-BAND), math.exp(BAND)))
    floor = FLOOR + np.zeros_like(middle)
    return middle, np.clip(np.minimum(less, more) - floor, 0, 1), np.clip(np.maximum(less, more) + floor, 0, 1)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well a prediction met `n` measured values: R2 against the mean, slope of measured over predicted, mean
    absolute error and bias (predicted minus measured); None where values are too few or all alike."""

    n: int
    r2: float | None
    slope: float | None
    mae: float | None
    bias: float | None


def calibration(predicted: Sequence[float], measured: Sequence[float]) -> Calibration:
    """Predicted beside measured values of as many cells."""
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if not len(x):
        return Calibration(0, None, None, None, None)
    error = x - y
    spread, wide = float(((y - y.mean()) ** 2).sum()), float(((x - x.mean()) ** 2).sum())
    r2 = 1 - float((error**2).sum()) / spread if spread > 0 else None
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / wide if wide > 0 else None
    return Calibration(len(x), r2, slope, float(np.abs(error).mean()), float(error.mean()))
