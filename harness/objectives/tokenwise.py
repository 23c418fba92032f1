"""Objectives that need more than summed log-probs: what each reads from `PairLogps.extra`, all `(..., B)`.

Keys: `chosen_log_weight`, `rejected_log_weight` (wpo, policy); `chosen_head`, `rejected_head` (ld_dpo, both models);
`chosen_kl`, `rejected_kl` (tdpo, policy, with gradient); `entropy_share` (mallows_po, reference).
"""

from __future__ import annotations

from torch import Tensor

from harness.objectives.terms import Number, capped_exp, log_ratios, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps


def wpo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """w ell(z), w = exp(chosen_log_weight + rejected_log_weight), no gradient through w.

    A log-weight is the token mean of log pi(y_t) - log sum_v pi(v)^2: how much a response looks like the policy's.
    """
    chosen, rejected = log_ratios(policy, reference)
    weight = capped_exp(policy.extra["chosen_log_weight"] + policy.extra["rejected_log_weight"]).detach()
    return per_pair(weight * neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def ld_dpo(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """dpo with tokens past min(n_w, n_l) weighted by alpha; `*_head` sum the log-probs of the tokens before."""

    def shift(side: str, total: Tensor) -> Tensor:
        head = policy.extra[f"{side}_head"] - reference.extra[f"{side}_head"]
        return head + alpha * (total - head)

    chosen, rejected = (
        shift(*each) for each in zip(("chosen", "rejected"), log_ratios(policy, reference), strict=True)
    )
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def tdpo1(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """ell(z - beta (SKL_l - SKL_w)), SKL the sum over response tokens of KL(reference || policy): `*_kl`, nats."""
    chosen, rejected = log_ratios(policy, reference)
    excess = policy.extra["rejected_kl"] - policy.extra["chosen_kl"]
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected - excess)), (beta * chosen, beta * rejected))


def tdpo2(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """tdpo1 with the KL terms weighted by alpha and no gradient through the chosen one."""
    chosen, rejected = log_ratios(policy, reference)
    excess = policy.extra["rejected_kl"] - policy.extra["chosen_kl"].detach()
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected - alpha * excess)), (beta * chosen, beta * rejected))


def mallows_po(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """ell(phi z), phi = -log(entropy_share): next-token entropy of the reference over the largest possible one."""
    chosen, rejected = log_ratios(policy, reference)
    # An entropy of exactly zero (a reference that is certain) would make phi infinite.
    phi = -reference.extra["entropy_share"].clamp(min=1e-6, max=1).log()
    return per_pair(neg_log_sigmoid(phi * beta * (chosen - rejected)), (beta * chosen, beta * rejected))
