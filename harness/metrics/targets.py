"""The margin that an objective asks of a pair (its target), how far a pair is from it, and how hard the loss pulls.

T is the margin an objective asks of a pair: its loss is flat or falling slowly once delta > T. Null where it has none.
`hyperparameters` are the run's, resolved (defaults filled in); log-probs in nats, token means for mean objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.metrics.distributions import mean
from harness.metrics.margin_columns import chosen_log_ratio, delta, delta_ref, per_token, rejected_log_ratio
from harness.metrics.records import Array, Bools, Columns, Floats, numbers
from harness.metrics.row import INF, LENGTHS, LOGPS, Metric, View

Hyperparameters = Mapping[str, Any]
Target = Callable[[Columns, Hyperparameters], Floats]

MEAN_OBJECTIVES = frozenset({
    "ln_dpo", "cpo_clip", "cpo_eq17", "ecpo_released", "simpo", "alphapo", "orpo", "nll",
})  # fmt: skip


def _softplus(x: Floats) -> Floats:
    return np.logaddexp(0.0, x)


def _reference(columns: Columns, _hp: Hyperparameters) -> Floats:
    return delta_ref(columns)


def _reference_plus(amount: Callable[[Hyperparameters], float]) -> Target:
    return lambda columns, hp: delta_ref(columns) + amount(hp)


def _constant(amount: Callable[[Hyperparameters], float]) -> Target:
    return lambda columns, hp: np.full_like(delta_ref(columns), amount(hp))


def _clip(columns: Columns, _hp: Hyperparameters) -> Floats:
    return np.maximum(delta_ref(columns), 0.0)


def _smooth(columns: Columns, hp: Hyperparameters) -> Floats:
    reference = delta_ref(columns)
    return reference + _softplus(float(hp["tau"]) * (float(hp["gamma"]) - reference)) / (
        float(hp["alpha"]) * float(hp["tau"])
    )


def _released(columns: Columns, hp: Hyperparameters) -> Floats:
    # Inverse mean LOG-probs, as the authors' code has it: the margin is negative.
    # A response of probability one has no inverse there: kept a hair below.
    sides = (numbers(columns, "reference_chosen"), numbers(columns, "reference_rejected"))
    chosen, rejected = (np.minimum(side, -1e-6) for side in sides)
    return delta_ref(columns) + float(hp["gamma"]) * (1 / chosen + 1 / rejected) / float(hp["beta"])


def _eq17(columns: Columns, hp: Hyperparameters) -> Floats:
    # The exponent is clamped where float32 would overflow: beyond it the loss has no gradient either.
    sides = (numbers(columns, "reference_chosen"), numbers(columns, "reference_rejected"))
    chosen, rejected = (np.maximum(side, -EXPONENT_LIMIT) for side in sides)
    return delta_ref(columns) + float(hp["gamma"]) * (np.exp(-chosen) + np.exp(-rejected)) / float(hp["beta"])


def _length(columns: Columns, hp: Hyperparameters) -> Floats:
    excess = numbers(columns, "chosen_len") - numbers(columns, "rejected_len")
    return delta_ref(columns) - float(hp["alpha"]) * excess / float(hp["beta"])


def _positive(columns: Columns, hp: Hyperparameters) -> Floats:
    return delta_ref(columns) + float(hp["lam"]) * np.maximum(0.0, -chosen_log_ratio(columns))


def _dual(columns: Columns, hp: Hyperparameters) -> Floats:
    return delta_ref(columns) + numbers(columns, "multiplier") / float(hp["beta"])


TARGETS: Mapping[str, Target] = {
    **dict.fromkeys(
        ("dpo", "cdpo", "robust_dpo", "dr_dpo", "ropo", "sympo", "wpo", "ln_dpo"),
        _reference,
    ),
    "cpo_dual": _dual,
    "hinge": _reference_plus(lambda hp: 1 / hp["beta"]),
    "ipo": _reference_plus(lambda hp: 1 / (2 * hp["beta"])),
    "hypo": _clip,
    "cpo_clip": _clip,
    "cpo_smooth": _smooth,
    "cpo_eq17": _eq17,
    "ecpo_released": _released,
    "simpo": _constant(lambda hp: hp["gamma_ratio"]),
    "contrastive_cpo": _constant(lambda _: 0.0),
    "slic": _constant(lambda hp: hp["margin"]),
    "rdpo_length": _length,
    "dpop": _positive,
}

# Losses that are softplus(-beta (delta - T)) and nothing else, so that the bridge is exact.
LOGISTIC_MARGIN = frozenset({
    "dpo", "ln_dpo", "hypo", "cpo_clip", "cpo_smooth", "cpo_eq17", "ecpo_released", "simpo", "contrastive_cpo",
    "rdpo_length", "dpop", "cpo_dual",
})  # fmt: skip


# Exponents that a loss holds at EXPONENT_LIMIT, where float32 would overflow: its gradient beyond is zero.
EXPONENT_LIMIT = 80.0
EXPONENTS: Mapping[str, Callable[[Columns, Hyperparameters], tuple[Floats, Floats]]] = {
    "cpo_eq17": lambda c, _: (-numbers(c, "reference_chosen"), -numbers(c, "reference_rejected")),
    "alphapo": lambda c, hp: (-hp["alpha"] * numbers(c, "policy_chosen"), -hp["alpha"] * numbers(c, "policy_rejected")),
    "chi_po": lambda c, _: (chosen_log_ratio(c), rejected_log_ratio(c)),
    "fdpo_forward_kl": lambda c, _: (-chosen_log_ratio(c), -rejected_log_ratio(c)),
    "fdpo_alpha": lambda c, hp: (-hp["alpha"] * chosen_log_ratio(c), -hp["alpha"] * rejected_log_ratio(c)),
}


def clamped(objective: str, columns: Columns, hyperparameters: Hyperparameters) -> Bools | None:
    """Pairs (n,) with an exponent that the loss held (`EXPONENT_LIMIT`): their gradient is cut off. None where the loss
    has no such exponent, or where it is no function of the records (wpo's weight)."""
    if objective not in EXPONENTS:
        return None
    chosen, rejected = EXPONENTS[objective](in_reduction(objective, columns, hyperparameters), hyperparameters)
    return np.asarray((chosen > EXPONENT_LIMIT) | (rejected > EXPONENT_LIMIT))


def uses_token_means(objective: str, hyperparameters: Hyperparameters) -> bool:
    """Whether the objective optimises token means."""
    if objective == "ipo":
        return bool(hyperparameters.get("length_average", False))
    if objective == "cpo_smooth":
        return bool(hyperparameters.get("reduction", "mean") == "mean")
    return objective in MEAN_OBJECTIVES


def in_reduction(objective: str, columns: Columns, hyperparameters: Hyperparameters) -> Columns:
    """The records with log-probs in the objective's reduction: token means for mean objectives, else unchanged."""
    return {**columns, **per_token(columns)} if uses_token_means(objective, hyperparameters) else columns


def target(objective: str, columns: Columns, hyperparameters: Hyperparameters) -> Floats | None:
    """T (n,) in the objective's reduction; None for objectives without one."""
    if objective not in TARGETS:
        return None
    return TARGETS[objective](in_reduction(objective, columns, hyperparameters), hyperparameters)


def slack(objective: str, columns: Columns, hyperparameters: Hyperparameters) -> Floats | None:
    """delta - T (n,): > 0 where the objective considers the pair satisfied; never compared across objectives."""
    wanted = target(objective, columns, hyperparameters)
    return None if wanted is None else delta(in_reduction(objective, columns, hyperparameters)) - wanted


def _exact(objective: str, hyperparameters: Hyperparameters) -> bool:
    extra = hyperparameters.get("rpo_alpha") or (objective == "contrastive_cpo" and hyperparameters.get("lam", 1.0))
    return objective in LOGISTIC_MARGIN and not extra


def bridge_threshold(objective: str, columns: Columns, hyperparameters: Hyperparameters) -> Floats | None:
    """log1p(exp(beta T)) (n,), nats: a loss below it means delta > 0. None but for logistic margin losses.

    An added likelihood term (`rpo_alpha`, `lam` of contrastive_cpo) breaks the equivalence: None as well.
    """
    wanted = target(objective, columns, hyperparameters)
    if wanted is None or not _exact(objective, hyperparameters):
        return None
    return _softplus(hyperparameters["beta"] * wanted)


def bridge_pass(objective: str, columns: Columns, hyperparameters: Hyperparameters) -> Bools | None:
    """base_loss < bridge_threshold (n,): equals delta > 0 for logistic margin losses, a disagreement is a bug."""
    threshold = bridge_threshold(objective, columns, hyperparameters)
    return None if threshold is None else np.asarray(numbers(columns, "base_loss") < threshold)


def pull(objective: str, columns: Columns, hyperparameters: Hyperparameters) -> Floats:
    """How hard each pair still pulls at its margin (n,), 1/nat: the mean of the recorded slopes at either side.

    For losses of delta it is -d loss / d delta; per token for token-mean objectives. Any objective: `grad_w`, `grad_l`.
    """
    sides = [numbers(columns, name) for name in ("grad_w", "grad_l")]
    if uses_token_means(objective, hyperparameters):
        lengths = [numbers(columns, name) for name in ("chosen_len", "rejected_len")]
        sides = [side * length for side, length in zip(sides, lengths, strict=True)]
    return np.asarray((sides[0] + sides[1]) / 2)


PerPair = Callable[[str, Columns, Hyperparameters], Array | None]


def _satisfied(objective: str, columns: Columns, hyperparameters: Hyperparameters) -> Array | None:
    distance = slack(objective, columns, hyperparameters)
    return None if distance is None else distance > 0


def _row(
    name: str, per_pair: PerPair, unit: str, direction: str, bounds: tuple[float, float], summary: str,
    needs: tuple[str, ...] = LOGPS + LENGTHS,
) -> Metric:  # fmt: skip
    """The row of the mean of a per-pair quantity; it is unknown where the objective has none."""

    def average(view: View) -> float:
        values = per_pair(view.objective, view.columns, view.hyperparameters)
        return math.nan if values is None else mean(values.astype(np.float64))

    return Metric(
        name, average, unit, direction, *bounds, needs, "OCED", summary, ("objective",), beta_neutral=False
    )  # fmt: skip


ANY, SHARE = (-INF, INF), (0.0, 1.0)
# In the objective's own reduction: nats, or nats per token for token-mean objectives.
ROWS = (
    _row("target_mean", target, "own", "none", ANY,
         "mean margin T that the objective asks of a pair; unknown for objectives without one"),
    _row("slack_mean", slack, "own", "none", ANY,
         "mean of delta - T: > 0 where the objective considers a pair satisfied; never compared across objectives"),
    _row("satisfied", _satisfied, "share", "none", SHARE, "pairs with positive slack"),
    _row("bridge_threshold_mean", bridge_threshold, "own", "none", (0.0, INF),
         "mean of log(1 + exp(beta T)): a loss below it means delta > 0; logistic margin losses only"),
    _row("bridge_pass_rate", bridge_pass, "share", "up", SHARE,
         "loss below the bridge threshold; equals ranking_accuracy for logistic margin losses",
         (*LOGPS, *LENGTHS, "base_loss")),
    _row("pull", pull, "1/nat", "none", ANY,
         "mean slope of the loss in delta: how hard pairs still pull; read it relative to step 0",
         (*LENGTHS, "grad_w", "grad_l")),
    _row("clamp_rate", clamped, "share", "none", SHARE,
         "pairs with an exponent that the loss holds at 80: > 0 means cut-off gradients"),
)  # fmt: skip
