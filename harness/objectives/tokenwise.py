"""Objectives that need more than summed log-probs. What each reads from `extra` stands in its docstring.

Keys that belong to one side begin with `chosen_` or `rejected_`, so that a label flip swaps them like log-probs.
Sums run over response tokens. Notation as in `pairwise`; inputs `(..., B)`, at least float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.objectives.numerics import Number, ell, per_pair, shifts
from harness.types import LossOutput, PairLogps


def wpo(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """w ell(z), w = product over both sides of exp(mean_t [log pi(y_t) - log sum_v pi(v)^2]), without gradient.

    Policy `extra`: `chosen_log_collision`, `rejected_log_collision` `(..., B)`, the sums over t of
    log sum_v pi(v | t)^2. WPO, arXiv 2406.11827 eq. 2.
    """
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    wanted = (policy.chosen - policy.extra["chosen_log_collision"]) / policy.chosen_len
    unwanted = (policy.rejected - policy.extra["rejected_log_collision"]) / policy.rejected_len
    weight = (wanted + unwanted).detach().exp()
    return per_pair(weight * ell(chosen - rejected), chosen, rejected)


def ld_dpo(policy: PairLogps, reference: PairLogps, *, beta: Number, alpha: Number) -> LossOutput:
    """dpo with tokens beyond the shorter response's length weighted by alpha, in policy and reference.

    `extra` of both: `chosen_tokens`, `rejected_tokens` `(..., B, T)`, token log-probs, zero where padded.
    LD-DPO, arXiv 2409.06411.
    """
    shorter = torch.minimum(policy.chosen_len, policy.rejected_len).unsqueeze(-1)

    def weighted(side: str) -> Tensor:
        tokens = policy.extra[side] - reference.extra[side]
        beyond = torch.arange(tokens.shape[-1], device=tokens.device) >= shorter
        return torch.where(beyond, 0.0, tokens).sum(-1) + alpha * torch.where(beyond, tokens, 0.0).sum(-1)

    chosen, rejected = beta * weighted("chosen_tokens"), beta * weighted("rejected_tokens")
    return per_pair(ell(chosen - rejected), chosen, rejected)


def tdpo1(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """ell(z - beta (S_l - S_w)), S = sum_t KL(pi_ref || pi at t). TDPO1, arXiv 2404.11999.

    Policy `extra`: `chosen_kl`, `rejected_kl` `(..., B)`, S of each side with its gradient.
    """
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    drift = policy.extra["rejected_kl"] - policy.extra["chosen_kl"]
    return per_pair(ell(chosen - rejected - beta * drift), chosen, rejected)


def tdpo2(policy: PairLogps, reference: PairLogps, *, beta: Number, alpha: Number) -> LossOutput:
    """ell(z - alpha beta (S_l - S_w)) with no gradient through S_w; `extra` as for `tdpo1`. arXiv 2404.11999."""
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    drift = policy.extra["rejected_kl"] - policy.extra["chosen_kl"].detach()
    return per_pair(ell(chosen - rejected - alpha * beta * drift), chosen, rejected)


def mallows_po(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """ell(phi z), phi = -log of the reference's mean next-token entropy on the pair, in units of log V.

    Reference `extra`: `chosen_relative_entropy`, `rejected_relative_entropy` `(..., B)`, sums over t of
    H_t / log V. Mallows-DPO, arXiv 2405.14953.
    """
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    entropy = reference.extra["chosen_relative_entropy"] + reference.extra["rejected_relative_entropy"]
    phi = -(entropy / (policy.chosen_len + policy.rejected_len)).log()
    return per_pair(ell(phi * (chosen - rejected)), chosen, rejected)
