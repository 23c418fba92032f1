"""Losses of Constrained Preference Optimization: they ask for more margin where the reference ranks a pair wrong.

delta is the policy's log-prob of chosen minus rejected, delta_ref the reference's, z = beta (delta - delta_ref); all in
the row's reduction. Each loss is followed by its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.objectives import step_zero as step0
from harness.objectives.hyperparameters import CONSTRAINED_BETA, OURS, RPO_ALPHA, SUM_BETA
from harness.objectives.row import Objective, Preset, StateField
from harness.objectives.terms import (
    EXPONENT_LIMIT,
    ONE,
    Number,
    Sides,
    chosen_nll,
    log_ratios,
    mean_log_ratios,
    means,
    neg_log_sigmoid,
    per_pair,
)
from harness.types import LossOutput, PairLogps, Parameter

if TYPE_CHECKING:
    from torch import Tensor

PSI_GAMMA = Parameter(
    0.05, low=0, search=(0.005, 0.05), prior="log", doc="multiplier of the inverse probabilities",
    source="0.05: configs/cpo-demo.yaml of visitworld123/CPO; range chosen here",
)  # fmt: skip
_CONFIG = "cpo/config.py of visitworld123/CPO"


def _reference_means(policy: PairLogps, reference: PairLogps) -> Sides:
    """Reference log-probs per token; the lengths are the policy's, as everywhere."""
    return reference.chosen / policy.chosen_len.clamp(min=1), reference.rejected / policy.rejected_len.clamp(min=1)


def hypo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """-log sigmoid(beta (delta - max(delta_ref, 0)))."""
    chosen, rejected = log_ratios(policy, reference)
    target = (reference.chosen - reference.rejected).relu()
    return per_pair(
        neg_log_sigmoid(beta * (policy.chosen - policy.rejected - target)), (beta * chosen, beta * rejected)
    )


HYPO = Objective(
    "hypo", hypo, "pair", "sum", True, {"beta": SUM_BETA},
    "HyPO, arXiv 2602.11902", "dpo where the reference is right, no reference where it is wrong",
    "under heavy flips the target no longer guarantees the right order", step0=step0.hypo,
    presets={"paper": Preset({}, "arXiv 2602.11902")},
)  # fmt: skip


def cpo_clip(policy: PairLogps, reference: PairLogps, beta: Number, rpo_alpha: Number) -> LossOutput:
    """hypo on token means, plus rpo_alpha times the chosen response's likelihood term."""
    chosen, rejected = mean_log_ratios(policy, reference)
    policy_chosen, policy_rejected = means(policy)
    reference_chosen, reference_rejected = _reference_means(policy, reference)
    target = (reference_chosen - reference_rejected).relu()
    loss = neg_log_sigmoid(beta * (policy_chosen - policy_rejected - target)) + rpo_alpha * chosen_nll(policy)
    return per_pair(loss, (beta * chosen, beta * rejected))


CPO_CLIP = Objective(
    "cpo_clip", cpo_clip, "pair", "mean", True, {"beta": CONSTRAINED_BETA, "rpo_alpha": RPO_ALPHA},
    "arXiv 2605.20834 (the code's `clip`)", "hypo on token means", "as hypo",
    step0=step0.cpo_clip, presets={"released": Preset({"beta": 0.1}, f"{_CONFIG}: `clip` is its default")},
)  # fmt: skip


def cpo_smooth(
    policy: PairLogps,
    reference: PairLogps,
    beta: Number,
    gamma: Number,
    tau: Number,
    alpha: Number,
    reduction: str,
    rpo_alpha: Number,
) -> LossOutput:
    """-log sigmoid(z - beta m / alpha), m = softplus(tau (gamma - delta_ref)) / tau; means or sums."""
    if reduction == "mean":
        chosen, rejected = mean_log_ratios(policy, reference)
        reference_chosen, reference_rejected = _reference_means(policy, reference)
    else:
        chosen, rejected = log_ratios(policy, reference)
        reference_chosen, reference_rejected = reference.chosen, reference.rejected
    lift = neg_log_sigmoid(tau * (reference_chosen - reference_rejected - gamma)) / tau
    loss = neg_log_sigmoid(beta * (chosen - rejected) - beta / alpha * lift) + rpo_alpha * chosen_nll(policy)
    return per_pair(loss, (beta * chosen, beta * rejected))


CPO_SMOOTH = Objective(
    "cpo_smooth", cpo_smooth, "pair", "mean", True,
    {
        "beta": CONSTRAINED_BETA,
        "gamma": Parameter(0.5, low=0, search=(0, 0.5), doc="reference margin below which the target is lifted",
                           source=f"0.5: {_CONFIG}; 0.05 in configs/cpo-demo.yaml, for another branch"),
        "tau": Parameter(2.0, low=0, low_open=True, search=(1, 10), prior="log", doc="sharpness of the lift",
                         source=f"2: {_CONFIG}; range chosen here"),
        "alpha": Parameter(0.25, low=0, low_open=True, search=(0.25, 1), doc="the lift is divided by it",
                           source=f"0.25: name of the released checkpoint; 1: {_CONFIG}"),
        "reduction": Parameter("mean", kind="choice", choices=("mean", "sum"),
                               doc="token means (released) or sums; a sum takes beta from the sum family",
                               source="token means: cpo/trainer.py of visitworld123/CPO; nobody published sums"),
        "rpo_alpha": RPO_ALPHA,
    },
    "arXiv 2605.20834", "dpo with a target lifted to at least gamma where the reference ranks the pair wrongly",
    "alpha < 1 asks the largest margins of the most pessimistic pairs; alpha > 1 loses the guarantee",
    step0=step0.cpo_smooth,
    presets={
        "paper": Preset({}, f"beta, alpha: checkpoint llama-3-instruct-8b-cpo-full; gamma, tau: {_CONFIG}"),
        "released": Preset({"beta": 0.1, "alpha": 1.0}, f"{_CONFIG}, with another `easy_version` than its `clip`"),
    },
)  # fmt: skip


def ecpo_released(
    policy: PairLogps, reference: PairLogps, beta: Number, gamma: Number, rpo_alpha: Number
) -> LossOutput:
    """-log sigmoid(z - psi) on token means, psi = gamma (1/b_w + 1/b_l) < 0 with b the reference's mean LOG-probs.

    As in the authors' code.
    """
    chosen, rejected = mean_log_ratios(policy, reference)
    reference_chosen, reference_rejected = (side.clamp(max=ONE) for side in _reference_means(policy, reference))
    psi = gamma * (1 / reference_chosen + 1 / reference_rejected)
    loss = neg_log_sigmoid(beta * (chosen - rejected) - psi) + rpo_alpha * chosen_nll(policy)
    return per_pair(loss, (beta * chosen, beta * rejected))


ECPO_RELEASED = Objective(
    "ecpo_released", ecpo_released, "pair", "mean", True,
    {"beta": CONSTRAINED_BETA, "gamma": PSI_GAMMA, "rpo_alpha": RPO_ALPHA},
    "github.com/visitworld123/CPO (`easy`)", "ln_dpo with the margin of the authors' released code",
    "its margin is negative, the opposite of the paper's: it lowers the target (see cpo_eq17)",
    step0=step0.ecpo_released, presets={"released": Preset({}, "configs/cpo-demo.yaml of visitworld123/CPO")},
)  # fmt: skip


def cpo_eq17(policy: PairLogps, reference: PairLogps, beta: Number, gamma: Number, rpo_alpha: Number) -> LossOutput:
    """-log sigmoid(z - omega) on token means, omega = gamma (exp(-b_w) + exp(-b_l)) > 0, b as above."""
    chosen, rejected = mean_log_ratios(policy, reference)
    inverse = [(-side).clamp(max=EXPONENT_LIMIT).exp() for side in _reference_means(policy, reference)]
    loss = neg_log_sigmoid(beta * (chosen - rejected) - gamma * (inverse[0] + inverse[1])) + rpo_alpha * chosen_nll(
        policy
    )
    return per_pair(loss, (beta * chosen, beta * rejected))


CPO_EQ17 = Objective(
    "cpo_eq17", cpo_eq17, "pair", "mean", True,
    {"beta": CONSTRAINED_BETA, "gamma": PSI_GAMMA, "rpo_alpha": RPO_ALPHA},
    "arXiv 2605.20834", "ln_dpo with the paper's margin of inverse mean token probabilities",
    "the margin explodes for improbable responses (exponents are capped at 80); not the released code",
    step0=step0.cpo_eq17,
)  # fmt: skip


def cpo_dual(
    policy: PairLogps,
    reference: PairLogps,
    beta: Number,
    margin: Number,
    eta: Number | None,
    state: dict[str, Tensor],
) -> LossOutput:
    """-log sigmoid(z - multiplier), the pair's multiplier rising by eta (margin - delta) per visit and never below 0.

    `state["multiplier"]` is `(..., B)`. `eta` None means beta / 2: one visit then moves the target halfway to the
    margin, since d delta / d multiplier = 1 / beta at the inner optimum (eta >= 2 beta does not settle).
    """
    chosen, rejected = log_ratios(policy, reference)
    multiplier = state["multiplier"]
    step = beta / 2 if eta is None else eta
    short = margin - (policy.chosen - policy.rejected).detach()
    loss = neg_log_sigmoid(beta * (chosen - rejected) - multiplier)
    moved = {"multiplier": (multiplier + step * short).clamp(min=0)}
    return per_pair(loss, (beta * chosen, beta * rejected), moved)


def _too_large_a_step(hyperparameters: Mapping[str, Any]) -> str | None:
    eta, limit = hyperparameters["eta"], 2 * hyperparameters["beta"]
    if eta is None or eta < limit:
        return None
    return f"eta: {eta!r} must lie below 2 beta = {limit:g}, or the multipliers oscillate"


CPO_DUAL = Objective(
    "cpo_dual", cpo_dual, "pair", "sum", True,
    {
        "beta": SUM_BETA,
        "margin": Parameter(0.0, low=0, search=(0, 1), doc="margin m that delta must reach, nats", source=OURS),
        "eta": Parameter(None, low=0, low_open=True, doc="dual step, below 2 beta; absent or null: beta / 2",
                         source=OURS),
    },
    "derived from the constrained problem of arXiv 2605.20834",
    "dpo under the constraint delta >= margin, one multiplier per pair by dual ascent",
    "a flipped label is a constraint too; pairs need several visits for their multipliers to settle",
    state={"multiplier": StateField("pair", 0.0)}, step0=step0.log_two, check=_too_large_a_step,
)  # fmt: skip


ROWS = (HYPO, CPO_CLIP, CPO_SMOOTH, ECPO_RELEASED, CPO_EQ17, CPO_DUAL)
