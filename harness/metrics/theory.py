"""Theory beside measurement: what the closed forms predict of a run's held-out pairs, and what the run did.

One pair on its own (delta free), true preference probability q = sigmoid(gold gap) or, under hard labels, 1; labels
flipped uniformly with rate eps are right with probability q' = q (1 - 2 eps) + eps. A shared model trained for a
finite time need not reach any of it: the panel shows how far apart the two are, per beta.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.metrics.margin_columns import delta, delta_ref
from harness.metrics.records import Columns, Floats, numbers, size, turned
from harness.metrics.targets import LOGISTIC_MARGIN, in_reduction, target

Hyperparameters = Mapping[str, Any]
Minimiser = Callable[[Floats, Floats, Hyperparameters], Floats]

TIE = 1e-9  # |q' - 1/2| below this is a coin: the sign of a minimiser at infinity is then 0


def observed_probability(gap: Floats, flip_rate: float = 0.0, labels: str = "bradley_terry") -> Floats:
    """q' (n,): the probability that a label prefers the truly better side. `labels`: bradley_terry draws it from the
    gap, hard always labels the better side; `flip_rate` then turns labels uniformly. ValueError outside [0, 1/2]."""
    if not 0 <= flip_rate <= 0.5:
        raise ValueError(f"flip_rate {flip_rate} outside [0, 1/2]")
    if labels == "hard":
        right = np.where(gap > 0, 1.0, np.where(gap < 0, 0.0, 0.5))
    elif labels == "bradley_terry":
        right = 1.0 / (1.0 + np.exp(-gap))
    else:
        raise ValueError(f"labels must be bradley_terry or hard, got {labels!r}")
    return np.asarray(right * (1 - 2 * flip_rate) + flip_rate)


def logit(q: Floats) -> Floats:
    """log(q / (1 - q)) (n,); minus and plus infinity at 0 and 1."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(q) - np.log1p(-q))


def _signed_infinity(q: Floats) -> Floats:
    return np.where(np.abs(q - 0.5) <= TIE, 0.0, np.where(q > 0.5, np.inf, -np.inf))


def _dpo(ref: Floats, q: Floats, hp: Hyperparameters) -> Floats:
    return np.asarray(ref + logit(q) / hp["beta"])


def _cdpo(ref: Floats, q: Floats, hp: Hyperparameters) -> Floats:
    eps = float(hp["eps"])
    return np.asarray(ref + logit(q * (1 - 2 * eps) + eps) / hp["beta"])


def _robust(ref: Floats, q: Floats, hp: Hyperparameters) -> Floats:
    eps = float(hp["eps"])
    return np.asarray(ref + logit(np.clip((q - eps) / (1 - 2 * eps), 0.0, 1.0)) / hp["beta"])


def _ipo(ref: Floats, q: Floats, hp: Hyperparameters) -> Floats:
    return np.asarray(ref + (2 * q - 1) / (2 * hp["beta"]))


def _hinge(ref: Floats, q: Floats, hp: Hyperparameters) -> Floats:
    return np.asarray(ref + np.sign(np.where(np.abs(q - 0.5) <= TIE, 0.0, q - 0.5)) / hp["beta"])


def _sppo(ref: Floats, q: Floats, hp: Hyperparameters) -> Floats:
    return np.asarray(ref + (2 * q - 1) / hp["beta"])


def _exo(ref: Floats, q: Floats, hp: Hyperparameters) -> Floats:
    return np.asarray(ref + (2 * q - 1) * np.log((1 - hp["eps"]) / hp["eps"]) / hp["beta"])


def _sympo(ref: Floats, q: Floats, _hp: Hyperparameters) -> Floats:
    return np.asarray(ref + _signed_infinity(q))


def _dual(ref: Floats, q: Floats, hp: Hyperparameters) -> Floats:
    return np.asarray(np.maximum(ref + logit(q) / hp["beta"], float(hp["margin"])))


MINIMISERS: Mapping[str, Minimiser] = {
    "dpo": _dpo, "ln_dpo": _dpo, "cdpo": _cdpo, "robust_dpo": _robust, "ipo": _ipo, "hinge": _hinge, "sppo": _sppo,
    "exo": _exo, "sympo": _sympo, "cpo_dual": _dual,
}  # fmt: skip
# Logistic margin losses whose target does not move with the policy: their minimiser follows from T+ and T-.
MARGINS = LOGISTIC_MARGIN - {"dpo", "ln_dpo", "cpo_dual", "dpop"}


def margin_minimiser(q: Floats, target_right: Floats, target_wrong: Floats, beta: float) -> Floats:
    """Minimiser (n,) of q L(beta (delta - T+)) + (1 - q) L(beta (-delta - T-)), L = -log sigmoid.

    That is what training on flipped labels minimises when the margin is computed from the pair as labelled: T+ as truly
    ordered, T- the other way round.

    (1/beta) log[(B + sqrt(B^2 + 4 A C)) / (2 A)], A = (1 - q) exp(-beta T+), B = 2 q - 1, C = q exp(-beta T-).
    """
    with np.errstate(divide="ignore"):
        right, wrong = np.log(q), np.log1p(-q)
        # 4 A C in logs: with a large margin on both sides A and C are 0 in floating point, their ratio is not.
        product = np.log(4) + right + wrong - beta * (target_right + target_wrong)
        b = 2 * q - 1
        root = np.sqrt(b * b + np.exp(product))
        above = np.where(b == 0, product / 2, np.log(np.maximum(b, 0.0) + root)) - np.log(2) - wrong
        # The same root without cancellation where B < 0.
        below = np.log(2) + right - np.log(np.where(b < 0, root - b, 1.0))
        return np.asarray(np.where(b >= 0, above / beta + target_right, below / beta - target_wrong))


def minimiser(objective: str, columns: Columns, q: Floats, hyperparameters: Hyperparameters) -> Floats | None:
    """The population minimiser delta* (n,) of each pair in clean orientation, in the objective's own reduction.

    +-inf where the loss has none that is finite; None for objectives without a closed form, and where an added
    likelihood term moves it. `q` is `observed_probability`.
    """
    hp = hyperparameters
    if hp.get("rpo_alpha") or (objective == "contrastive_cpo" and hp.get("lam", 1.0)):
        return None
    if objective in MINIMISERS:
        return MINIMISERS[objective](delta_ref(in_reduction(objective, columns, hp)), q, hp)
    if objective not in MARGINS:
        return None
    wrong = turned(columns, np.ones(size(columns), dtype=bool))
    right, reversed_target = target(objective, columns, hp), target(objective, wrong, hp)
    assert right is not None and reversed_target is not None, "every logistic margin loss has a target"
    return margin_minimiser(q, right, reversed_target, float(hp["beta"]))


@dataclass(frozen=True, slots=True)
class Theory:
    """Predicted against measured on `n` held-out pairs with a known gap; shares in [0, 1].

    `violated`: P(delta_ref + gap' / beta < 0) with the effective gap logit(q'), the pairs that the RLHF optimum ranks
    wrong; `wrong`: the share measured, P(delta < 0). `idealised`: P(delta_ref + gap' / beta > 0), the best ranking
    accuracy of that optimum; `achieved`: the ranking accuracy measured. The four are None without a beta.
    `predicted_right`: share of pairs whose closed-form minimiser under this objective is above 0; `agreement`: share on
    whose sign the policy agrees with it; None for objectives without one.
    """

    n: int
    violated: float | None
    wrong: float
    idealised: float | None
    achieved: float
    predicted_right: float | None
    agreement: float | None


def theory(
    columns: Columns,
    objective: str,
    hyperparameters: Hyperparameters,
    flip_rate: float = 0.0,
    labels: str = "bradley_terry",
) -> Theory | None:
    """The panel's numbers for one run: `columns` are its clean held-out pairs at one step. None where no gap is known.

    `flip_rate` is the data's uniform flip rate, `labels` how clean labels come about. A violated share speaks of a
    finite optimum, so under hard labels without flips, where none exists, it is 0 wherever the gap is above 0.
    """
    gap = numbers(columns, "gold_margin")
    known = np.isfinite(gap)
    if not known.any():
        return None
    rows = {name: np.asarray(values)[known] for name, values in columns.items()}
    q = observed_probability(gap[known], flip_rate, labels)
    moved = delta(rows)
    beta = hyperparameters.get("beta")
    optimum = None if beta is None else delta_ref(rows) + logit(q) / float(beta)
    best = minimiser(objective, rows, q, hyperparameters)
    reached = delta(in_reduction(objective, rows, hyperparameters))
    return Theory(
        n=int(known.sum()),
        violated=None if optimum is None else float(np.mean(optimum < 0)),
        wrong=float(np.mean(moved < 0)),
        idealised=None if optimum is None else float(np.mean(optimum > 0)),
        achieved=float(np.mean(moved > 0)),
        predicted_right=None if best is None else float(np.mean(best > 0)),
        agreement=None if best is None else float(np.mean(np.sign(best) == np.sign(reached))),
    )
