"""Objectives that need no reference: margins on the policy's own log-probs, and the likelihood rows."""

from __future__ import annotations

from typing import Any

from harness.objectives.terms import EXPONENT_LIMIT, ONE, Number, chosen_nll, log1mexp, means, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps


def simpo(policy: PairLogps, reference: PairLogps | None, beta: Number, gamma: Number) -> LossOutput:  # noqa: ARG001
    """ell(beta ln_delta - gamma)."""
    chosen, rejected = (beta * side for side in means(policy))
    return per_pair(neg_log_sigmoid(chosen - rejected - gamma), (chosen, rejected))


def alphapo(
    policy: PairLogps,
    reference: PairLogps | None,  # noqa: ARG001
    beta: Number,
    gamma: Number,
    alpha: Number,
) -> LossOutput:
    """simpo with the reward r = beta (1 - P^-alpha) / alpha, P the geometric mean token probability."""
    chosen, rejected = (-beta * (-alpha * side).clamp(max=EXPONENT_LIMIT).expm1() / alpha for side in means(policy))
    return per_pair(neg_log_sigmoid(chosen - rejected - gamma), (chosen, rejected))


def orpo(policy: PairLogps, reference: PairLogps | None, lam: Number) -> LossOutput:  # noqa: ARG001
    """Token-mean NLL of the chosen response + lam ell(log odds ratio of the mean token probabilities)."""
    odds = [side - log1mexp(side) for side in (side.clamp(max=ONE) for side in means(policy))]
    chosen, rejected = means(policy)
    return per_pair(chosen_nll(policy) + lam * neg_log_sigmoid(odds[0] - odds[1]), (lam * chosen, lam * rejected))


def contrastive_cpo(
    policy: PairLogps,
    reference: PairLogps | None,  # noqa: ARG001
    beta: Number,
    lam: Number,
) -> LossOutput:
    """ell(beta delta) + lam token-mean NLL of the chosen response."""
    loss = neg_log_sigmoid(beta * (policy.chosen - policy.rejected)) + lam * chosen_nll(policy)
    return per_pair(loss, (beta * policy.chosen, beta * policy.rejected))


def slic(policy: PairLogps, reference: PairLogps | None, margin: Number, lam: Number) -> LossOutput:  # noqa: ARG001
    """max(0, margin - delta) - lam log pi(chosen): the likelihood term is summed over tokens, as printed."""
    loss = (margin - (policy.chosen - policy.rejected)).relu() - lam * policy.chosen
    return per_pair(loss, (policy.chosen, policy.rejected))


def nll(policy: PairLogps, reference: PairLogps | None) -> LossOutput:  # noqa: ARG001
    """Token-mean NLL of the chosen response: pretraining and supervised fine-tuning."""
    return per_pair(chosen_nll(policy), (policy.chosen, policy.rejected))


def bt_reward(
    policy: PairLogps,
    reference: PairLogps | None,  # noqa: ARG001
    margin: Number,
    center: Number = 0.0,
    shrink: Number = 0.0,
    **_recipe: Any,
) -> LossOutput:
    """ell(r_w - r_l - margin) + center (r_w + r_l)^2 + shrink (r_w^2 + r_l^2) / 2: a reward model's loss.

    Its scores stand in the place of log-probs. `center` is TRL's `center_rewards_coefficient`: it fixes the level that
    the likelihood leaves free. `shrink` bounds the gaps, which hard labels would drive to infinity. `_recipe` is how
    long and how fast it is trained, which the loss does not read.
    """
    chosen, rejected = policy.chosen, policy.rejected
    likelihood = neg_log_sigmoid(chosen - rejected - margin)
    loss = likelihood + center * (chosen + rejected).square() + shrink * (chosen.square() + rejected.square()) / 2
    return per_pair(loss, (chosen, rejected))
