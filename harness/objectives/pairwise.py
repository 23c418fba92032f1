"""Losses of z alone, pair by pair: z = beta x log-ratio margin, the chosen minus the rejected log-ratio.

In nats per sequence, or per token where the reduction is mean. Each loss is followed by its row.
"""

from __future__ import annotations

from harness.objectives import step_zero as step0
from harness.objectives.hyperparameters import EPS, OURS, RPO_ALPHA, SUM_BETA, beta_range
from harness.objectives.row import Objective, Preset
from harness.objectives.terms import Number, chosen_nll, log_ratios, mean_log_ratios, neg_log_sigmoid, per_pair, tensor
from harness.types import LossOutput, PairLogps, Parameter


def dpo(policy: PairLogps, reference: PairLogps, beta: Number, rpo_alpha: Number) -> LossOutput:
    """-log sigmoid(z), plus rpo_alpha times the chosen response's likelihood term."""
    chosen, rejected = log_ratios(policy, reference)
    loss = neg_log_sigmoid(beta * (chosen - rejected)) + rpo_alpha * chosen_nll(policy)
    return per_pair(loss, (beta * chosen, beta * rejected))


DPO = Objective(
    "dpo", dpo, "pair", "sum", True, {"beta": SUM_BETA, "rpo_alpha": RPO_ALPHA},
    "arXiv 2305.18290; rpo_alpha: arXiv 2404.19733", "log-likelihood of the labels under Bradley-Terry on z",
    "hard labels drive the margin to infinity; a wrong reference keeps pairs misranked while the loss falls",
    step0=step0.dpo,
    presets={
        "paper": Preset({}, "arXiv 2305.18290: beta 0.1"), "tldr": Preset({"beta": 0.5}, "arXiv 2305.18290: TL;DR"),
        "trl": Preset({}, "TRL's DPOConfig: beta 0.1"),
    },
)  # fmt: skip


def cdpo(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """-(1 - eps) log sigmoid(z) - eps log sigmoid(-z): cross-entropy with the label 1 - eps."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    return per_pair((1 - eps) * neg_log_sigmoid(z) + eps * neg_log_sigmoid(-z), (beta * chosen, beta * rejected))


CDPO = Objective(
    "cdpo", cdpo, "pair", "sum", True, {"beta": SUM_BETA, "eps": EPS},
    "E. Mitchell, ericmitchell.ai/cdpo.pdf", "dpo with the label softened to 1 - eps: a finite target margin",
    "biased even where eps is the true flip rate: margins shrink",
    step0=step0.log_two, reasons={"eps": "at 0.5 labels say nothing, above it they are read upside down"},
    presets={"paper": Preset({}, "ericmitchell.ai/cdpo.pdf: eps is the data's flip rate")}, assumed_rate="eps",
)  # fmt: skip


def robust_dpo(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """[-(1 - eps) log sigmoid(z) + eps log sigmoid(-z)] / (1 - 2 eps): unbiased for dpo on clean labels."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    loss = ((1 - eps) * neg_log_sigmoid(z) - eps * neg_log_sigmoid(-z)) / (1 - 2 * eps)
    return per_pair(loss, (beta * chosen, beta * rejected))


ROBUST_DPO = Objective(
    "robust_dpo", robust_dpo, "pair", "sum", True, {"beta": SUM_BETA, "eps": EPS},
    "arXiv 2403.00409", "an unbiased estimate of dpo on clean labels when eps is the true flip rate",
    "unbounded below on hard labels; eps other than the data's flip rate over- or under-corrects; variance grows as"
    " 1/(1 - 2 eps)",
    step0=step0.log_two, bounded_below=False,
    reasons={"eps": "at 0.5 the loss divides by 1 - 2 eps = 0, above it the labels are read upside down"},
    presets={"paper": Preset({}, "arXiv 2403.00409: eps is the data's flip rate")}, assumed_rate="eps",
)  # fmt: skip


def ipo(policy: PairLogps, reference: PairLogps, beta: Number, length_average: bool) -> LossOutput:
    """(log-ratio margin - 1/(2 beta))^2, the margin in nats per sequence or, with `length_average`, per token."""
    chosen, rejected = (mean_log_ratios if length_average else log_ratios)(policy, reference)
    return per_pair((chosen - rejected - 0.5 / beta) ** 2, (beta * chosen, beta * rejected))


IPO = Objective(
    "ipo", ipo, "pair", "sum", True,
    {
        "beta": beta_range(0.1, 0.01, 0.5, "tau of the paper; the target is 1/(2 beta) nats (per token if averaged)",
                           "0.1: TRL; range for sums, chosen here: token means want 0.1 to 5"),
        "length_average": Parameter(False, kind="bool", doc="per token (TRL's ipo) instead of per sequence",
                                    source="false: arXiv 2310.12036 as printed; true: TRL, after asking the authors"),
    },
    "arXiv 2310.12036", "squared distance of the log-ratio margin to 1/(2 beta)",
    "sums and token means need different beta; long responses dominate the sum form",
    step0=step0.ipo,
    presets={
        "paper": Preset({}, "arXiv 2310.12036 Eq 17, as printed: sums"),
        "trl": Preset({"length_average": True}, "TRL's DPOConfig; token means, which the authors confirmed: trl#1265"),
    },
)  # fmt: skip


def hinge(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """max(0, 1 - z)."""
    chosen, rejected = log_ratios(policy, reference)
    return per_pair((1 - beta * (chosen - rejected)).relu(), (beta * chosen, beta * rejected))


HINGE = Objective(
    "hinge", hinge, "pair", "sum", True, {"beta": SUM_BETA},
    "RSO, arXiv 2309.06657", "max(0, 1 - z): nothing more to gain beyond a margin of 1/beta",
    "no gradient past the margin, full gradient on every flipped label",
    step0=step0.constant(1.0), presets={"trl": Preset({}, "TRL's DPOConfig: beta 0.1")},
)  # fmt: skip


def exo(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """KL of (sigmoid(z), sigmoid(-z)) to (1 - eps, eps)."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    right = z.sigmoid() * (-neg_log_sigmoid(z) - tensor(1 - eps, z).log())
    wrong = (-z).sigmoid() * (-neg_log_sigmoid(-z) - tensor(eps, z).log())
    return per_pair(right + wrong, (beta * chosen, beta * rejected))


EXO = Objective(
    "exo", exo, "pair", "sum", True,
    {
        "beta": SUM_BETA,
        "eps": Parameter(1e-3, low=0, high=0.5, low_open=True, high_open=True, search=(1e-3, 1e-3),
                         doc="smoothing of the label, above 0", source="arXiv 2402.00856"),
    },
    "arXiv 2402.00856 Eq 16", "reverse KL of the policy's preference to the label's",
    "gradient vanishes on pairs that are ranked very wrongly",
    step0=step0.exo, presets={"paper": Preset({}, "arXiv 2402.00856 Eq 16")},
    reasons={"eps": "at 0 the loss is infinite for every pair"},
)  # fmt: skip


def discopop(policy: PairLogps, reference: PairLogps, beta: Number, tau: Number) -> LossOutput:
    """-(1 - m) log sigmoid(z) + m exp(-z) with m = sigmoid(z / tau)."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    # m exp(-z) in one exponent: apart, its factors are 0 and infinity at very negative z.
    loss = (-z / tau).sigmoid() * neg_log_sigmoid(z) + (-neg_log_sigmoid(z / tau) - z).exp()
    return per_pair(loss, (beta * chosen, beta * rejected))


DISCOPOP = Objective(
    "discopop", discopop, "pair", "sum", True,
    {"beta": SUM_BETA, "tau": Parameter(0.05, low=0, high=1, low_open=True, search=(0.05, 0.05),
                                        doc="width of the blend between logistic and exponential loss",
                                        source="arXiv 2406.08414, TRL's discopop_tau")},
    "arXiv 2406.08414 Eq 5", "a discovered blend of logistic and exponential loss",
    "not convex near z = 0", step0=step0.constant(0.5 * step0.LOG2 + 0.5),
    presets={"paper": Preset({}, "arXiv 2406.08414 Eq 5")},
)  # fmt: skip


def rdpo_length(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """-log sigmoid(z + alpha (chosen_len - rejected_len)): less margin is asked where the chosen response is longer."""
    chosen, rejected = log_ratios(policy, reference)
    excess = policy.chosen_len - policy.rejected_len
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected) + alpha * excess), (beta * chosen, beta * rejected))


RDPO_LENGTH = Objective(
    "rdpo_length", rdpo_length, "pair", "sum", True,
    {"beta": SUM_BETA, "alpha": Parameter(0.01, low=0, search=(0.005, 1), prior="log", doc="margin per token",
                                          source="0.005, 0.01 (HH), 0.2, 0.5 (TL;DR): arXiv 2403.19159")},
    "R-DPO, arXiv 2403.19159", "dpo that asks less margin where the chosen response is the longer one",
    "asks the impossible of pairs whose chosen response is much shorter when alpha is large",
    step0=step0.rdpo_length,
    presets={"paper": Preset({}, "arXiv 2403.19159: HH"), "tldr": Preset({"alpha": 0.5}, "arXiv 2403.19159: TL;DR")},
)  # fmt: skip


def ln_dpo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """dpo on token means."""
    chosen, rejected = mean_log_ratios(policy, reference)
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


LN_DPO = Objective(
    "ln_dpo", ln_dpo, "pair", "mean", True,
    {"beta": beta_range(5.0, 2, 10, "KL strength, 1 / nats per token", "5: arXiv 2411.15124; range chosen here")},
    "Tulu 3, arXiv 2411.15124", "dpo on token means", "as dpo; a grid of beta made for sums is far too small",
    step0=step0.log_two, presets={"paper": Preset({}, "arXiv 2411.15124")},
)  # fmt: skip


def sympo(policy: PairLogps, reference: PairLogps, beta: Number, form: str) -> LossOutput:
    """A loss with loss(z) + loss(-z) constant: `sigmoid` sigmoid(-z), `ramp` (1 - z)/2 in [0, 1], `unhinged` 1 - z."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    if form == "sigmoid":
        loss = (-z).sigmoid()
    elif form == "ramp":
        loss = ((1 - z) / 2).clamp(min=0, max=1)
    else:
        loss = 1 - z
    return per_pair(loss, (beta * chosen, beta * rejected))


SYMPO = Objective(
    "sympo", sympo, "pair", "sum", True,
    {"beta": SUM_BETA, "form": Parameter("sigmoid", kind="choice", choices=("sigmoid", "ramp", "unhinged"),
                                         doc="the symmetric loss; unhinged is unbounded below",
                                         source="arXiv 2505.24709")},
    "arXiv 2505.24709", "a loss with loss(z) + loss(-z) constant, whose minimiser ignores uniform flips",
    "almost no gradient on pairs that are ranked very wrongly (sigmoid, ramp)",
    step0=step0.sympo, presets={"paper": Preset({}, "arXiv 2505.24709")},
)  # fmt: skip


def ropo(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """4 alpha / (1 + alpha)^2 [-log sigmoid(z) + alpha sigmoid(-z)]: its slope fades for z << 0."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    loss = 4 * alpha / (1 + alpha) ** 2 * (neg_log_sigmoid(z) + alpha * (-z).sigmoid())
    return per_pair(loss, (beta * chosen, beta * rejected))


ROPO = Objective(
    "ropo", ropo, "pair", "sum", True,
    {"beta": SUM_BETA, "alpha": Parameter(14.0, low=1, low_open=True, search=(2, 30), prior="log",
                                          doc="weight of the symmetric term",
                                          source="14: arXiv 2404.04102; range chosen here")},
    "arXiv 2404.04102", "dpo that trusts a pair less the more the policy contradicts its label",
    "needs a policy that already ranks well; the paper's iterative filtering is not included",
    step0=step0.ropo,
)  # fmt: skip


def dpo_pro(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number, rho: Number) -> LossOutput:
    """Worst case of q~ L(z) + (1 - q~) L(-z) over (q~ - q)^2 <= rho q (1 - q), q~ in [0, 1]; q = 1 - eps,
    L = -log sigmoid.

    L(-z) - L(z) = z, so the worst q~ lies at the end of the interval against the sign of z.
    """
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    radius = tensor(rho * eps * (1 - eps), z).sqrt()
    zero = z.new_zeros(z.shape)
    room = (eps + zero).where(z < 0, 1 - eps + zero)
    loss = (1 - eps) * neg_log_sigmoid(z) + eps * neg_log_sigmoid(-z) + radius.minimum(room) * z.abs()
    return per_pair(loss, (beta * chosen, beta * rejected))


DPO_PRO = Objective(
    "dpo_pro", dpo_pro, "pair", "sum", True,
    {"beta": SUM_BETA, "eps": EPS,
     "rho": Parameter(0.1, low=0, search=(0, 1), doc="radius of the chi2 ball", source=OURS)},
    "arXiv 2509.02709", "dpo under the worst label probability near 1 - eps",
    "with hard labels (eps 0) it is dpo; a kink at z = 0 holds pairs there when rho is large",
    tier="C", step0=step0.log_two,
)  # fmt: skip


ROWS = (
    DPO, CDPO, ROBUST_DPO, IPO, HINGE, EXO, DISCOPOP, RDPO_LENGTH, LN_DPO, SYMPO, ROPO, DPO_PRO,
)  # fmt: skip
