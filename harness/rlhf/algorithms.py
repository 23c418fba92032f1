"""What the RL objectives do with a rollout: targets once an iteration, a loss every minibatch.

One way through for all of them: `targets(rollout, beta, state, **hyperparameters)` when the responses are scored,
then `loss(...)` for each minibatch of each epoch. Hyperparameters are those of the objective's row
(`harness/objectives/rl.py`), numbers as columns `(K, 1)`; the rest is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.objectives.terms import Number
from harness.rlhf import advantage
from harness.rlhf import losses as policy_loss
from harness.rlhf.kl import sequence_kl, token_kl
from harness.rlhf.losses import PolicyLoss, clipped_value_loss, explained_variance
from harness.rlhf.rewards import sequence_rewards, token_rewards


@dataclass(frozen=True, slots=True)
class Rollout:
    """Responses sampled from the policy by K lanes, the k samples of a prompt side by side (n = prompts x k).

    `logps` (kept from sampling), `reference`, `values` (V before each token, None without a value model) `(K, n, T)`;
    `mask` `(K, n, T)` bool, real tokens first; `scores` `(K, n)` as `shaping.shaped` gives them.
    """

    logps: Tensor
    reference: Tensor
    mask: Tensor
    scores: Tensor
    k: int
    values: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """What an iteration optimises: `advantages` `(K, n, T)` or `(K, n)`, `returns` `(K, n, T)` with a value model.

    `kl` `(K, n)`: sequence k1 of the rollout, nats. `state`: the running baseline `(K, 1)`, where the row keeps one.
    """

    advantages: Tensor
    kl: Tensor
    returns: Tensor | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Minibatch:
    """Responses of one update, all `(K, m, T)` but response-level advantages: rows of rollout and targets."""

    old: Tensor
    reference: Tensor
    mask: Tensor
    advantages: Tensor
    old_values: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """The policy now, on a minibatch: `logps`, `values`, next-token `entropy`, `(K, m, T)` each, where needed."""

    logps: Tensor
    values: Tensor | None = None
    entropy: Tensor | None = None


TargetFunction = Callable[..., Targets]
LossFunction = Callable[..., PolicyLoss]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One RL objective: its two pure functions, whether it has a value model, and whether it is `constrained` by the
    training pairs, a batch of which stands beside every rollout."""

    targets: TargetFunction
    loss: LossFunction
    needs_values: bool = False
    constrained: bool = False


def minibatch(rollout: Rollout, targets: Targets, rows: Tensor) -> Minibatch:
    """The responses `rows` `(K, m)` of a rollout and its targets."""

    def take(x: Tensor) -> Tensor:
        return x.gather(1, rows) if x.dim() == 2 else x.gather(1, rows[..., None].expand(*rows.shape, x.shape[-1]))

    return Minibatch(
        take(rollout.logps),
        take(rollout.reference),
        take(rollout.mask),
        take(targets.advantages),
        None if rollout.values is None else take(rollout.values),
        None if targets.returns is None else take(targets.returns),
    )


# --- targets --------------------------------------------------------------------------------------------------------


def ppo_targets(
    rollout: Rollout,
    beta: Number,
    state: Mapping[str, Tensor] | None = None,  # noqa: ARG001
    *,
    gamma: Number = 1.0,
    lam: Number = 0.95,
    kl_estimator: str = "k1",
    whiten: bool = True,
    **_: Any,
) -> Targets:
    """GAE on token rewards with the KL price in them, whitened where asked."""
    if rollout.values is None:
        raise ValueError("ppo needs values: the rollout carries none")
    kl = token_kl(kl_estimator, rollout.logps, rollout.reference, rollout.mask)
    rewards = token_rewards(rollout.scores, kl, rollout.mask, beta)
    advantages, returns = advantage.gae(rewards, rollout.values, rollout.mask, gamma, lam)
    if whiten:
        advantages = advantage.whiten(advantages, rollout.mask)
    return Targets(advantages, _observed_kl(rollout), returns)


def rloo_targets(
    rollout: Rollout,
    beta: Number,
    state: Mapping[str, Tensor] | None = None,  # noqa: ARG001
    *,
    kl_estimator: str = "k1",
    whiten: bool = False,
    **_: Any,
) -> Targets:
    """Leave-one-out on score - beta KL."""
    advantages = advantage.rloo(_regularised(rollout, beta, kl_estimator), rollout.k)
    return Targets(_whitened(advantages) if whiten else advantages, _observed_kl(rollout))


def reinforce_targets(
    rollout: Rollout,
    beta: Number,
    state: Mapping[str, Tensor] | None = None,
    *,
    kl_estimator: str = "k1",
    whiten: bool = False,
    baseline: str = "batch",
    decay: Number = 0.9,
    **_: Any,
) -> Targets:
    """score - beta KL less a baseline: `none`, the `batch` mean, or a `running` one, which `state` carries."""
    rewards = _regularised(rollout, beta, kl_estimator)
    kept = dict(state or {})
    if baseline == "running":
        old = kept.get("baseline", torch.zeros_like(rewards[..., :1]))
        advantages, kept["baseline"] = advantage.against_running(rewards, old, decay)
    else:
        advantages = advantage.against_batch(rewards) if baseline == "batch" else rewards
    return Targets(_whitened(advantages) if whiten else advantages, _observed_kl(rollout), state=kept)


def grpo_targets(
    rollout: Rollout,
    beta: Number,
    state: Mapping[str, Tensor] | None = None,  # noqa: ARG001
    *,
    kl_in: str = "loss",
    kl_estimator: str = "k1",
    scale_rewards: str = "group",
    **_: Any,
) -> Targets:
    """Deviations from the group's mean, over its sd where asked; the KL price joins the reward or stays in the loss."""
    rewards = _regularised(rollout, beta, kl_estimator) if kl_in == "reward" else rollout.scores
    return Targets(advantage.grpo(rewards, rollout.k, scale_rewards == "group"), _observed_kl(rollout))


def _regularised(rollout: Rollout, beta: Number, estimator: str) -> Tensor:
    kl = token_kl(estimator, rollout.logps, rollout.reference, rollout.mask).sum(-1)
    return sequence_rewards(rollout.scores, kl, beta)


def _observed_kl(rollout: Rollout) -> Tensor:
    return sequence_kl("k1", rollout.logps, rollout.reference, rollout.mask)


def _whitened(advantages: Tensor) -> Tensor:
    whole = torch.ones_like(advantages, dtype=torch.bool)[..., None]
    return advantage.whiten(advantages[..., None], whole)[..., 0]


# --- losses ---------------------------------------------------------------------------------------------------------


def ppo_loss(
    now: Forward,
    batch: Minibatch,
    *,
    clip: Number = 0.2,
    value_clip: Number = 0.2,
    vf_coef: Number = 0.1,
    entropy_coef: Number = 0.0,
    **_: Any,
) -> PolicyLoss:
    """Clipped policy loss + vf_coef clipped value loss - entropy_coef entropy."""
    if now.values is None or batch.old_values is None or batch.returns is None:
        raise ValueError("ppo needs values now and at sampling, and returns")
    policy = policy_loss.clipped(now.logps, batch.old, batch.advantages, batch.mask, clip)
    value = clipped_value_loss(now.values, batch.old_values, batch.returns, batch.mask, value_clip)
    statistics = {
        **policy.statistics,
        "value_loss": value.detach(),
        "explained_variance": explained_variance(now.values, batch.returns, batch.mask),
    }
    loss = policy.loss + _flat(vf_coef) * value
    return _with_entropy(PolicyLoss(loss, statistics), now, batch.mask, entropy_coef)


def sequence_loss(
    now: Forward, batch: Minibatch, *, clip: Number = 0.2, entropy_coef: Number = 0.0, **_: Any
) -> PolicyLoss:
    """One clipped ratio a response: RLOO and REINFORCE."""
    policy = policy_loss.sequence_clipped(now.logps, batch.old, batch.advantages, batch.mask, clip)
    return _with_entropy(policy, now, batch.mask, entropy_coef)


def grpo_loss(
    now: Forward,
    batch: Minibatch,
    *,
    beta: Number = 0.04,
    clip: Number = 0.2,
    average: str = "token",
    kl_in: str = "loss",
    entropy_coef: Number = 0.0,
    **_: Any,
) -> PolicyLoss:
    """Clipped token ratios with the response's advantage, plus beta k3 unless the KL is in the reward."""
    anchor = batch.reference if kl_in == "loss" else None
    policy = policy_loss.grpo(now.logps, batch.old, batch.advantages, batch.mask, clip, average, anchor, beta)
    return _with_entropy(policy, now, batch.mask, entropy_coef)


def _with_entropy(policy: PolicyLoss, now: Forward, mask: Tensor, coefficient: Number) -> PolicyLoss:
    if now.entropy is None:
        return policy
    entropy = policy_loss.entropy_bonus(now.entropy, mask)
    statistics = {**policy.statistics, "entropy": entropy.detach()}
    return PolicyLoss(policy.loss - _flat(coefficient) * entropy, statistics)


def _flat(value: Number) -> Number:
    """`(K, 1)` as `(K,)`."""
    return value[..., 0] if isinstance(value, Tensor) and value.dim() else value


ppo = Algorithm(ppo_targets, ppo_loss, needs_values=True)
rloo = Algorithm(rloo_targets, sequence_loss)
reinforce = Algorithm(reinforce_targets, sequence_loss)
grpo = Algorithm(grpo_targets, grpo_loss)
constrained_rlhf = Algorithm(rloo_targets, sequence_loss, constrained=True)
