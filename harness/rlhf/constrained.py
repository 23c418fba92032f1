"""Constrained RLHF: KL-regularised reward under pi(y_w) >= e^m pi(y_l) for every pair, by dual ascent.

The constraint says delta >= m and is linear in pi, so max_pi E r - beta KL(pi || pi_ref) under it is convex, and the
Lagrangian adds `multiplier x (pi_w - e^m pi_l)`. Never add `multiplier x delta` instead: delta has no upper bound, its
price falls only as KL, which is finite in a finite world, so reward + lambda delta has no maximum for any lambda > 0
(let pi_l go to 0: delta goes to infinity and everything else stays finite). The linear form is bounded by multiplier
on either side. Derivation and closed form of the optimum, one pair:

    pi_c(y) ~ pi_ref(y) exp{[r(y) + multiplier (1[y = w] - e^m 1[y = l])] / beta}
    multiplier = max(0, (beta (m - delta_ref) - delta_r) / (1 + e^m)),   delta_c = max(delta_ref + delta_r / beta, m)

Log-probs `(K, B)`, summed over response tokens; hyperparameters numbers or columns `(K, 1)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.models.logps import oriented, pair_logps, reference_logps
from harness.models.pack import LaneGroup, select
from harness.objectives.terms import EXPONENT_LIMIT, Number
from harness.rlhf.lanes import RlTraining
from harness.rlhf.tally import Tally
from harness.types import PairLogps


def constraint_scale(reference_chosen: Tensor, reference_rejected: Tensor, margin: Number = 0.0) -> Tensor:
    """log(pi_ref(w) + e^m pi_ref(l)) `(K, B)`: divided by it, probabilities of long responses are numbers near 1.

    A constant of the pair: the scaled constraint is the same one, its multiplier that of the unscaled constraint
    times exp(scale).
    """
    return torch.logaddexp(reference_chosen, reference_rejected + margin)


def constraint(chosen: Tensor, rejected: Tensor, margin: Number = 0.0, scale: Number = 0.0) -> Tensor:
    """(pi_w - e^m pi_l) / exp(scale) `(K, B)`, >= 0 where delta >= m. Exponents are capped at 80, without gradient."""
    w, low = chosen - scale, rejected + margin - scale
    return w.clamp(max=EXPONENT_LIMIT).exp() - low.clamp(max=EXPONENT_LIMIT).exp()


def lagrangian_loss(
    chosen: Tensor, rejected: Tensor, multiplier: Tensor, margin: Number = 0.0, scale: Number = 0.0
) -> Tensor:
    """-multiplier (pi_w - e^m pi_l) / exp(scale) `(K, B)`: its sum over pairs is added to the RLHF loss.

    The mean over a minibatch has the multipliers of the whole set divided by its size; either way a pair's multiplier
    settles where its constraint holds.
    """
    return -multiplier.detach() * constraint(chosen, rejected, margin, scale)


def violation(chosen: Tensor, rejected: Tensor, margin: Number = 0.0) -> Tensor:
    """m - delta `(K, B)`, nats: has the sign of minus the constraint, in units that do not depend on the pair."""
    return (margin - (chosen - rejected)).detach()


def multiplier_step(multiplier: Tensor, violated: Tensor, eta: Number) -> Tensor:
    """max(0, multiplier + eta violated) `(K, B)`: dual ascent.

    `violated` is `violation(...)`, or minus `constraint(...)` for the dual's own gradient: both are 0 exactly at
    delta = m and agree in sign, so the fixed points are the same. With inner optima in between and m - delta, the step
    contracts for eta < 2 beta / (1 + e^m) on the unscaled constraint (d delta / d multiplier = (1 + e^m) / beta).
    """
    return (multiplier + eta * violated.detach()).clamp(min=0.0)


def visit(
    policy: PairLogps,
    reference: PairLogps,
    multiplier: Tensor,
    *,
    beta: Number,
    margin: Number = 0.0,
    eta: Number | None = None,
) -> tuple[Tensor, Tensor]:
    """One visit to training pairs: the loss `(K, B)` that joins the RLHF loss, and the multipliers `(K, B)` to keep.

    The multiplier moves first, so that a pair violated on its first visit already pulls; `eta` None is beta / 2.
    Constraints are scaled by `constraint_scale` of the reference. Where a budget gives each pair few visits, delta
    passes m before its multiplier is back at 0: the constraint holds, at more KL than it needs.
    """
    step = 0.5 * beta if eta is None else eta
    raised = multiplier_step(multiplier, violation(policy.chosen, policy.rejected, margin), step)
    scale = constraint_scale(reference.chosen, reference.rejected, margin)
    return lagrangian_loss(policy.chosen, policy.rejected, raised, margin, scale), raised


def stacked_pairs(run: RlTraining) -> tuple[Tensor, Tensor] | None:
    """The pairs that constrain each iteration, and which are labelled the other way, `(iterations, K, B)`."""
    pairs = [own.pairs for own in run.rl_lanes if own.pairs is not None]
    flipped = [own.flipped for own in run.rl_lanes if own.flipped is not None]
    if not pairs:
        return None
    device = run.model.flat.device
    return torch.stack(pairs, 1).to(device), torch.stack(flipped, 1).to(device)


def pair_terms(
    run: RlTraining, groups: Sequence[LaneGroup], index: Tensor, flipped: Tensor, tally: Tally
) -> dict[int, Tensor]:
    """The term that each lane's loss gains, by lane: the mean Lagrangian of the pairs `index` `(K, B)` as labelled.

    Multipliers move one dual step first, where they are kept: `state["multiplier"]` of a group, by corpus row. Watched:
    `rlhf/multiplier`, `rlhf/violation` (mean of max(0, m - delta), nats), `rlhf/feasible`.
    """
    corpus = run.pack.corpus
    policy = oriented(pair_logps(run.model, corpus, index), flipped)
    reference = oriented(reference_logps(corpus, index), flipped)
    terms: dict[int, Tensor] = {}
    for group in groups:
        lanes = torch.tensor(group.lanes, device=index.device)
        loss = _step(group, select(policy, lanes), select(reference, lanes), index[lanes], run.beta[lanes], tally)
        terms |= {lane: loss[position] for position, lane in enumerate(group.lanes)}
    return terms


def _step(
    group: LaneGroup, policy: PairLogps, reference: PairLogps, index: Tensor, beta: Tensor, tally: Tally
) -> Tensor:
    kept, margin = group.state["multiplier"], group.hyperparameters["margin"]
    loss, now = visit(
        policy, reference, kept.gather(1, index), beta=beta, margin=margin, eta=group.hyperparameters["eta"]
    )
    kept.scatter_(1, index, now)
    broken = violation(policy.chosen, policy.rejected, margin)
    watched = {
        "rlhf/multiplier": now.mean(-1),
        "rlhf/violation": broken.clamp(min=0).mean(-1),
        "rlhf/feasible": (broken <= 0).float().mean(-1),
    }
    tally.add(watched, torch.tensor(group.lanes, device=index.device))
    return loss.mean(-1)
