"""Constrained RLHF in the loop: a batch of training pairs beside each rollout, a multiplier for every pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.models.lanes import LaneGroup, select
from harness.models.logps import oriented, pair_logps, reference_logps
from harness.rlhf.constrained import violation, visit
from harness.rlhf.lanes import RlTraining
from harness.rlhf.tally import Tally
from harness.types import PairLogps


def stacked_pairs(run: RlTraining) -> tuple[Tensor, Tensor] | None:
    """The pairs that constrain each iteration, and which are labelled the other way, `(iterations, K, B)`."""
    pairs = [own.pairs for own in run.own if own.pairs is not None]
    flipped = [own.flipped for own in run.own if own.flipped is not None]
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
