"""Rows with a loss for every pair that is a function of the reference-corrected log-probs."""

from __future__ import annotations

from harness.objectives import step_zero as step0
from harness.objectives.hyperparameters import EPS, RPO_ALPHA, SUM_BETA, beta
from harness.objectives.row import Objective
from harness.types import Parameter

PAIR = "harness.objectives.pairwise:"
SIDE = "harness.objectives.sidewise:"
TARGET = "harness.metrics.targets:target"
QUADRATIC_BETA = beta(0.001, 0.0005, 0.005, "1/(2 beta) nats is the log-ratio each side is pulled to")

PAIR_ROWS = (
    Objective(
        "dpo", PAIR + "dpo", "pair", "sum", True, {"beta": SUM_BETA, "rpo_alpha": RPO_ALPHA},
        "arXiv 2305.18290; rpo_alpha: arXiv 2404.19733", "log-likelihood of the labels under Bradley-Terry on z",
        "hard labels drive the margin to infinity; a wrong reference keeps pairs misranked while the loss falls",
        target=TARGET, step0=step0.dpo,
    ),
    Objective(
        "cdpo", PAIR + "cdpo", "pair", "sum", True, {"beta": SUM_BETA, "eps": EPS},
        "E. Mitchell, ericmitchell.ai/cdpo.pdf", "dpo with the label softened to 1 - eps: a finite target margin",
        "biased even where eps is the true flip rate: margins shrink",
        target=TARGET, step0=step0.log_two,
    ),
    Objective(
        "robust_dpo", PAIR + "robust_dpo", "pair", "sum", True, {"beta": SUM_BETA, "eps": EPS},
        "arXiv 2403.00409", "an unbiased estimate of dpo on clean labels when eps is the true flip rate",
        "unbounded below on hard labels; eps too high over-corrects; variance grows as 1/(1 - 2 eps)",
        target=TARGET, step0=step0.log_two, bounded_below=False,
    ),
    Objective(
        "ipo", PAIR + "ipo", "pair", "sum", True,
        {
            "beta": beta(0.1, 0.01, 0.5, "tau of the paper; the target is 1/(2 beta) nats (per token if averaged)"),
            "length_average": Parameter(False, kind="bool", doc="per token (TRL's ipo) instead of per sequence"),
        },
        "arXiv 2310.12036", "squared distance of the log-ratio margin to 1/(2 beta)",
        "sums and token means need different beta; long responses dominate the sum form",
        target=TARGET, step0=step0.ipo,
    ),
    Objective(
        "hinge", PAIR + "hinge", "pair", "sum", True, {"beta": SUM_BETA},
        "RSO, arXiv 2309.06657", "max(0, 1 - z): nothing more to gain beyond a margin of 1/beta",
        "no gradient past the margin, full gradient on every flipped label",
        target=TARGET, step0=step0.constant(1.0),
    ),
    Objective(
        "exo", PAIR + "exo", "pair", "sum", True,
        {
            "beta": SUM_BETA,
            "eps": Parameter(1e-3, low=0, high=0.5, low_open=True, high_open=True, search=(1e-3, 1e-3),
                             doc="smoothing of the label, above 0"),
        },
        "arXiv 2402.00856 Eq 16", "reverse KL of the policy's preference to the label's",
        "gradient vanishes on pairs that are ranked very wrongly",
        step0=step0.exo,
    ),
    Objective(
        "discopop", PAIR + "discopop", "pair", "sum", True,
        {"beta": SUM_BETA, "tau": Parameter(0.05, low=0, high=1, low_open=True, search=(0.05, 0.05),
                                            doc="width of the blend between logistic and exponential loss")},
        "arXiv 2406.08414 Eq 5", "a discovered blend of logistic and exponential loss",
        "not convex near z = 0", step0=step0.constant(0.5 * step0.LOG2 + 0.5),
    ),
    Objective(
        "rdpo_length", PAIR + "rdpo_length", "pair", "sum", True,
        {"beta": SUM_BETA, "alpha": Parameter(0.01, low=0, search=(0.005, 1), prior="log", doc="margin per token")},
        "R-DPO, arXiv 2403.19159", "dpo that asks less margin where the chosen response is the longer one",
        "asks the impossible of pairs whose chosen response is much shorter when alpha is large",
        target=TARGET, step0=step0.rdpo_length,
    ),
    Objective(
        "ln_dpo", PAIR + "ln_dpo", "pair", "mean", True, {"beta": beta(5.0, 2, 10, "KL strength, 1 / nats per token")},
        "Tulu 3, arXiv 2411.15124", "dpo on token means", "as dpo; a grid of beta made for sums is far too small",
        target=TARGET, step0=step0.log_two,
    ),
    Objective(
        "sympo", PAIR + "sympo", "pair", "sum", True,
        {"beta": SUM_BETA, "form": Parameter("sigmoid", kind="choice", choices=("sigmoid", "ramp", "unhinged"),
                                             doc="the symmetric loss; unhinged is unbounded below")},
        "arXiv 2505.24709", "a loss with loss(z) + loss(-z) constant, whose minimiser ignores uniform flips",
        "almost no gradient on pairs that are ranked very wrongly (sigmoid, ramp)",
        target=TARGET, step0=step0.sympo,
    ),
    Objective(
        "ropo", PAIR + "ropo", "pair", "sum", True,
        {"beta": SUM_BETA, "alpha": Parameter(14.0, low=1, low_open=True, search=(2, 30), prior="log",
                                              doc="weight of the symmetric term")},
        "arXiv 2404.04102", "dpo that trusts a pair less the more the policy contradicts its label",
        "needs a policy that already ranks well; the paper's iterative filtering is not included",
        target=TARGET, step0=step0.ropo,
    ),
    Objective(
        "dpo_pro", PAIR + "dpo_pro", "pair", "sum", True,
        {"beta": SUM_BETA, "eps": EPS, "rho": Parameter(0.1, low=0, search=(0, 1), doc="radius of the chi2 ball")},
        "arXiv 2509.02709", "dpo under the worst label probability near 1 - eps",
        "with hard labels (eps 0) it is dpo; a kink at z = 0 holds pairs there when rho is large",
        tier="C", step0=step0.log_two,
    ),
    Objective(
        "dpop", SIDE + "dpop", "pair", "sum", True,
        {"beta": beta(0.3, 0.01, 0.5, "KL strength, 1 / nats per sequence; larger: nearer the reference"),
         "lam": Parameter(50.0, low=0, search=(5, 50), prior="log", doc="price of lowering the chosen response")},
        "Smaug, arXiv 2402.13228", "dpo that pays for lowering the chosen response below the reference",
        "the penalty swamps the preference at large lam x beta", target=TARGET, step0=step0.log_two,
    ),
    Objective(
        "nca", SIDE + "nca", "pair", "sum", True, {"beta": beta(0.1, 0.01, 0.1, "reward scale, 1 / nats")},
        "arXiv 2402.05369", "noise-contrastive fit of each response's own reward",
        "the chosen log-ratio is pulled to log 2 / beta and no further",
        step0=step0.constant(2 * step0.LOG2),
    ),
    Objective(
        "sppo", SIDE + "sppo", "pair", "sum", True, {"beta": QUADRATIC_BETA},
        "arXiv 2405.00675 (eta = 1/beta)", "pulls the two log-ratios to +-1/(2 beta)",
        "in the paper the reference is the previous iterate; 1/(2 beta) must be reachable",
        step0=step0.sppo,
    ),
    Objective(
        "apo_zero", SIDE + "apo_zero", "pair", "sum", True, {"beta": SUM_BETA}, "arXiv 2408.06266 Eq 7",
        "raises the chosen and lowers the rejected response", "saturates on both sides; flips pull as hard as labels",
        step0=step0.constant(1.0),
    ),
    Objective(
        "apo_down", SIDE + "apo_down", "pair", "sum", True, {"beta": SUM_BETA}, "arXiv 2408.06266 Eq 8",
        "lowers both responses, the rejected one more", "lowers good responses by design",
        step0=step0.constant(1.0),
    ),
    Objective(
        "cal_dpo", SIDE + "cal_dpo", "pair", "sum", True, {"beta": QUADRATIC_BETA}, "arXiv 2412.14516",
        "dpo at beta 1 with both log-ratios calibrated to +-1/(2 beta)",
        "the quadratic part dominates at small beta; the authors' code halves it", step0=step0.cal_dpo,
    ),
    Objective(
        "chi_po", SIDE + "chi_po", "pair", "sum", True,
        {"beta": SUM_BETA, "r_max": Parameter(1.0, low=0, low_open=True, search=(1, 10), prior="log",
                                              doc="bound of the rewards; the margin is clipped at twice it")},
        "arXiv 2407.13399", "dpo under chi2 regularisation: large probability ratios cost much more",
        "no gradient once the margin is clipped; exponents are capped at 80",
        step0=step0.log_two,
    ),
    Objective(
        "dpo_shift", SIDE + "dpo_shift", "pair", "sum", True,
        {"beta": SUM_BETA, "f": Parameter(0.75, low=0, high=1, low_open=True, search=(0.75, 0.95),
                                          doc="weight of the rejected response")},
        "arXiv 2502.07599", "dpo with the rejected response weighted down, against falling chosen log-probs",
        "trades reward margin for likelihood", step0=step0.log_two,
    ),
    Objective(
        "fdpo_forward_kl", SIDE + "fdpo_forward_kl", "pair", "sum", True, {"beta": SUM_BETA},
        "arXiv 2309.16240", "dpo under the forward KL", "exponential in the log-ratio; exponents are capped at 80",
        step0=step0.log_two,
    ),
    Objective(
        "fdpo_js", SIDE + "fdpo_js", "pair", "sum", True, {"beta": SUM_BETA},
        "arXiv 2309.16240", "dpo under the Jensen-Shannon divergence",
        "the reward of a response is bounded above: large margins need a falling rejected response",
        step0=step0.log_two,
    ),
    Objective(
        "fdpo_alpha", SIDE + "fdpo_alpha", "pair", "sum", True,
        {"beta": SUM_BETA, "alpha": Parameter(0.5, low=0, high=1, low_open=True, search=(0.1, 1),
                                              doc="the paper's alpha: towards 0 reverse KL, 1 forward KL")},
        "arXiv 2309.16240", "dpo under an alpha-divergence",
        "TRL's coefficient is 1 - alpha; exponents are capped at 80", step0=step0.log_two,
    ),
)  # fmt: skip
