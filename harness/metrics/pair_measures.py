"""Single measures of preference pairs: shares, zones, transitions, violations, calibration, memorised flips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.metrics import distributions
from harness.metrics.distributions import mean
from harness.metrics.margin_columns import (
    TIE_TOL,
    Margins,
    chosen_log_ratio,
    delta,
    delta_ref,
    implicit_margin,
    log_ratio_margin,
    margins,
    per_token,
    rejected_log_ratio,
    violated,
)
from harness.metrics.records import Array, Bools, Columns, column, numbers, select
from harness.metrics.row import INF, LENGTHS, LOGPS, Metric, View
from harness.metrics.samples import share

GAP, LABELS = (*LOGPS, "gold_margin"), (*LOGPS, "clean_label")


@dataclass(frozen=True, slots=True)
class Rate:
    """The share of pairs for which `holds` is true (strictly: a tie is false).

    `per_token`: it has a twin `ln_<name>` on token means. Ties and the sign of one log-ratio do not depend on length.
    """

    holds: Callable[[Margins], Bools]
    direction: str
    summary: str
    per_token: bool = True


# Every pair lies in one zone (Z1, Z2, the undesirable one, Z4, or tied at delta 0) and is rescued, broken, kept right
# or kept wrong against the reference, on raw signs.
RATES: dict[str, Rate] = {
    "ranking_accuracy": Rate(lambda m: m.delta > 0, "up", "the policy itself prefers the right response: delta > 0"),
    "reward_accuracy": Rate(
        lambda m: m.improved, "up",
        "moved the right way since the reference: log-ratio margin > 0; can be 1 while rankings are wrong",
    ),
    "ref_accuracy": Rate(
        lambda m: m.delta_ref > 0, "none",
        "the reference's own ranking accuracy, delta_ref > 0; constant over training",
    ),
    "tie_rate_delta": Rate(lambda m: m.delta == 0, "none", "pairs with delta = 0 exactly, such as identical texts"),
    "tie_rate_gain": Rate(lambda m: m.tied, "none", "pairs not moved beyond tie_tol; 1 at step 0", per_token=False),
    "undesirable_zone": Rate(
        lambda m: (m.delta < 0) & m.improved, "down",
        "better than the reference and still ranked wrong: delta_ref < delta < 0",
    ),
    "zone_z1": Rate(lambda m: (m.delta > 0) & m.improved, "up", "right and improved"),
    "zone_z2": Rate(lambda m: (m.delta > 0) & ~m.improved, "none", "right, and not improved on the reference"),
    "zone_z4": Rate(lambda m: (m.delta < 0) & ~m.improved, "down", "wrong and not improved"),
    "zone_tie": Rate(lambda m: m.delta == 0, "none", "delta = 0"),
    "rescued": Rate(lambda m: (m.delta_ref <= 0) & (m.delta > 0), "up", "wrong under the reference, right now"),
    "broken": Rate(lambda m: (m.delta <= 0) & (m.delta_ref > 0), "down", "right under the reference, wrong now"),
    "kept_right": Rate(lambda m: (m.delta > 0) & (m.delta_ref > 0), "none", "right under the reference and now"),
    "kept_wrong": Rate(lambda m: (m.delta <= 0) & (m.delta_ref <= 0), "down", "wrong under the reference and now"),
    "violation_proxy": Rate(
        lambda m: m.delta_ref < 0, "none", "delta_ref < 0: an upper bound on violation_rate in clean orientation"
    ),
    "disp_rate": Rate(lambda m: m.down_w, "down", "chosen responses that became less likely", per_token=False),
    "both_down": Rate(
        lambda m: m.down_w & m.down_l, "down",
        "both responses became less likely: mass went elsewhere", per_token=False,
    ),
}  # fmt: skip


def rate(columns: Columns, name: str, tie_tol: float = TIE_TOL, mean: bool = False) -> float:
    """The share of pairs in rate `name` of `RATES`, in [0, 1]; NaN for no pairs. Log-probs must be finite."""
    mask = RATES[name].holds(margins(columns, tie_tol, mean))
    return float(mask.mean()) if mask.size else float("nan")


def _rates(per_token: bool) -> list[Metric]:
    """The rates on sums, or on token means under `ln_`, and the gap between reward and ranking accuracy."""
    prefix, needs, note = ("ln_", LOGPS + LENGTHS, " (token means)") if per_token else ("", LOGPS, "")

    def share_in(name: str) -> Callable[[View], float]:
        return lambda v: rate(v.columns, name, v.tie_tol, per_token)

    def accuracy_gap(v: View) -> float:
        return share_in("reward_accuracy")(v) - share_in("ranking_accuracy")(v)

    rows = [
        Metric(prefix + name, share_in(name), "share", one.direction, 0, 1, needs, "OCED", one.summary + note)
        for name, one in RATES.items()
        if one.per_token or not per_token
    ]
    text = f"reward_accuracy - ranking_accuracy: improvement without right rankings{note}"
    return [*rows, Metric(f"{prefix}accuracy_gap", accuracy_gap, "share", "down", -1, 1, needs, "OCED", text)]


CHOSEN_DISPLACEMENT = Metric(
    "chosen_displacement", lambda v: mean(chosen_log_ratio(v.columns)), "nats", "none", -INF, INF, LOGPS, "OCED",
    "mean log-ratio of the chosen response; may fall while the log-ratio margin grows",
)  # fmt: skip
REJECTED_DISPLACEMENT = Metric(
    "rejected_displacement", lambda v: mean(rejected_log_ratio(v.columns)), "nats", "none", -INF, INF, LOGPS, "OCED",
    "mean log-ratio of the rejected response",
)  # fmt: skip


def logratio_on_data(view: View) -> float:
    """Mean log-ratio over both responses of every pair."""
    return mean((chosen_log_ratio(view.columns) + rejected_log_ratio(view.columns)) / 2)


LOGRATIO_ON_DATA = Metric(
    "logratio_on_data", logratio_on_data, "nats", "none", -INF, INF, LOGPS, "OCED",
    "mean log-ratio on the data set's responses; not a KL",
)  # fmt: skip
W1_SHIFT = Metric(
    "w1_shift", lambda v: distributions.w1(delta(v.columns), delta_ref(v.columns)), "nats", "none", 0, INF, LOGPS,
    "OCED", "Wasserstein-1 distance between delta and delta_ref",
)  # fmt: skip
CORR_REF_GAIN = Metric(
    "corr_ref_gain", lambda v: distributions.correlation(delta_ref(v.columns), log_ratio_margin(v.columns)),
    "correlation", "none", -1, 1, LOGPS, "OCED", "correlation of delta_ref and log-ratio margin",
)  # fmt: skip


def auc(view: View) -> float:
    """Area under the curve of the log-ratio margin over pairs in both orientations."""
    moved = log_ratio_margin(view.columns)
    return distributions.both_ways_auc(np.where(np.abs(moved) <= view.tie_tol, 0.0, moved))


AUC = Metric(
    "auc", auc, "share", "up", 0, 1, LOGPS, "OCED",
    "area under the curve of the implicit margin, pairs in both orientations; .5 at step 0",
)  # fmt: skip


def _known_gap(view: View) -> dict[str, Array]:
    return select(view.columns, ~np.isnan(numbers(view.columns, "gold_margin")))


def violation_rate(view: View) -> float:
    """Share of the pairs with a known gap whose RLHF optimum ranks them wrong."""
    return mean(violated(_known_gap(view), view.beta, view.flip_rate).astype(np.float64))


VIOLATION_RATE = Metric(
    "violation_rate", violation_rate, "share", "none", 0, 1, GAP, "CED",
    "pairs whose RLHF optimum at this beta ranks them wrong: delta_ref + gap / beta <= 0", ("beta",), False,
)  # fmt: skip
IDEALISED_RANKING_ACCURACY = Metric(
    "idealised_ranking_accuracy", lambda v: 1.0 - violation_rate(v), "share", "none", 0, 1, GAP, "CED",
    "best ranking accuracy the RLHF optimum can have at this beta", ("beta",), False,
)  # fmt: skip


def ece(view: View) -> float:
    """Calibration error of sigmoid(z) against the true win probability, over pairs with a known gap."""
    known = _known_gap(view)
    probability = distributions.sigmoid(implicit_margin(known, view.beta))
    return distributions.calibration_error(probability, distributions.sigmoid(numbers(known, "gold_margin")))


ECE = Metric(
    "ece", ece, "share", "down", 0, 1, GAP, "CED",
    "calibration of sigmoid(z) against the true win probability; logistic losses only", ("beta",), False,
)  # fmt: skip


def ece_label(view: View) -> float:
    """Calibration error of sigmoid(z) against the label, over pairs in both orientations."""
    probability = distributions.sigmoid(implicit_margin(view.columns, view.beta))
    target = np.concatenate([np.ones(probability.size), np.zeros(probability.size)])
    return distributions.calibration_error(np.concatenate([probability, 1 - probability]), target)


ECE_LABEL = Metric(
    "ece_label", ece_label, "share", "down", 0, 1, LOGPS, "CED",
    "calibration of sigmoid(z) against the label, both orientations; logistic losses only", ("beta",), False,
)  # fmt: skip


def frac_ref_below_gamma(view: View) -> float:
    """Share of pairs whose reference margin per token lies below gamma."""
    return mean((delta_ref(per_token(view.columns)) < view.gamma).astype(np.float64))


FRAC_REF_BELOW_GAMMA = Metric(
    "frac_ref_below_gamma", frac_ref_below_gamma, "share", "none", 0, 1, LOGPS + LENGTHS, "OCED",
    "pairs whose target cpo_smooth raises materially: ln_delta_ref < gamma", ("gamma",),
)  # fmt: skip


def flipped(view: View) -> Bools:
    """Training pairs whose observed label is wrong."""
    return np.asarray(column(view.columns, "clean_label") < 0, dtype=bool)


MEMORISED_FLIP_RATE = Metric(
    "memorised_flip_rate", lambda v: rate(select(v.columns, flipped(v)), "ranking_accuracy"), "share", "down", 0, 1,
    LABELS, "O", "wrongly labelled training pairs on which the policy follows the wrong label; unknown without any",
)  # fmt: skip
FLIP_AUROC = Metric(
    "flip_auroc", lambda v: distributions.auc(-log_ratio_margin(v.columns), flipped(v)), "share", "up", 0, 1, LABELS,
    "O", "how well a low margin finds wrong labels: 1 all, .5 none; below .5 they are memorised",
)  # fmt: skip


def clean_ranking_accuracy(view: View) -> float:
    """Ranking accuracy of training pairs under their clean labels."""
    sign = np.where(flipped(view), -1.0, 1.0)
    return mean((sign * delta(view.columns) > 0).astype(np.float64))


CLEAN_RANKING_ACCURACY = Metric(
    "clean_ranking_accuracy", clean_ranking_accuracy, "share", "up", 0, 1, LABELS, "O",
    "ranking accuracy on training pairs against their clean labels",
)  # fmt: skip
OBSERVED_CLEAN_GAP = Metric(
    "observed_clean_gap", lambda v: rate(v.columns, "ranking_accuracy") - clean_ranking_accuracy(v), "share", "none",
    -1, 1, LABELS, "O", "training ranking accuracy on observed minus on clean labels: > 0 fits the noise",
)  # fmt: skip
VACUOUS_RATE = Metric(
    "vacuous_rate", lambda v: share(v.columns, "vacuous"), "share", "none", 0, 1, ("vacuous",), "OCED",
    "pairs with equal texts; explains ties",
)  # fmt: skip


def mass_elsewhere(view: View) -> float:
    """Share of pairs whose two responses together are less likely than under the reference."""
    now, before = (
        np.logaddexp(numbers(view.columns, f"{model}_chosen"), numbers(view.columns, f"{model}_rejected"))
        for model in ("policy", "reference")
    )
    return mean((now < before - view.tie_tol).astype(np.float64))


MASS_ELSEWHERE = Metric(
    "mass_elsewhere", mass_elsewhere, "share", "down", 0, 1, LOGPS, "OCED",
    "pairs whose two responses together lost probability: it went to third answers",
)  # fmt: skip


ROWS = (
    *_rates(per_token=False), *_rates(per_token=True),
    CHOSEN_DISPLACEMENT, REJECTED_DISPLACEMENT, LOGRATIO_ON_DATA, W1_SHIFT, CORR_REF_GAIN, AUC, VIOLATION_RATE,
    IDEALISED_RANKING_ACCURACY, ECE, ECE_LABEL, FRAC_REF_BELOW_GAMMA, MEMORISED_FLIP_RATE, FLIP_AUROC,
    CLEAN_RANKING_ACCURACY, OBSERVED_CLEAN_GAP, VACUOUS_RATE, MASS_ELSEWHERE,
)  # fmt: skip
