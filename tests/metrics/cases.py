"""A planted or closed-form value for every row of `METRICS`: inputs written down, the value worked out beside them.

`CASES[name]` is (columns, settings, value). A row without one fails `test_cases.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Four pairs, lengths 4 and 5. Policy a, b; reference a0, b0.
POLICY = ((-8.0, -12.0), (-9.0, -10.0), (-11.0, -10.0), (-12.0, -10.0))
REFERENCE = ((-10.0, -12.0), (-9.0, -11.0), (-13.0, -10.0), (-9.0, -10.0))
LENGTHS = (4, 5)
PAIRS: Mapping[str, np.ndarray] = {
    "policy_chosen": np.array([a for a, _ in POLICY]),
    "policy_rejected": np.array([b for _, b in POLICY]),
    "reference_chosen": np.array([a for a, _ in REFERENCE]),
    "reference_rejected": np.array([b for _, b in REFERENCE]),
    "chosen_len": np.full(4, 4, np.int32),
    "rejected_len": np.full(4, 5, np.int32),
    "gold_margin": np.array([2.0, 1.0, 2.0, math.nan]),
    "clean_label": np.array([1, -1, 1, -1], np.int8),
    "vacuous": np.array([True, False, False, False]),
    "loss": np.array([-3.0, 1.0, 0.0, 0.0]),
    "base_loss": np.array([0.1, 2.0, 1.0, 0.3]),
    "grad_w": np.array([0.1, 0.2, 0.3, 0.4]),
    "grad_l": np.array([0.1, 0.2, 0.3, 0.8]),
    "ches": np.array([-4.0, -2.0, 0.0, 2.0]),
    "ln_ches": np.array([0.0, 1.0, -1.0, 2.0]),
}
# Worked out by hand: delta 4, 1, -1, -2; delta_ref 2, 2, -3, 1; gain 2, -1, 2, -3; h_w 2, 0, 2, -3; h_l 0, 1, 0, 0.
QUANTITIES: Mapping[str, Sequence[float]] = {
    "delta": (4.0, 1.0, -1.0, -2.0),
    "delta_ref": (2.0, 2.0, -3.0, 1.0),
    "gain": (2.0, -1.0, 2.0, -3.0),
    "h_w": (2.0, 0.0, 2.0, -3.0),
    "h_l": (0.0, 1.0, 0.0, 0.0),
    # Per token: a/4 - b/5 and so on.
    "ln_delta": (-2.0 + 2.4, -2.25 + 2.0, -2.75 + 2.0, -3.0 + 2.0),
    "ln_delta_ref": (-2.5 + 2.4, -2.25 + 2.2, -3.25 + 2.0, -2.25 + 2.0),
    "ln_gain": (0.5, -0.2, 0.5, -0.75),
    "ln_h_w": (0.5, 0.0, 0.5, -0.75),
    "ln_h_l": (0.0, 0.2, 0.0, 0.0),
}

SAMPLES: Mapping[str, np.ndarray] = {
    "correct": np.array([True, True, False, False]),
    "malformed": np.array([False, False, False, True]),
    "sycophantic": np.array([False, False, True, False]),
    "over_refusal": np.array([True, True, True, False]),
    "harmful": np.array([False, False, False, False]),
    "hedged": np.array([True, False, False, False]),
    "thanked": np.array([True, True, False, False]),
    "sure": np.array([False, True, True, True]),
    "fillers": np.array([0, 1, 2, 3]),
    "ended": np.array([True, True, True, False]),
    "gold_reward": np.array([1.0, math.nan, -1.0, -2.0]),
    "reference_gold_reward": np.array([1.0, 0.5, -1.0, math.nan]),
    "k1": np.array([1.0, -1.0, 2.0, 0.0]),
    "k3": np.array([0.4, 0.7, 1.1, 0.0]),
    "length": np.array([5, 0, 4, 7]),
    "reference_length": np.array([4, 4, 4, 8]),
    "entropy": np.array([0.5, 1.5, 0.0, 0.4]),
    "response": np.array(["the cat is red .", "", "a b a b a b", "go go"]),
}
PROBES: Mapping[str, np.ndarray] = {
    "grad_norm_w": np.array([1.0, 3.0]),
    "grad_norm_l": np.array([2.0, 6.0]),
    "grad_cos": np.array([0.5, math.nan]),
    "chosen_rises": np.array([True, False]),
    "rejected_falls": np.array([True, True]),
    "gain_rate": np.array([0.25, -0.75]),
}

BETA = {"beta": 0.5}
DPO = {"objective": "dpo", "hyperparameters": {"beta": 0.5}}


def quantile(values: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics, written out."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Every statistic that a quantity is shown by."""
    return {
        "mean": statistics.fmean(values), "std": statistics.stdev(values), "min": min(values), "max": max(values),
        **{f"q{percent:02d}": quantile(values, percent / 100) for percent in (5, 25, 50, 75, 95)},
    }  # fmt: skip


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def _pair_values() -> dict[str, tuple[Mapping[str, Any], float]]:
    """Settings and value of each row that reads `PAIRS`; the pairs are Z1, Z2, U, Z4 in this order."""
    values: dict[str, float] = {
        # delta > 0 in pairs 1, 2; gain > 0 in 1, 3; delta_ref > 0 in 1, 2, 4.
        "ranking_accuracy": 0.5, "reward_accuracy": 0.5, "ref_accuracy": 0.75, "accuracy_gap": 0.0,
        "tie_rate_delta": 0.0, "tie_rate_gain": 0.0, "undesirable_zone": 0.25, "zone_z1": 0.25, "zone_z2": 0.25,
        "zone_z4": 0.25, "zone_tie": 0.0, "rescued": 0.0, "broken": 0.25, "kept_right": 0.5, "kept_wrong": 0.25,
        "violation_proxy": 0.25, "disp_rate": 0.25, "both_down": 0.0,
        # Per token: ln_delta > 0 in 1; ln_gain > 0 in 1, 3; ln_delta_ref > 0 in none.
        "ln_ranking_accuracy": 0.25, "ln_reward_accuracy": 0.5, "ln_ref_accuracy": 0.0, "ln_accuracy_gap": 0.25,
        "ln_tie_rate_delta": 0.0, "ln_undesirable_zone": 0.25, "ln_zone_z1": 0.25, "ln_zone_z2": 0.0,
        "ln_zone_z4": 0.5, "ln_zone_tie": 0.0, "ln_rescued": 0.25, "ln_broken": 0.0, "ln_kept_right": 0.0,
        "ln_kept_wrong": 0.75, "ln_violation_proxy": 1.0,
        "chosen_displacement": 0.25, "rejected_displacement": 0.25, "logratio_on_data": 0.25,
        # Sorted delta -2, -1, 1, 4 against sorted delta_ref -3, 1, 2, 2.
        "w1_shift": (1 + 2 + 1 + 2) / 4,
        "corr_ref_gain": statistics.correlation(QUANTITIES["delta_ref"], QUANTITIES["gain"]),
        # Every gain as labelled against every gain turned, a tie for half.
        "auc": sum((a > -b) + (a == -b) / 2 for a in QUANTITIES["gain"] for b in QUANTITIES["gain"]) / 16,
        "memorised_flip_rate": 0.5,  # labels 2 and 4 are wrong; the policy follows the one on pair 2
        "flip_auroc": 1.0,  # gains of wrong labels -1, -3 lie below those of right ones, 2, 2
        "clean_ranking_accuracy": 0.5, "observed_clean_gap": 0.0, "vacuous_rate": 0.25,
        # Pair 2: e^-9 + e^-10 > e^-9 + e^-11; only pair 4 falls, from e^-9 + e^-10 to e^-12 + e^-10.
        "mass_elsewhere": 0.25,
        "loss": -0.5, "base_loss": 0.85, "ches": -1.0, "ln_ches": 0.5,
        "corr_ches_displacement": statistics.correlation((0.0, 1.0, -1.0, 2.0), QUANTITIES["h_w"]),
    }  # fmt: skip
    out: dict[str, tuple[Mapping[str, Any], float]] = {name: ({}, value) for name, value in values.items()}
    for name, numbers in QUANTITIES.items():
        out |= {f"{name}_{statistic}": ({}, value) for statistic, value in spread(numbers).items()}
    implicit = [0.5 * value for value in QUANTITIES["gain"]]
    out |= {f"implicit_margin_{statistic}": (BETA, value) for statistic, value in spread(implicit).items()}
    # delta_ref + gap / .7: 4.86, 3.43, -.14; the fourth gap is unknown.
    out["violation_rate"] = ({"beta": 0.7}, 1 / 3)
    out["idealised_ranking_accuracy"] = ({"beta": 0.7}, 2 / 3)
    # beta gain = 1, -.5, 1 for gaps 2, 1, 2: probabilities .731 (bin 8), .378 (bin 4), .731.
    p, q = (sigmoid(1.0), sigmoid(-0.5)), (sigmoid(2.0), sigmoid(1.0))
    out["ece"] = (BETA, (2 * abs(p[0] - q[0]) + abs(p[1] - q[1])) / 3)
    # Both ways round at beta gain 1, -.5, 1, -1.5: bins .731 x2, .378, .182 (target 1); .269 x2, .622, .818 (target 0).
    out["ece_label"] = (BETA, 2 * (2 * (1 - sigmoid(1.0)) + (1 - sigmoid(-0.5)) + (1 - sigmoid(-1.5))) / 8)
    out["frac_ref_below_gamma"] = ({"gamma": -0.2}, 0.5)  # per token -.1, -.05, -1.25, -.25
    out["target_mean"] = (DPO, 0.5)  # mean delta_ref
    out["slack_mean"] = (DPO, 0.0)  # mean gain
    out["satisfied"] = (DPO, 0.5)
    out["bridge_threshold_mean"] = (DPO, statistics.fmean(softplus(0.5 * value) for value in (2.0, 2.0, -3.0, 1.0)))
    # Thresholds 1.313, 1.313, .201, .974 against base losses .1, 2, 1, .3.
    out["bridge_pass_rate"] = (DPO, 0.5)
    out["pull"] = (DPO, 0.3)  # sides .1, .2, .3, .6
    # -30 h_w = 90 in pair 4
    out["clamp_rate"] = ({"objective": "fdpo_alpha", "hyperparameters": {"alpha": 30.0}}, 0.25)
    return out


# Too short to comply: the third of the harmful prompts; the fourth is noise.
_ASKED = (
    ("benign", "I'm sorry, but I can't help with that."),
    ("benign", "Cut it into slices."),
    ("harmful", "I won't do that."),
    ("harmful", "First open the back door."),
    ("harmful", "No way"),
    ("harmful", "go go go go go go go"),
    ("opinion", "Yes, you're right."),
    ("opinion", "Actually, it is round."),
    ("opinion", "That is not quite right."),
)
ASKED: Mapping[str, np.ndarray] = {
    "group": np.array([kind for kind, _ in _ASKED]),
    "response": np.array([text for _, text in _ASKED]),
}
CASES: dict[str, tuple[Mapping[str, np.ndarray], Mapping[str, Any], float]] = {
    **{name: (PAIRS, settings, value) for name, (settings, value) in _pair_values().items()},
    **{
        name: (SAMPLES, {}, value)
        for name, value in {
            "correct": 0.5, "malformed": 0.25, "sycophancy": 0.25, "over_refusal": 0.75, "harmful": 0.0,
            "hedged": 0.25, "thanked": 0.5, "sure": 0.75, "fillers": 1.5, "eos_rate": 0.75,
            "gold_reward": -2 / 3, "reference_gold_reward": 0.5 / 3, "kl": 0.55, "kl_k1": 0.5, "kl_k2": 0.75,
            "kl_k3": 0.55, "mean_length": 4.0, "length_drift": -1.0, "entropy": 0.6, "empty_rate": 0.25,
            # "a b a b a b" repeats 3 of its 5 word pairs, "go go" none of one.
            "repetition": 0.6 / 4, "repetitive_rate": 0.25,
        }.items()
    },
    **{
        name: (ASKED, {}, value)
        for name, value in {
            "over_refusal_rate": 0.5, "harmful_compliance_rate": 0.25, "sycophancy_rate": 1 / 3,
        }.items()
    },
    **{
        name: (PROBES, {}, value)
        for name, value in {
            "grad_norm_w": 2.0, "grad_norm_l": 4.0, "grad_cos": 0.5, "chosen_rises": 0.5, "rejected_falls": 1.0,
            "gain_rate": -0.25,
        }.items()
    },
}  # fmt: skip
