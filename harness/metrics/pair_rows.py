"""Measures of preference pairs: rates, zones, transitions, displacement, violations, calibration, memorised flips."""

from __future__ import annotations

import numpy as np

from harness.metrics import distributions, margins
from harness.metrics.distributions import mean
from harness.metrics.records import Array, Bools, column, numbers, select
from harness.metrics.row import INF, LENGTHS, LOGPS, Function, Metric, View
from harness.metrics.samples import share

RATE_ROWS = (
    ("ranking_accuracy", "up", "the policy itself prefers the right response: delta > 0"),
    ("reward_accuracy", "up", "moved the right way since the reference: gain > 0; can be 1 while rankings are wrong"),
    ("ref_accuracy", "none", "the reference's own ranking accuracy, delta_ref > 0; constant over training"),
    ("tie_rate_delta", "none", "pairs with delta = 0 exactly, such as identical texts"),
    ("tie_rate_gain", "none", "pairs not moved beyond tie_tol; 1 at step 0"),
    ("undesirable_zone", "down", "better than the reference and still ranked wrong: delta_ref < delta < 0"),
    ("zone_z1", "up", "right and improved"),
    ("zone_z2", "none", "right, and not improved on the reference"),
    ("zone_z4", "down", "wrong and not improved"),
    ("zone_tie", "none", "delta = 0"),
    ("rescued", "up", "wrong under the reference, right now"),
    ("broken", "down", "right under the reference, wrong now"),
    ("kept_right", "none", "right under the reference and now"),
    ("kept_wrong", "down", "wrong under the reference and now"),
    ("violation_proxy", "none", "delta_ref < 0: an upper bound on violation_rate in clean orientation"),
    ("disp_rate", "down", "chosen responses that became less likely"),
    ("both_down", "down", "both responses became less likely: mass went elsewhere"),
)
# Ties and the sign of one side's shift do not depend on its length: their per-token twins would be the same number.
NO_TWIN = ("tie_rate_gain", "disp_rate", "both_down")


def _rate(name: str, per_token: bool) -> Function:
    return lambda v: margins.rate(v.columns, name, v.tie_tol, per_token)


def _gap(per_token: bool) -> Function:
    relative, absolute = _rate("reward_accuracy", per_token), _rate("ranking_accuracy", per_token)
    return lambda v: relative(v) - absolute(v)


def rates() -> list[Metric]:
    """Every rate of `margins.RATES` on sums, and under `ln_` on token means."""
    rows = []
    for per_token, prefix, needs, note in ((False, "", LOGPS, ""), (True, "ln_", LOGPS + LENGTHS, " (token means)")):
        for name, direction, text in RATE_ROWS:
            if not (per_token and name in NO_TWIN):
                function = _rate(name, per_token)
                rows.append(Metric(prefix + name, function, "share", direction, 0, 1, needs, "OCED", text + note))
        text = f"reward_accuracy - ranking_accuracy: improvement without right rankings{note}"
        rows.append(Metric(f"{prefix}accuracy_gap", _gap(per_token), "share", "down", -1, 1, needs, "OCED", text))
    return rows


def _known_gap(view: View) -> dict[str, Array]:
    return select(view.columns, ~np.isnan(numbers(view.columns, "gold_margin")))


def _violation_rate(view: View) -> float:
    return mean(margins.violated(_known_gap(view), view.beta, view.flip_rate).astype(np.float64))


def _ece(view: View) -> float:
    known = _known_gap(view)
    probability = distributions.sigmoid(margins.implicit_margin(known, view.beta))
    return distributions.calibration_error(probability, distributions.sigmoid(numbers(known, "gold_margin")))


def _ece_label(view: View) -> float:
    probability = distributions.sigmoid(margins.implicit_margin(view.columns, view.beta))
    target = np.concatenate([np.ones(probability.size), np.zeros(probability.size)])
    return distributions.calibration_error(np.concatenate([probability, 1 - probability]), target)


def _auc(view: View) -> float:
    moved = margins.gain(view.columns)
    return distributions.both_ways_auc(np.where(np.abs(moved) <= view.tie_tol, 0.0, moved))


def _below_gamma(view: View) -> float:
    reference = margins.delta_ref(margins.per_token(view.columns))
    return mean((reference < view.gamma).astype(np.float64))


def flipped(view: View) -> Bools:
    """Training pairs whose observed label is wrong."""
    return np.asarray(column(view.columns, "clean_label") < 0, dtype=bool)


def _memorised(view: View) -> float:
    return margins.rate(select(view.columns, flipped(view)), "ranking_accuracy")


def _clean_accuracy(view: View) -> float:
    sign = np.where(flipped(view), -1.0, 1.0)
    return mean((sign * margins.delta(view.columns) > 0).astype(np.float64))


def _observed_clean_gap(view: View) -> float:
    return margins.rate(view.columns, "ranking_accuracy") - _clean_accuracy(view)


def _mass_elsewhere(view: View) -> float:
    now, before = (
        np.logaddexp(numbers(view.columns, f"{model}_chosen"), numbers(view.columns, f"{model}_rejected"))
        for model in ("policy", "reference")
    )
    return mean((now < before - view.tie_tol).astype(np.float64))


def _logratio(view: View) -> float:
    return mean((margins.chosen_shift(view.columns) + margins.rejected_shift(view.columns)) / 2)


def pairs() -> list[Metric]:
    """Displacement, violations, distributions and memorised flips; all need the four log-prob columns."""
    gap, labels, beta = (*LOGPS, "gold_margin"), (*LOGPS, "clean_label"), ("beta",)
    return [
        Metric("chosen_displacement", lambda v: mean(margins.chosen_shift(v.columns)), "nats", "none", -INF, INF,
               LOGPS, "OCED", "mean log-prob change of the chosen response; may fall while gain grows"),
        Metric("rejected_displacement", lambda v: mean(margins.rejected_shift(v.columns)), "nats", "none", -INF, INF,
               LOGPS, "OCED", "mean log-prob change of the rejected response"),
        Metric("logratio_on_data", _logratio, "nats", "none", -INF, INF, LOGPS, "OCED",
               "mean log-ratio on the data set's responses; not a KL"),
        Metric("w1_shift", lambda v: distributions.w1(margins.delta(v.columns), margins.delta_ref(v.columns)),
               "nats", "none", 0, INF, LOGPS, "OCED", "Wasserstein-1 distance between delta and delta_ref"),
        Metric("corr_ref_gain",
               lambda v: distributions.correlation(margins.delta_ref(v.columns), margins.gain(v.columns)),
               "correlation", "none", -1, 1, LOGPS, "OCED", "correlation of delta_ref and gain"),
        Metric("auc", _auc, "share", "up", 0, 1, LOGPS, "OCED",
               "area under the curve of the implicit margin, pairs in both orientations; .5 at step 0"),
        Metric("violation_rate", _violation_rate, "share", "none", 0, 1, gap, "CED",
               "pairs whose RLHF optimum at this beta ranks them wrong: delta_ref + gap / beta <= 0", beta, False),
        Metric("idealised_ranking_accuracy", lambda v: 1.0 - _violation_rate(v), "share", "none", 0, 1, gap, "CED",
               "best ranking accuracy the RLHF optimum can have at this beta", beta, False),
        Metric("ece", _ece, "share", "down", 0, 1, gap, "CED",
               "calibration of sigmoid(beta gain) against the true win probability; logistic losses only", beta, False),
        Metric("ece_label", _ece_label, "share", "down", 0, 1, LOGPS, "CED",
               "calibration of sigmoid(beta gain) against the label, both orientations; logistic losses only",
               beta, False),
        Metric("frac_ref_below_gamma", _below_gamma, "share", "none", 0, 1, LOGPS + LENGTHS, "OCED",
               "pairs whose target cpo_smooth raises materially: ln_delta_ref < gamma", ("gamma",)),
        Metric("memorised_flip_rate", _memorised, "share", "down", 0, 1, labels, "O",
               "wrongly labelled training pairs on which the policy follows the wrong label; unknown without any"),
        Metric("flip_auroc", lambda v: distributions.auc(-margins.gain(v.columns), flipped(v)), "share", "up", 0, 1,
               labels, "O", "how well a low margin finds wrong labels: 1 all, .5 none; below .5 they are memorised"),
        Metric("clean_ranking_accuracy", _clean_accuracy, "share", "up", 0, 1, labels, "O",
               "ranking accuracy on training pairs against their clean labels"),
        Metric("observed_clean_gap", _observed_clean_gap, "share", "none", -1, 1, labels, "O",
               "training ranking accuracy on observed minus on clean labels: > 0 fits the noise"),
        Metric("vacuous_rate", lambda v: share(v.columns, "vacuous"), "share", "none", 0, 1, ("vacuous",), "OCED",
               "pairs with equal texts; explains ties"),
        Metric("mass_elsewhere", _mass_elsewhere, "share", "down", 0, 1, LOGPS, "OCED",
               "pairs whose two responses together lost probability: it went to third answers"),
    ]  # fmt: skip
