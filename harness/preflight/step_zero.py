"""What needs the model: log-probs before the first step, and losses there against their closed forms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.rows import TokenisedPair, pack_rows
from harness.models.architecture import Architecture, skeleton
from harness.models.lane_model import build_lanes
from harness.models.logps import build_corpus, pair_logps
from harness.objectives import OBJECTIVES
from harness.objectives.budget import family
from harness.objectives.row import Objective, StepZero
from harness.preflight.row import Finding, Reference
from harness.types import ObjectiveSpec, PairLogps

BATCH = 8  # pairs a forward, of about one length: memory of a large model's logits
ULPS = 64  # units in the last place of float32 that a loss of some ten operations may lose


def live_logps(
    architecture: Architecture, weights: Tensor, pairs: Sequence[TokenisedPair], device: torch.device
) -> np.ndarray:
    """Log-probs `(n, 2)` in nats of both responses under the weights `(P,)`, as training computes them."""
    model = build_lanes(skeleton(architecture), [weights], device)
    found = np.zeros((len(pairs), 2), np.float32)
    lengths = [len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs]
    by_length = np.argsort(lengths, kind="stable").tolist()
    with torch.no_grad():
        for start in range(0, len(pairs), BATCH):
            part = by_length[start : start + BATCH]
            corpus = build_corpus([pack_rows([pairs[i] for i in part])], None, device)
            logps = pair_logps(model, corpus, torch.arange(len(part), device=device)[None])
            found[part] = torch.stack([logps.chosen[0], logps.rejected[0]], -1).float().cpu().numpy()
    return found


def loss_rounding(
    row: Objective, hyperparameters: Iterable[tuple[str, Any]], at: PairLogps, rounding: Tensor
) -> Tensor:
    """How far rounding may move each pair's loss at step 0, where policy and reference both have the log-probs `at`.

    `rounding` `(..., B, 2)` is how far, in nats, the log-prob of each response may be off. The row's own loss is
    evaluated with both log-probs moved by that much, up and down, first of the policy and then of the reference; the
    largest changes add up. A row that multiplies log-ratios by 50 gets 50 times the tolerance of DPO.
    """
    given = dict(hyperparameters)
    still = row.loss(at, at, **given).loss
    moved = [
        replace(at, chosen=at.chosen + up * rounding[..., 0], rejected=at.rejected + down * rounding[..., 1])
        for up, down in product((-1, 1), repeat=2)
    ]
    policy = torch.stack([row.loss(other, at, **given).loss - still for other in moved])
    reference = torch.stack([row.loss(at, other, **given).loss - still for other in moved])
    return policy.abs().amax(0) + reference.abs().amax(0)


def closed_forms(reference: Reference, objectives: Iterable[ObjectiveSpec], place: str) -> list[Finding]:
    """Losses where the policy is the reference, against their closed forms in the table of objectives.

    Objectives without a closed form, or that read more than summed log-probs, are passed over.
    """
    stored, lengths = (torch.from_numpy(np.asarray(one)).float() for one in (reference.stored, reference.lengths))
    at = PairLogps(stored[:, 0], stored[:, 1], lengths[:, 0], lengths[:, 1])
    exact = PairLogps(at.chosen.double(), at.rejected.double(), at.chosen_len.double(), at.rejected_len.double())
    ulps = ULPS * torch.finfo(torch.float32).eps
    rounding = ulps * stored.double().abs()
    pairs = [StepZero(*map(float, row)) for row in torch.cat([stored, lengths], 1).tolist()]
    findings = []
    for spec in dict.fromkeys(objectives):
        row = OBJECTIVES.get(spec.name)
        if row is None or row.step0 is None or row.needs or family(spec) in ("rl", "reward"):
            continue
        own = {name: row.hyperparameters[name].default for name in row.hyperparameters} | dict(spec.hyperparameters)
        loss = row.loss(at, at, **dict(spec.hyperparameters)).loss.double().numpy()
        closed = np.array([row.step0(own, pair) for pair in pairs])
        moved = loss_rounding(row, spec.hyperparameters, exact, rounding).numpy()
        off = ~(np.abs(loss - closed) <= moved + ulps * np.maximum(1.0, np.abs(closed)))
        if off.any():
            first = int(np.flatnonzero(off)[0])
            text = (
                f"objective '{spec.name}' has the loss {loss[first]:.6g} where policy and reference are equal; its "
                f"closed form is {closed[first]:.6g}"
            )
            fix = "do not train with it; this is a fault of the objective, not of the data"
            findings.append(Finding("error", "closed_forms", text, place, (), "objectives", fix))
    return findings
