"""What some objectives need beyond summed log-probs: one row a quantity, computed only where an objective asks for it.

Packs hold objectives of equal needs, so an objective that needs nothing pays nothing. Quantities of the reference come
from a live frozen copy of the starting weights: the stored table has log-probs, no distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.data.rows import CHOSEN, REJECTED

MISMATCHED = "mismatched"  # needs a forward of its own on other rows (`Corpus.mismatched`)


@dataclass(frozen=True, slots=True)
class Scored:
    """Response positions of one forward: next-token log-probs `(n, R, V)` of the policy and, where it is live, of the
    reference; `target`, `side` `(n, R)` as in `data/rows.py`."""

    policy: Tensor
    reference: Tensor | None
    target: Tensor
    side: Tensor


def _picked(logps: Tensor, scored: Scored) -> Tensor:
    return logps.gather(-1, scored.target[..., None]).squeeze(-1)


def _sum(values: Tensor, scored: Scored, side: int) -> Tensor:
    return torch.where(scored.side == side, values, 0.0).sum(-1)


def _mean(values: Tensor, scored: Scored, side: int) -> Tensor:
    count = (scored.side == side).sum(-1).clamp(min=1)
    return _sum(values, scored, side) / count


def log_weight(logps: Tensor, scored: Scored, side: int) -> Tensor:
    """wpo: token mean of log pi(y_t) - log sum_v pi(v)^2 (arXiv 2406.11827 Eq 2)."""
    return _mean(_picked(logps, scored) - (2 * logps).logsumexp(-1), scored, side)


def head(logps: Tensor, scored: Scored, side: int) -> Tensor:
    """ld_dpo: summed log-probs of the first min(n_w, n_l) response tokens (arXiv 2409.06411)."""
    shared = torch.minimum((scored.side == CHOSEN).sum(-1), (scored.side == REJECTED).sum(-1))
    own = scored.side == side
    within = own & (own.cumsum(-1) <= shared[:, None])
    return torch.where(within, _picked(logps, scored), 0.0).sum(-1)


def divergence(logps: Tensor, scored: Scored, side: int) -> Tensor:
    """tdpo: sum over response tokens of KL(reference || policy), nats (arXiv 2404.11999)."""
    assert scored.reference is not None
    return _sum((scored.reference.exp() * (scored.reference - logps)).sum(-1), scored, side)


def entropy_share(logps: Tensor, scored: Scored) -> Tensor:
    """mallows_po: next-token entropy over log V, token mean of each response, then their average, in [0, 1].

    As the authors compute it (arXiv 2405.14953).
    """
    entropy = -(logps.exp() * logps).sum(-1)
    both = _mean(entropy, scored, CHOSEN) + _mean(entropy, scored, REJECTED)
    return both / (2 * math.log(logps.shape[-1]))


Quantity = Callable[[Tensor, Scored], Tensor]
_SIDES = {"chosen": CHOSEN, "rejected": REJECTED}


def _both(name: str, function: Callable[..., Tensor]) -> dict[str, Quantity]:
    return {f"{label}_{name}": partial(function, side=side) for label, side in _SIDES.items()}


# Keys of `PairLogps.extra` by whose distributions they are computed from.
POLICY: Mapping[str, Quantity] = _both("log_weight", log_weight) | _both("head", head) | _both("kl", divergence)
REFERENCE: Mapping[str, Quantity] = _both("head", head) | {"entropy_share": entropy_share}
LIVE = frozenset({*REFERENCE, "chosen_kl", "rejected_kl", MISMATCHED})  # what needs the reference in the step


def compute(needs: frozenset[str], scored: Scored) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The extras `(n,)` of policy and reference for one forward, `mismatched` left out."""
    policy = {name: POLICY[name](scored.policy, scored) for name in sorted(needs) if name in POLICY}
    if scored.reference is None:
        return policy, {}
    own = scored.reference
    return policy, {name: REFERENCE[name](own, scored) for name in sorted(needs) if name in REFERENCE}
