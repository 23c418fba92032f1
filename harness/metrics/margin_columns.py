"""Margin geometry of one split at one step: per-pair margins, rates, zones and transitions, in nats and per token.

Everything is a pure function of record columns (n,). "Right" means > 0, a tie is never right. Rounding between a stored
reference and a live policy is read away by `tie_tol`: |log-ratio margin| <= tie_tol is a tie in every rate and zone,
and then it is one per token too. `delta` compares two log-probs of one model and ties only at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.metrics.records import Bools, Columns, Floats, numbers

TIE_TOL = 1e-4  # nats, fp32; .05 for bf16


def delta(columns: Columns) -> Floats:
    """log pi(chosen) - log pi(rejected) under the policy, nats: > 0 ranks the pair right."""
    return numbers(columns, "policy_chosen") - numbers(columns, "policy_rejected")


def delta_ref(columns: Columns) -> Floats:
    """log pi_ref(chosen) - log pi_ref(rejected), nats: > 0 where the reference ranks the pair right."""
    return numbers(columns, "reference_chosen") - numbers(columns, "reference_rejected")


def log_ratio_margin(columns: Columns) -> Floats:
    """delta - delta_ref, nats: the chosen minus the rejected log-ratio, free of beta.

    Computed from the two margins, not from the two log-ratios, so that its sign agrees with them in every bit.
    """
    return delta(columns) - delta_ref(columns)


def chosen_log_ratio(columns: Columns) -> Floats:
    """log pi(chosen) - log pi_ref(chosen), nats: < 0 where the chosen response became less likely."""
    return numbers(columns, "policy_chosen") - numbers(columns, "reference_chosen")


def rejected_log_ratio(columns: Columns) -> Floats:
    """log pi(rejected) - log pi_ref(rejected), nats."""
    return numbers(columns, "policy_rejected") - numbers(columns, "reference_rejected")


def per_token(columns: Columns) -> dict[str, Floats]:
    """The four log-prob columns as token means, nats per token, under their own names."""
    return {
        f"{model}_{side}": numbers(columns, f"{model}_{side}") / numbers(columns, f"{side}_len")
        for model in ("policy", "reference")
        for side in ("chosen", "rejected")
    }


def implicit_margin(columns: Columns, beta: float) -> Floats:
    """z = beta * log-ratio margin: comparable within one beta only."""
    return beta * log_ratio_margin(columns)


@dataclass(frozen=True, slots=True)
class Margins:
    """delta, delta_ref and their difference (n,) in one reduction; whether that counts as an improvement or as a tie;
    `down_w`, `down_l`: the chosen, the rejected response lost probability beyond tie_tol."""

    delta: Floats
    delta_ref: Floats
    log_ratio_margin: Floats
    improved: Bools
    tied: Bools
    down_w: Bools
    down_l: Bools


def margins(columns: Columns, tie_tol: float = TIE_TOL, mean: bool = False) -> Margins:
    """The margins of every pair, summed over tokens, or as token means where `mean`."""
    tied = np.abs(log_ratio_margin(columns)) <= tie_tol
    down_w, down_l = chosen_log_ratio(columns) < -tie_tol, rejected_log_ratio(columns) < -tie_tol
    if not mean:
        moved = log_ratio_margin(columns)
        return Margins(delta(columns), delta_ref(columns), moved, moved > tie_tol, tied, down_w, down_l)
    tokens = per_token(columns)
    moved = log_ratio_margin(tokens)
    return Margins(delta(tokens), delta_ref(tokens), moved, (moved > 0) & ~tied, tied, down_w, down_l)


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
