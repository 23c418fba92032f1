"""Losses in which the chosen and the rejected log-ratio enter apart, not only as their difference.

In the equations `chosen` and `rejected` are log-ratios, nats per sequence. Each loss is followed by its row.
"""

from __future__ import annotations

from harness.objectives import step_zero as step0
from harness.objectives.hyperparameters import QUADRATIC_BETA, SUM_BETA, beta_range
from harness.objectives.row import Objective, Preset
from harness.objectives.terms import (
    EXPONENT_LIMIT,
    Number,
    Sides,
    capped_exp,
    log_ratios,
    neg_log_sigmoid,
    per_pair,
    tensor,
)
from harness.types import LossOutput, PairLogps, Parameter


def dpop(policy: PairLogps, reference: PairLogps, beta: Number, lam: Number) -> LossOutput:
    """-log sigmoid(beta (chosen - rejected - lam max(0, -chosen))): dpo that pays for lowering the chosen response."""
    chosen, rejected = log_ratios(policy, reference)
    return per_pair(
        neg_log_sigmoid(beta * (chosen - rejected - lam * (-chosen).relu())), (beta * chosen, beta * rejected)
    )


DPOP = Objective(
    "dpop", dpop, "pair", "sum", True,
    {"beta": beta_range(0.3, 0.01, 0.5, "KL strength, 1 / nats per sequence; larger: nearer the reference",
                        "0.3: arXiv 2402.13228; range chosen here"),
     "lam": Parameter(50.0, low=0, search=(5, 500), prior="log", doc="price of lowering the chosen response",
                      source="50, of 5, 50 and 500: arXiv 2402.13228")},
    "Smaug, arXiv 2402.13228", "dpo that pays for lowering the chosen response below the reference",
    "the penalty swamps the preference at large lam x beta", step0=step0.log_two,
    presets={"paper": Preset({}, "arXiv 2402.13228")},
)  # fmt: skip


def nca(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """L(w) + L(-w)/2 + L(-l)/2 with L = -log sigmoid, w = beta chosen, l = beta rejected."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    return per_pair(
        neg_log_sigmoid(chosen) + 0.5 * neg_log_sigmoid(-chosen) + 0.5 * neg_log_sigmoid(-rejected), (chosen, rejected)
    )


NCA = Objective(
    "nca", nca, "pair", "sum", True,
    {"beta": beta_range(0.01, 0.01, 0.1, "reward scale, 1 / nats",
                        "0.01: README of thu-ml/Noise-Contrastive-Alignment; 0.1: TRL")},
    "arXiv 2402.05369", "noise-contrastive fit of each response's own reward",
    "the chosen log-ratio is pulled to log 2 / beta and no further",
    step0=step0.constant(2 * step0.LOG2),
    presets={
        "released": Preset({}, "preference_qlora.yaml of thu-ml/Noise-Contrastive-Alignment"),
        "trl": Preset({"beta": 0.1}, "TRL's DPOConfig"),
    },
)  # fmt: skip


def sppo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """(chosen - 1/(2 beta))^2 + (rejected + 1/(2 beta))^2."""
    chosen, rejected = log_ratios(policy, reference)
    loss = (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2
    return per_pair(loss, (beta * chosen, beta * rejected))


SPPO = Objective(
    "sppo", sppo, "pair", "sum", True, {"beta": QUADRATIC_BETA},
    "arXiv 2405.00675 (eta = 1/beta)", "pulls the two log-ratios to +-1/(2 beta)",
    "in the paper the reference is the previous iterate; 1/(2 beta) must be reachable; at the published beta 0.001 it"
    " and cal_dpo are one method: where each side has moved 1 nat their gradients are 998.00 and 998.12",
    step0=step0.sppo, presets={"released": Preset({}, "scripts/pipeline.sh of uclaml/SPPO")},
)  # fmt: skip


def apo_zero(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """1 - sigmoid(beta chosen) + sigmoid(beta rejected)."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    return per_pair((-chosen).sigmoid() + rejected.sigmoid(), (chosen, rejected))


APO_ZERO = Objective(
    "apo_zero", apo_zero, "pair", "sum", True, {"beta": SUM_BETA}, "arXiv 2408.06266 Eq 7",
    "raises the chosen and lowers the rejected response", "saturates on both sides; flips pull as hard as labels",
    step0=step0.constant(1.0), presets={"trl": Preset({}, "TRL's DPOConfig: beta 0.1")},
)  # fmt: skip


def apo_down(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """sigmoid(beta chosen) + 1 - sigmoid(beta (chosen - rejected))."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    return per_pair(chosen.sigmoid() + (rejected - chosen).sigmoid(), (chosen, rejected))


APO_DOWN = Objective(
    "apo_down", apo_down, "pair", "sum", True, {"beta": SUM_BETA}, "arXiv 2408.06266 Eq 8",
    "lowers both responses, the rejected one more", "lowers good responses by design",
    step0=step0.constant(1.0), presets={"trl": Preset({}, "TRL's DPOConfig: beta 0.1")},
)  # fmt: skip


def cal_dpo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """-log sigmoid(chosen - rejected) + (chosen - 1/(2 beta))^2 + (rejected + 1/(2 beta))^2."""
    chosen, rejected = log_ratios(policy, reference)
    loss = neg_log_sigmoid(chosen - rejected) + (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2
    return per_pair(loss, (beta * chosen, beta * rejected))


CAL_DPO = Objective(
    "cal_dpo", cal_dpo, "pair", "sum", True, {"beta": QUADRATIC_BETA}, "arXiv 2412.14516",
    "dpo at beta 1 with both log-ratios calibrated to +-1/(2 beta)",
    "the quadratic part dominates at small beta: at the released 0.001 it is sppo (see there)",
    step0=step0.cal_dpo,
    presets={
        "released": Preset({}, "Mistral-7b-exp/scripts/finetune_cal-dpo_0001.sh of Cal-DPO/Cal-DPO: beta2 0.001"),
        "pythia": Preset({"beta": 0.1}, "Pythia-2.8b-exp/config/loss/cal_dpo.yaml of Cal-DPO/Cal-DPO"),
    },
)  # fmt: skip


def chi_po(policy: PairLogps, reference: PairLogps, beta: Number, r_max: Number) -> LossOutput:
    """-log sigmoid(beta [phi(chosen) - phi(rejected)] clipped to +-2 r_max), phi(r) = exp(r) + r."""
    chosen, rejected = (beta * (capped_exp(side) + side) for side in log_ratios(policy, reference))
    z = chosen - rejected
    bound = tensor(2 * r_max, z)
    return per_pair(neg_log_sigmoid(z.clamp(min=-bound, max=bound)), (chosen, rejected))


CHI_PO = Objective(
    "chi_po", chi_po, "pair", "sum", True,
    {"beta": SUM_BETA, "r_max": Parameter(10.0, low=0, low_open=True, search=(1, 100), prior="log",
                                          doc="bound of the rewards; the margin is clipped at twice it",
                                          source="R_max of arXiv 2407.13399 bounds the true reward; no value is given."
                                          " 10 chosen here: at 1 and beta 0.5 the gradient ends after 2.1 nats")},
    "arXiv 2407.13399", "dpo under chi2 regularisation: large probability ratios cost much more",
    "no gradient once the margin is clipped; exponents are capped at 80",
    step0=step0.log_two,
)  # fmt: skip


def dpo_shift(policy: PairLogps, reference: PairLogps, beta: Number, f: Number) -> LossOutput:
    """-log sigmoid(beta (chosen - f rejected)): the rejected response counts for less."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    return per_pair(neg_log_sigmoid(chosen - f * rejected), (chosen, rejected))


DPO_SHIFT = Objective(
    "dpo_shift", dpo_shift, "pair", "sum", True,
    {"beta": SUM_BETA, "f": Parameter(0.85, low=0, high=1, low_open=True, search=(0.5, 1),
                                      doc="weight of the rejected response",
                                      source="fixed at 0.5 to 1, or to 1 from 0.75, 0.85, 0.95: run.sh of the authors;"
                                      " the middle one is the default")},
    "arXiv 2502.07599", "dpo with the rejected response weighted down, against falling chosen log-probs",
    "trades reward margin for likelihood", step0=step0.log_two,
    presets={
        f"fixed_{f}": Preset({"beta": 0.01, "f": f / 100}, "run.sh and recipes/ of Meaquadddd/DPO-Shift")
        for f in (75, 85, 95)
    },
)  # fmt: skip


_FDPO = {"paper": Preset({}, "arXiv 2309.16240")}


def _link(scores: Sides, beta: Number) -> LossOutput:
    """-log sigmoid(beta [f'(u_w) - f'(u_l)]) of an f-divergence, u = exp(log-ratio); constants of f' cancel."""
    chosen, rejected = scores
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def fdpo_forward_kl(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """f'(u) = -1/u."""
    chosen, rejected = log_ratios(policy, reference)
    return _link((-capped_exp(-chosen), -capped_exp(-rejected)), beta)


FDPO_FORWARD_KL = Objective(
    "fdpo_forward_kl", fdpo_forward_kl, "pair", "sum", True, {"beta": SUM_BETA},
    "arXiv 2309.16240", "dpo under the forward KL", "exponential in the log-ratio; exponents are capped at 80",
    step0=step0.log_two, presets=_FDPO,
)  # fmt: skip


def fdpo_js(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """f'(u) = log(u / (1 + u)) = log sigmoid(log-ratio)."""
    chosen, rejected = log_ratios(policy, reference)
    return _link((-neg_log_sigmoid(chosen), -neg_log_sigmoid(rejected)), beta)


FDPO_JS = Objective(
    "fdpo_js", fdpo_js, "pair", "sum", True, {"beta": SUM_BETA},
    "arXiv 2309.16240", "dpo under the Jensen-Shannon divergence",
    "the reward of a response is bounded above: large margins need a falling rejected response",
    step0=step0.log_two, presets=_FDPO,
)  # fmt: skip


def fdpo_alpha(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """f'(u) = (1 - u^-alpha) / alpha."""
    chosen, rejected = log_ratios(policy, reference)
    chosen, rejected = (-(-alpha * side).clamp(max=EXPONENT_LIMIT).expm1() / alpha for side in (chosen, rejected))
    return _link((chosen, rejected), beta)


FDPO_ALPHA = Objective(
    "fdpo_alpha", fdpo_alpha, "pair", "sum", True,
    {"beta": SUM_BETA, "alpha": Parameter(0.5, low=0, high=1, low_open=True, search=(0.1, 1),
                                          doc="the paper's alpha: towards 0 reverse KL, 1 forward KL",
                                          source="0.3, 0.5 and 0.7: arXiv 2309.16240; range chosen here")},
    "arXiv 2309.16240", "dpo under an alpha-divergence",
    "TRL's coefficient is 1 - alpha; exponents are capped at 80", step0=step0.log_two, presets=_FDPO,
)  # fmt: skip


ROWS = (
    DPOP, NCA, SPPO, APO_ZERO, APO_DOWN, CAL_DPO, CHI_PO, DPO_SHIFT, FDPO_FORWARD_KL, FDPO_JS, FDPO_ALPHA,
)  # fmt: skip
