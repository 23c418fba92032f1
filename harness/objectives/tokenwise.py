"""Losses that need more than summed log-probs. Each loss is followed by its row.

z = beta x log-ratio margin. What they read from `PairLogps.extra`, all `(..., B)`:
`chosen_log_weight`, `rejected_log_weight` (wpo, policy); `chosen_head`, `rejected_head` (ld_dpo, both models);
`chosen_kl`, `rejected_kl` (tdpo, policy, with gradient); `entropy_share` (mallows_po, reference).
"""

from __future__ import annotations

from harness.objectives import step_zero as step0
from harness.objectives.hyperparameters import OURS, SUM_BETA
from harness.objectives.row import Objective, Preset
from harness.objectives.terms import Number, capped_exp, log_ratios, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps, Parameter


def wpo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """-w log sigmoid(z), w = exp(chosen_log_weight + rejected_log_weight), no gradient through w.

    A log-weight is the token mean of log pi(y_t) - log sum_v pi(v)^2: how much a response looks like the policy's.
    """
    chosen, rejected = log_ratios(policy, reference)
    weight = capped_exp(policy.extra["chosen_log_weight"] + policy.extra["rejected_log_weight"]).detach()
    return per_pair(weight * neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


WPO = Objective(
    "wpo", wpo, "token", "tokens", True, {"beta": SUM_BETA}, "arXiv 2406.11827 Eq 2",
    "dpo weighted by how probable the responses are under the policy",
    "weights vanish for long off-policy responses and so does the step",
    needs=("chosen_log_weight", "rejected_log_weight"), tier="B",
    presets={"paper": Preset({}, "arXiv 2406.11827 Eq 2")},
)  # fmt: skip


def ld_dpo(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """dpo with tokens past min(n_w, n_l) weighted by alpha; `*_head` sum the log-probs of the tokens before."""
    heads = (policy.extra[key] - reference.extra[key] for key in ("chosen_head", "rejected_head"))
    totals = log_ratios(policy, reference)
    chosen, rejected = (head + alpha * (total - head) for head, total in zip(heads, totals, strict=True))
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


LD_DPO = Objective(
    "ld_dpo", ld_dpo, "token", "tokens", True,
    {"beta": SUM_BETA, "alpha": Parameter(0.5, low=0, high=1, search=(0, 1), doc="weight of surplus tokens",
                                          source=OURS)},
    "arXiv 2409.06411", "dpo that counts the surplus tokens of the longer response less",
    "late content is discounted whatever it says",
    needs=("chosen_head", "rejected_head"), tier="B", step0=step0.log_two,
)  # fmt: skip


def tdpo1(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """-log sigmoid(z - beta (SKL_l - SKL_w)), SKL = `*_kl`: KL(reference || policy) summed over tokens, nats."""
    chosen, rejected = log_ratios(policy, reference)
    excess = policy.extra["rejected_kl"] - policy.extra["chosen_kl"]
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected - excess)), (beta * chosen, beta * rejected))


TDPO1 = Objective(
    "tdpo1", tdpo1, "token", "tokens", True, {"beta": SUM_BETA}, "arXiv 2404.11999",
    "dpo with the difference of sequential forward KLs added to the margin", "needs a live reference",
    needs=("chosen_kl", "rejected_kl"), tier="B", step0=step0.log_two,
    presets={"paper": Preset({}, "arXiv 2404.11999")},
)  # fmt: skip


def tdpo2(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """tdpo1 with the KL terms weighted by alpha and no gradient through the chosen one."""
    chosen, rejected = log_ratios(policy, reference)
    excess = policy.extra["rejected_kl"] - policy.extra["chosen_kl"].detach()
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected - alpha * excess)), (beta * chosen, beta * rejected))


TDPO2 = Objective(
    "tdpo2", tdpo2, "token", "tokens", True,
    {"beta": SUM_BETA, "alpha": Parameter(0.5, low=0, search=(0, 1), doc="weight of the KL difference",
                                          source="arXiv 2404.11999; range chosen here")},
    "arXiv 2404.11999", "tdpo1 that pushes the KL of the rejected side alone", "needs a live reference",
    needs=("chosen_kl", "rejected_kl"), tier="B", step0=step0.log_two,
    presets={"paper": Preset({}, "arXiv 2404.11999")},
)  # fmt: skip


def mallows_po(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """-log sigmoid(phi z), phi = -log(entropy_share): the reference's next-token entropy over the largest possible."""
    chosen, rejected = log_ratios(policy, reference)
    # An entropy of exactly zero (a reference that is certain) would make phi infinite.
    phi = -reference.extra["entropy_share"].clamp(min=1e-6, max=1).log()
    return per_pair(neg_log_sigmoid(phi * beta * (chosen - rejected)), (beta * chosen, beta * rejected))


MALLOWS_PO = Objective(
    "mallows_po", mallows_po, "token", "tokens", True, {"beta": SUM_BETA}, "arXiv 2405.14953",
    "dpo with beta scaled by how certain the reference is of the answer",
    "phi shifts the effective beta: choose beta x mean phi near dpo's beta",
    needs=("entropy_share",), tier="B", step0=step0.log_two,
)  # fmt: skip


ROWS = (WPO, LD_DPO, TDPO1, TDPO2, MALLOWS_PO)
