"""What is measured of one policy on its pairs: shares and means with intervals over prompts, slices, comparisons.

Pairs of one prompt are not independent, so every interval and test counts prompts (`metrics/statistics/clustered.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from harness.metrics import METRICS
from harness.metrics.distributions import mean
from harness.metrics.divergence import ALPHA, EPSILON_ACCURACY
from harness.metrics.margin_columns import (
    chosen_log_ratio,
    delta,
    delta_ref,
    log_ratio_margin,
    margins,
    per_token,
    rejected_log_ratio,
)
from harness.metrics.pair_measures import RATES
from harness.metrics.records import Array, Bools, Columns, Floats, by_id, numbers, select, size
from harness.metrics.row import LENGTHS, LOGPS
from harness.metrics.slices import corrected, fall_p, slice_tests
from harness.metrics.statistics import (
    SHARE_MARGIN,
    Estimate,
    clustered_interval,
    clustered_p,
    holm,
    independent_difference,
)

PROMPT = "prompt_id"


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean over pairs: its value per pair, as which row of `METRICS` it is known, and whether it is a share."""

    values: Callable[[Columns, float], Floats]
    metric: str
    share: bool
    referenced: bool  # whether it needs a reference


def _rate(name: str, referenced: bool = True) -> Measure:
    return Measure(
        lambda columns, tie: RATES[name].holds(margins(columns, tie)).astype(np.float64), name, share=True,
        referenced=referenced,
    )  # fmt: skip


MEASURES: Mapping[str, Measure] = {
    "ranking_accuracy": _rate("ranking_accuracy", referenced=False),
    "reference_ranking_accuracy": _rate("ref_accuracy"),
    "reward_accuracy": _rate("reward_accuracy"),
    "undesirable_zone": _rate("undesirable_zone"),
    "both_down": _rate("both_down"),
    "chosen_displacement": Measure(lambda c, _: chosen_log_ratio(c), "chosen_displacement", False, True),
    "rejected_displacement": Measure(lambda c, _: rejected_log_ratio(c), "rejected_displacement", False, True),
    "chosen_displacement_per_token": Measure(lambda c, _: chosen_log_ratio(per_token(c)), "ln_h_w_mean", False, True),
    "ranking_change": Measure(
        lambda c, _: (delta(c) > 0).astype(np.float64) - (delta_ref(c) > 0), "", share=False, referenced=True
    ),
}
# Of `METRICS`, what a policy without a reference has.
ALONE = ("ranking_accuracy", "tie_rate_delta", "delta_mean", "delta_std", "delta_q05", "delta_q50", "delta_q95")
COMPARED = ("ranking_accuracy", "reward_accuracy", "undesirable_zone")
IN_SLICES = ("ranking_accuracy", "reference_ranking_accuracy", "reward_accuracy", "undesirable_zone")


def estimate(name: str, columns: Columns, tie_tol: float, level: float = 0.95) -> Estimate:
    """One of `MEASURES` over these pairs, with its interval over prompts."""
    measure = MEASURES[name]
    return clustered_interval(measure.values(columns, tie_tol), columns[PROMPT], measure.share, level)


def estimates(columns: Columns, beta: float | None, referenced: bool, tie_tol: float) -> dict[str, Estimate]:
    """Every one of `MEASURES` that can be had, and the reward margin (beta * nats) where beta is given."""
    found = {
        name: estimate(name, columns, tie_tol)
        for name, measure in MEASURES.items()
        if referenced or not measure.referenced
    }
    if beta is not None and referenced:
        found["reward_margin"] = clustered_interval(beta * log_ratio_margin(columns), columns[PROMPT])
    return found


def every_metric(columns: Columns, beta: float | None, referenced: bool, tie_tol: float) -> dict[str, float]:
    """All held-out rows of `METRICS` that follow from log-probs, without intervals."""
    has = {*LOGPS, *LENGTHS, *({"gold_margin"} if np.isfinite(numbers(columns, "gold_margin")).any() else ())}
    settings = set() if beta is None else {"beta"}
    found = {
        name: row.compute(columns, beta=beta, tie_tol=tie_tol)
        for name, row in METRICS.items()
        if "E" in row.splits and row.needs and set(row.needs) <= has and set(row.settings) <= settings
        and (referenced or name.removeprefix("ln_") in ALONE)
    }  # fmt: skip
    return {name: value for name, value in found.items() if math.isfinite(value)}


def usual_charts(columns: Columns, beta: float | None, referenced: bool) -> dict[str, float]:
    """What a trainer's chart says of these pairs, by TRL's names: rewards scaled by beta, a strict > for accuracies.

    Without a reference the reward is beta times the log-prob itself, as CPO has it, or with `per_token` beside it
    times its mean over tokens, as SimPO and ORPO have it.
    """
    found: dict[str, float] = {}
    shapes = {"": columns} if referenced else {"": columns, "per_token/": per_token(columns)}
    for prefix, shape in shapes.items():
        sides = {side: numbers(shape, f"policy_{side}") for side in ("chosen", "rejected")}
        found |= {f"{prefix}logps/{side}": mean(values) for side, values in sides.items()}
        if beta is None:
            continue
        rewards = {
            side: beta * (values - numbers(shape, f"reference_{side}") if referenced else values)
            for side, values in sides.items()
        }
        rewards["margins"] = rewards["chosen"] - rewards["rejected"]
        rewards["accuracies"] = (rewards["chosen"] > rewards["rejected"]).astype(np.float64)
        found |= {f"{prefix}rewards/{name}": mean(values) for name, values in rewards.items()}
    return found


@dataclass(frozen=True, slots=True)
class Slice:
    """One value of a slice column. Intervals hold for all slices of a policy together (Bonferroni); `p_fell` (fewer
    pairs ranked right than under the reference) and `p_behind` (training helped less than elsewhere) are corrected
    (Holm). `named`: one of them shows it, by at least a point."""

    column: str
    value: str
    n: int
    prompts: int
    estimates: Mapping[str, Estimate]
    change: float
    rest: float
    p_fell: float
    p_behind: float
    named: bool


def length_terciles(columns: Columns) -> Array:
    """short, middle or long, by the tokens of both responses."""
    total = numbers(columns, "chosen_len") + numbers(columns, "rejected_len")
    low, high = np.quantile(total, [1 / 3, 2 / 3])
    return np.where(total <= low, "short", np.where(total <= high, "middle", "long")).astype(object)


def slices(columns: Columns, names: Sequence[str], referenced: bool, tie_tol: float) -> tuple[Slice, ...]:
    """Every value of the slice columns that has at least `MIN_SLICE` pairs, in order of column and value."""
    change = MEASURES["ranking_change" if referenced else "ranking_accuracy"].values(columns, tie_tol)
    tests = slice_tests(columns, names, change, columns[PROMPT], referenced)
    level = 1 - ALPHA / max(len(tests), 1)
    found = []
    for test, (p_fell, p_behind) in zip(tests, corrected(tests), strict=True):
        part = select(columns, test.mask)
        measured = {
            key: estimate(key, part, tie_tol, level) for key in IN_SLICES if referenced or not MEASURES[key].referenced
        }
        prompts = len(set(part[PROMPT].tolist()))
        shown = test.shows(p_fell, p_behind)
        found.append(
            Slice(
                test.column, test.value, size(part), prompts, measured, test.change, test.rest, p_fell, p_behind, shown
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two policies on the same pairs: first minus second. `p` is corrected (Holm) over all comparisons of the call.

    `different` says that these two checkpoints differ, not their methods: another seed of one method is another
    checkpoint."""

    first: str
    second: str
    measure: str
    difference: Estimate
    p: float
    different: bool


def comparisons(
    policies: Mapping[str, Columns], beta: float | None, referenced: bool, tie_tol: float
) -> tuple[Comparison, ...]:
    """Every two of the policies, pair by pair, on the ids that both have."""
    rows: list[tuple[str, str, str, Estimate, float, float]] = []
    for one, other in combinations(policies, 2):
        a, b = by_id(policies[one], policies[other])
        if not size(a):
            continue
        for name in COMPARED if referenced else COMPARED[:1]:
            apart = MEASURES[name].values(a, tie_tol) - MEASURES[name].values(b, tie_tol)
            p = min(1.0, 2 * min(fall_p(apart, a[PROMPT]), fall_p(-apart, a[PROMPT])))
            rows.append((one, other, name, clustered_interval(apart, a[PROMPT]), p, SHARE_MARGIN))
        scale, name = (beta, "reward_margin") if beta is not None and referenced else (1.0, "margin")
        apart = scale * (delta(a) - delta(b))
        rows.append((one, other, name, clustered_interval(apart, a[PROMPT]), clustered_p(apart, a[PROMPT]), 0.0))
    adjusted = holm([row[4] for row in rows]) if rows else []
    return tuple(
        Comparison(one, other, name, apart, p, p <= ALPHA and abs(apart.mean) >= least)
        for (one, other, name, apart, _, least), p in zip(rows, adjusted, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Fall:
    """An earlier checkpoint that ranked more pairs right than the last: its step, the fall, corrected p (Holm)."""

    step: int
    fall: float
    p: float


def fall_since(earlier: Mapping[int, Columns], last: Columns) -> Fall | None:
    """The earlier checkpoint from which the last fell the most, where that is shown; None otherwise."""
    falls: list[tuple[int, float, float]] = []
    for step, columns in earlier.items():
        before, after = by_id(columns, last)
        losses = (delta(before) > 0).astype(np.float64) - (delta(after) > 0)
        falls.append((step, mean(losses), fall_p(losses, after[PROMPT])))
    adjusted = holm([p for _, _, p in falls]) if falls else []
    shown = [
        Fall(step, fall, p)
        for (step, fall, _), p in zip(falls, adjusted, strict=True)
        if p <= ALPHA and fall >= EPSILON_ACCURACY
    ]
    return max(shown, key=lambda one: one.fall, default=None)


@dataclass(frozen=True, slots=True)
class Memorisation:
    """The policy on pairs it was trained on. `gap`: ranking accuracy there minus on held-out pairs. Wrong labels (by
    the ledger, or a gold margin below 0): how many, how many of them the policy follows, and by how many more than the
    reference; None where no label is known to be wrong."""

    n: int
    ranking_accuracy: Estimate
    reward_accuracy: Estimate | None
    gap: Estimate
    wrong: int
    followed: Estimate | None
    rise: Estimate | None


def memorisation(
    train: Columns, wrong: Bools, heldout: Estimate, referenced: bool, tie_tol: float
) -> Memorisation:  # fmt: skip
    """What the policy does on its training pairs, `wrong` (n,) marking those whose label is known to be wrong."""
    ranking = estimate("ranking_accuracy", train, tie_tol)
    followed = rise = None
    if wrong.any():
        part = select(train, wrong)
        followed = estimate("ranking_accuracy", part, tie_tol)
        rise = estimate("ranking_change", part, tie_tol) if referenced else None
    return Memorisation(
        size(train), ranking, estimate("reward_accuracy", train, tie_tol) if referenced else None,
        independent_difference(ranking, heldout), int(wrong.sum()), followed, rise,
    )  # fmt: skip
