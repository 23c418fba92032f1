"""Rows of a whole batch, rows that need token-level input, the mixture, and the rows that build references."""

from __future__ import annotations

from harness.objectives import step_zero as step0
from harness.objectives.hyperparameters import SUM_BETA
from harness.objectives.row import Objective, StateField
from harness.types import Parameter

BATCHWISE = "harness.objectives.batchwise:"
TOKENWISE = "harness.objectives.tokenwise:"
FREE = "harness.objectives.reference_free:"
TARGET = "harness.metrics.targets:target"
AOT_EPS = Parameter(0.0, low=0, high=0.5, high_open=True, search=(0, 0.4), doc="assumed flip rate of the labels")
WEIGHT = Parameter(
    1.0, low=0, low_open=True, search=(1, 4 / 3), doc="weight of its side; chosen / rejected in [1, 4/3]"
)

BATCH_ROWS = (
    Objective(
        "kto", BATCHWISE + "kto", "batch", "sum", True,
        {"beta": SUM_BETA, "desirable_weight": WEIGHT, "undesirable_weight": WEIGHT},
        "arXiv 2402.01306", "prospect-theory value of each response against the batch's mean log-ratio",
        "a small batch estimates its zero point poorly; one more forward pass on mismatched pairs",
        needs=("mismatched",), step0=step0.kto,
    ),
    Objective(
        "kto_pair", BATCHWISE + "kto_pair", "batch", "sum", True, {"beta": SUM_BETA},
        "older TRL", "kto with the zero point of each side taken from the other side",
        "as kto; the value is the sum of both sides, twice older TRL's mean", step0=step0.constant(1.0),
    ),
    Objective(
        "bco", BATCHWISE + "bco", "batch", "sum", True, {"beta": SUM_BETA}, "arXiv 2404.04656",
        "a binary classifier of chosen against rejected, its threshold the running mean reward",
        "the threshold lags; TRL's bco_pair holds it at 0",
        state={"shift": StateField("lane", 0.0)}, step0=step0.constant(2 * step0.LOG2),
    ),
    Objective(
        "aot", BATCHWISE + "aot", "batch", "sum", True, {"beta": SUM_BETA, "eps": AOT_EPS}, "arXiv 2406.05882",
        "the policy's margins dominate the reference's as distributions, not pair by pair",
        "a single pair may get worse; depends on batch size", step0=step0.log_two,
    ),
    Objective(
        "aot_unpaired", BATCHWISE + "aot_unpaired", "batch", "sum", True, {"beta": SUM_BETA, "eps": AOT_EPS},
        "arXiv 2406.05882", "chosen log-ratios dominate rejected ones as distributions",
        "forgets which responses belong together; depends on batch size", step0=step0.log_two,
    ),
    Objective(
        "dr_dpo", BATCHWISE + "dr_dpo", "batch", "sum", True,
        {"beta": SUM_BETA, "beta_prime": Parameter(1.0, low=0, low_open=True, search=(0.1, 10), prior="log",
                                                   doc="trust in the pairs; large values give dpo")},
        "arXiv 2407.07880", "dpo with pairs of high loss weighted down", "hard but right pairs are weighted down too",
        target=TARGET, step0=step0.log_two,
    ),
    Objective(
        "beta_dpo", BATCHWISE + "beta_dpo", "batch", "sum", True,
        {"beta": SUM_BETA,
         "alpha": Parameter(0.6, low=0, search=(0, 1), doc="how far beta follows the batch's margin"),
         "rho": Parameter(0.8, low=0, high=1, low_open=True, search=(0.5, 1), doc="share of pairs kept")},
        "arXiv 2407.08639", "dpo with beta set per batch, on the pairs with the most ordinary margins",
        "drops outliers whether wrong or informative; keeps the nearest pairs where the authors' code draws them, and"
        " its margin is beta times the gain where theirs leaves beta out",
        state={"mean_margin": StateField("lane", 0.0)}, step0=step0.log_two,
    ),
    Objective(
        "wpo", TOKENWISE + "wpo", "token", "tokens", True, {"beta": SUM_BETA}, "arXiv 2406.11827 Eq 2",
        "dpo weighted by how probable the responses are under the policy",
        "weights vanish for long off-policy responses and so does the step",
        needs=("chosen_log_weight", "rejected_log_weight"), tier="B", target=TARGET,
    ),
    Objective(
        "ld_dpo", TOKENWISE + "ld_dpo", "token", "tokens", True,
        {"beta": SUM_BETA, "alpha": Parameter(0.5, low=0, high=1, search=(0, 1), doc="weight of surplus tokens")},
        "arXiv 2409.06411", "dpo that counts the surplus tokens of the longer response less",
        "late content is discounted whatever it says",
        needs=("chosen_head", "rejected_head"), tier="B", step0=step0.log_two,
    ),
    Objective(
        "tdpo1", TOKENWISE + "tdpo1", "token", "tokens", True, {"beta": SUM_BETA}, "arXiv 2404.11999",
        "dpo with the difference of sequential forward KLs added to the margin", "needs a live reference",
        needs=("chosen_kl", "rejected_kl"), tier="B", step0=step0.log_two,
    ),
    Objective(
        "tdpo2", TOKENWISE + "tdpo2", "token", "tokens", True,
        {"beta": SUM_BETA, "alpha": Parameter(0.5, low=0, search=(0, 1), doc="weight of the KL difference")},
        "arXiv 2404.11999", "tdpo1 that pushes the KL of the rejected side alone", "needs a live reference",
        needs=("chosen_kl", "rejected_kl"), tier="B", step0=step0.log_two,
    ),
    Objective(
        "mallows_po", TOKENWISE + "mallows_po", "token", "tokens", True, {"beta": SUM_BETA}, "arXiv 2405.14953",
        "dpo with beta scaled by how certain the reference is of the answer",
        "phi shifts the effective beta: choose beta x mean phi near dpo's beta",
        needs=("entropy_share",), tier="B", step0=step0.log_two,
    ),
    Objective(
        "mixture", "harness.objectives.mixture:mixture", "pair", "sum", True,
        {"beta": SUM_BETA, "mixture": Parameter((("dpo", 1.0, ()),), kind="table",
                                                doc="list of {name, weight, hyperparameters}; beta is shared")},
        "MPO, arXiv 2411.10442", "weighted sum of per-pair objectives",
        "weights compare losses of different scale; batch-level and stateful objectives cannot be mixed",
    ),
    Objective(
        "nll", FREE + "nll", "pair", "mean", False, {}, "maximum likelihood",
        "token-mean likelihood of the chosen response", "ignores the rejected response", tier="internal",
    ),
    Objective(
        "reward_model", FREE + "bt_reward", "pair", "sum", False,
        {
            "margin": Parameter(0.0, low=0, doc="margin asked of the reward gap, reward units"),
            "center": Parameter(0.0, low=0, search=(0, 0.01), doc="weight of (r_w + r_l)^2, which fixes the level"),
            "shrink": Parameter(1e-3, low=0, search=(0, 0.01), doc="weight of the mean squared reward"),
            "steps": Parameter(200, kind="int", low=1, high=1_000_000, doc="optimizer steps"),
            "batch_size": Parameter(32, kind="int", low=1, high=65_536, doc="pairs a step"),
            "learning_rate": Parameter(1e-3, low=0, high=10, low_open=True, doc="peak rate"),
            "weight_decay": Parameter(0.01, low=0, high=10, doc="decoupled, of every weight"),
        },
        "Bradley-Terry; margin: arXiv 2307.09288", "likelihood of the labels under a scalar head on the reference",
        "levels are free per prompt: compare gaps only; wrong labels become wrong rewards",
    ),
)  # fmt: skip
