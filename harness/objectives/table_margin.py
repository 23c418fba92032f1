"""Rows of the constrained family and rows that need no reference."""

from __future__ import annotations

from harness.objectives import step_zero as step0
from harness.objectives.hyperparameters import CONSTRAINED_BETA, LAM_NLL, MEAN_BETA, RPO_ALPHA, SIMPO_GAMMA, SUM_BETA
from harness.objectives.row import Objective, StateField
from harness.types import Parameter

CONSTRAINED = "harness.objectives.constrained:"
FREE = "harness.objectives.reference_free:"
TARGET = "harness.metrics.targets:target"
PSI_GAMMA = Parameter(0.05, low=0, search=(0.005, 0.05), prior="log", doc="multiplier of the inverse probabilities")

MARGIN_ROWS = (
    Objective(
        "hypo", CONSTRAINED + "hypo", "pair", "sum", True, {"beta": SUM_BETA},
        "HyPO, arXiv 2602.11902", "dpo where the reference is right, no reference where it is wrong",
        "under heavy flips the target no longer guarantees the right order", target=TARGET, step0=step0.hypo,
    ),
    Objective(
        "cpo_clip", CONSTRAINED + "cpo_clip", "pair", "mean", True, {"beta": CONSTRAINED_BETA, "rpo_alpha": RPO_ALPHA},
        "arXiv 2605.20834 (the code's `clip`)", "hypo on token means", "as hypo",
        target=TARGET, step0=step0.cpo_clip,
    ),
    Objective(
        "cpo_smooth", CONSTRAINED + "cpo_smooth", "pair", "mean", True,
        {
            "beta": CONSTRAINED_BETA,
            "gamma": Parameter(0.5, low=0, search=(0, 0.5), doc="reference margin below which the target is lifted"),
            "tau": Parameter(2.0, low=0, low_open=True, search=(1, 10), prior="log", doc="sharpness of the lift"),
            "alpha": Parameter(0.25, low=0, low_open=True, search=(0.25, 1), doc="the lift is divided by it"),
            "reduction": Parameter("mean", kind="choice", choices=("mean", "sum"),
                                   doc="token means (released) or sums; a sum takes beta from the sum family"),
            "rpo_alpha": RPO_ALPHA,
        },
        "arXiv 2605.20834", "dpo with a target lifted to at least gamma where the reference ranks the pair wrongly",
        "alpha < 1 asks the largest margins of the most pessimistic pairs; alpha > 1 loses the guarantee",
        target=TARGET, step0=step0.cpo_smooth,
    ),
    Objective(
        "ecpo_released", CONSTRAINED + "ecpo_released", "pair", "mean", True,
        {"beta": CONSTRAINED_BETA, "gamma": PSI_GAMMA, "rpo_alpha": RPO_ALPHA},
        "github.com/visitworld123/CPO (`easy`)", "ln_dpo with the margin of the authors' released code",
        "its margin is negative, the opposite of the paper's: it lowers the target (see cpo_eq17)",
        target=TARGET, step0=step0.ecpo_released,
    ),
    Objective(
        "cpo_eq17", CONSTRAINED + "cpo_eq17", "pair", "mean", True,
        {"beta": CONSTRAINED_BETA, "gamma": PSI_GAMMA, "rpo_alpha": RPO_ALPHA},
        "arXiv 2605.20834", "ln_dpo with the paper's margin of inverse mean token probabilities",
        "the margin explodes for improbable responses (exponents are capped at 80); not the released code",
        target=TARGET, step0=step0.cpo_eq17,
    ),
    Objective(
        "cpo_dual", CONSTRAINED + "cpo_dual", "pair", "sum", True,
        {
            "beta": SUM_BETA,
            "margin": Parameter(0.0, low=0, search=(0, 1), doc="margin m that delta must reach, nats"),
            "eta": Parameter(None, low=0, low_open=True, doc="dual step, below 2 beta; absent or null: beta / 2"),
        },
        "derived from the constrained problem of arXiv 2605.20834",
        "dpo under the constraint delta >= margin, one multiplier per pair by dual ascent",
        "a flipped label is a constraint too; pairs need several visits for their multipliers to settle",
        state={"multiplier": StateField("pair", 0.0)}, target=TARGET, step0=step0.log_two,
    ),
    Objective(
        "simpo", FREE + "simpo", "pair", "mean", False, {"beta": MEAN_BETA, "gamma": SIMPO_GAMMA},
        "arXiv 2405.14734", "mean token margin of at least gamma / beta, no reference",
        "nothing holds the policy near the reference; TRL's beta default of 0.1 is far off its range",
        target=TARGET,
    ),
    Objective(
        "alphapo", FREE + "alphapo", "pair", "mean", False,
        {"beta": MEAN_BETA, "gamma": SIMPO_GAMMA,
         "alpha": Parameter(0.25, low=0, low_open=True, search=(0.05, 0.5), doc="bend of the reward; 0 is simpo")},
        "arXiv 2501.03884", "simpo with a reward that bends with probability",
        "exponential for improbable responses (exponents are capped at 80)",
    ),
    Objective(
        "orpo", FREE + "orpo", "pair", "mean", False,
        {"lam": Parameter(0.1, low=0, search=(0.05, 0.5), prior="log", doc="weight of the odds-ratio term")},
        "arXiv 2403.07691", "token-mean NLL of the chosen response and a log odds ratio",
        "it is fine-tuning first: without a reference the NLL moves the policy most",
    ),
    Objective(
        "contrastive_cpo", FREE + "contrastive_cpo", "pair", "sum", False, {"beta": SUM_BETA, "lam": LAM_NLL},
        "arXiv 2401.08417 (TRL's CPOTrainer)", "dpo under a uniform reference, with a token-mean NLL term",
        "favours short responses; nothing but the NLL term holds the policy", target=TARGET,
    ),
    Objective(
        "slic", FREE + "slic", "pair", "sum", False,
        {"margin": Parameter(1.0, low=0, search=(0.5, 2), doc="margin that delta must reach, nats"),
         "lam": Parameter(0.1, low=0, search=(0, 1), doc="weight of the summed NLL of the chosen response")},
        "arXiv 2305.10425", "hinge on the policy's own margin, with a likelihood term summed over tokens",
        "the chosen response stands for the paper's SFT target", target=TARGET,
    ),
)  # fmt: skip
