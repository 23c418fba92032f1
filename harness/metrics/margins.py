"""Margin geometry of one split at one step: per-pair margins, rates, zones and transitions, in nats and per token.

Everything is a pure function of record columns (n,). "Right" means > 0, a tie is never right. Rounding between a stored
reference and a live policy is read away by `tie_tol`: |gain| <= tie_tol is a tie in every rate and zone, and a pair
tied in gain is tied per token too. `delta` compares two log-probs of one model and ties only at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from harness.metrics.records import Bools, Columns, Floats, numbers

TIE_TOL = 1e-4  # nats, fp32; .05 for bf16


def delta(columns: Columns) -> Floats:
    """log pi(chosen) - log pi(rejected) under the policy, nats: > 0 ranks the pair right."""
    return numbers(columns, "policy_chosen") - numbers(columns, "policy_rejected")


def delta_ref(columns: Columns) -> Floats:
    """The same under the reference, nats."""
    return numbers(columns, "reference_chosen") - numbers(columns, "reference_rejected")


def gain(columns: Columns) -> Floats:
    """delta - delta_ref, nats: movement since the reference, free of beta.

    Computed from the two margins, not from the displacements, so that its sign agrees with them in every bit.
    """
    return delta(columns) - delta_ref(columns)


def chosen_shift(columns: Columns) -> Floats:
    """h_w = log pi(chosen) - log pi_ref(chosen), nats: < 0 where the chosen response became less likely."""
    return numbers(columns, "policy_chosen") - numbers(columns, "reference_chosen")


def rejected_shift(columns: Columns) -> Floats:
    """h_l = log pi(rejected) - log pi_ref(rejected), nats."""
    return numbers(columns, "policy_rejected") - numbers(columns, "reference_rejected")


def per_token(columns: Columns) -> dict[str, Floats]:
    """The four log-prob columns as token means, nats per token, under their own names."""
    return {
        f"{model}_{side}": numbers(columns, f"{model}_{side}") / numbers(columns, f"{side}_len")
        for model in ("policy", "reference")
        for side in ("chosen", "rejected")
    }


def implicit_margin(columns: Columns, beta: float) -> Floats:
    """z = beta * gain: comparable within one beta only."""
    return beta * gain(columns)


@dataclass(frozen=True, slots=True)
class Margins:
    """delta, delta_ref, gain (n,) in one reduction, whether the gain counts as an improvement or as a tie, and how far
    each side moved (`down_w`, `down_l`: the side lost probability beyond tie_tol)."""

    delta: Floats
    delta_ref: Floats
    gain: Floats
    improved: Bools
    tied: Bools
    down_w: Bools
    down_l: Bools


def margins(columns: Columns, tie_tol: float = TIE_TOL, mean: bool = False) -> Margins:
    """The margins of every pair, summed over tokens, or as token means where `mean`."""
    tied = np.abs(gain(columns)) <= tie_tol
    down_w, down_l = chosen_shift(columns) < -tie_tol, rejected_shift(columns) < -tie_tol
    if not mean:
        moved = gain(columns)
        return Margins(delta(columns), delta_ref(columns), moved, moved > tie_tol, tied, down_w, down_l)
    tokens = per_token(columns)
    moved = gain(tokens)
    return Margins(delta(tokens), delta_ref(tokens), moved, (moved > 0) & ~tied, tied, down_w, down_l)


# Each rate is the share of pairs for which its condition holds (strict, ties are false). Every pair lies in one zone
# (Z1 right and improved, Z2 right and not improved, the undesirable one wrong and improved, Z4 wrong and not improved,
# or tied at delta 0) and is rescued, broken, kept right or kept wrong against the reference, on raw signs.
RATES: Mapping[str, Callable[[Margins], Bools]] = {
    "ranking_accuracy": lambda m: m.delta > 0,
    "reward_accuracy": lambda m: m.improved,
    "ref_accuracy": lambda m: m.delta_ref > 0,
    "tie_rate_delta": lambda m: m.delta == 0,
    "tie_rate_gain": lambda m: m.tied,
    "violation_proxy": lambda m: m.delta_ref < 0,
    "zone_z1": lambda m: (m.delta > 0) & m.improved,
    "zone_z2": lambda m: (m.delta > 0) & ~m.improved,
    "undesirable_zone": lambda m: (m.delta < 0) & m.improved,
    "zone_z4": lambda m: (m.delta < 0) & ~m.improved,
    "zone_tie": lambda m: m.delta == 0,
    "rescued": lambda m: (m.delta_ref <= 0) & (m.delta > 0),
    "broken": lambda m: (m.delta <= 0) & (m.delta_ref > 0),
    "kept_right": lambda m: (m.delta > 0) & (m.delta_ref > 0),
    "kept_wrong": lambda m: (m.delta <= 0) & (m.delta_ref <= 0),
    "disp_rate": lambda m: m.down_w,
    "both_down": lambda m: m.down_w & m.down_l,
}


def rate(columns: Columns, name: str, tie_tol: float = TIE_TOL, mean: bool = False) -> float:
    """The share of pairs in rate `name` of `RATES`, in [0, 1]; NaN for no pairs. Log-probs must be finite."""
    mask = RATES[name](margins(columns, tie_tol, mean))
    return float(mask.mean()) if mask.size else float("nan")


def effective_gap(gap: Floats, flip_rate: float = 0.0) -> Floats:
    """The reward gap that uniform label flips leave: logit(q (1 - 2 eps) + eps) with q = sigmoid(gap)."""
    if flip_rate == 0.0:
        return gap
    observed = (1 - 2 * flip_rate) / (1 + np.exp(-gap)) + flip_rate
    return np.asarray(np.log(observed) - np.log1p(-observed))


def violated(columns: Columns, beta: float, flip_rate: float = 0.0) -> Bools:
    """delta_ref <= -gap / beta: pairs whose RLHF optimum at this beta ranks them wrong. `gold_margin` is the true gap.

    Only meaningful in clean orientation (gap > 0). Rows with unknown gap (NaN) come out False: select them away.
    """
    return np.asarray(delta_ref(columns) <= -effective_gap(numbers(columns, "gold_margin"), flip_rate) / beta)
