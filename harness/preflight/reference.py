"""Before the first step: the policy is the reference, so log-probs must agree and losses have known values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.rows import TokenisedPair, pack_rows
from harness.metrics.statistics import wilson
from harness.models.architecture import Architecture, skeleton
from harness.models.lane_model import build_lanes
from harness.models.logps import build_corpus, pair_logps
from harness.objectives import OBJECTIVES
from harness.objectives.budget import family
from harness.objectives.row import Objective, StepZero
from harness.preflight.row import Evidence, Finding, Reference, row_numbers
from harness.types import ObjectiveSpec, PairLogps

# How far two forwards of one model may differ, in nats for a response of n tokens: TOLERANCE * sqrt(n) + that share of
# the log-prob. Rounding of fp32 is some 1e-5 a response; bf16 keeps 8 bits, so single tokens move by some 0.02.
TOLERANCE = {"float32": (1e-3, 1e-5), "bfloat16": (5e-2, 5e-3)}


def policy_is_reference(e: Evidence) -> list[Finding]:
    """The policy's log-probs before its first step are the stored reference's, within the rounding of the dtype."""
    return [] if e.reference is None else differing(e.reference, e.place)


def differing(reference: Reference, place: str) -> list[Finding]:
    """The pairs of a source whose two log-probs differ by more than rounding; NaN does."""
    absolute, relative = TOLERANCE[reference.dtype]
    allowed = absolute * np.sqrt(reference.lengths) + relative * np.abs(reference.stored)
    distance = np.abs(reference.stored - reference.live)
    off = ~(distance <= allowed)
    if not off.any():
        return []
    worst = float(np.nanmax(distance)) if np.isfinite(distance).any() else math.nan
    wrong = [pair for pair, bad in zip(reference.pairs, off.any(axis=1), strict=True) if bad]
    text = (
        f"the policy before its first step is not the reference: {len(wrong)} of {len(reference.pairs)} pairs differ, "
        f"by up to {worst:.3g} nats where {float(allowed.max()):.2g} is the rounding of {reference.dtype}"
    )
    fix = "remove the cache of references under --out, and check that policy and reference are one model"
    # In bf16 a few pairs are off by chance where logits are large; a wrong reference is off in most.
    by_chance = reference.dtype != "float32" and 2 * len(wrong) <= len(reference.pairs)
    severity = "warning" if by_chance else "error"
    return [Finding(severity, "policy_is_reference", text, place, row_numbers(wrong), "reference", fix, len(wrong))]


def assumption(e: Evidence) -> list[Finding]:
    """The share of training pairs that the reference orders the other way: a PROXY for what objectives assume.

    delta_ref < 0 says that the reference disagrees with the label, which may be its fault or the label's.
    """
    if e.reference is None:
        return []
    delta = e.reference.of(e.text.train)
    if not len(delta):
        return []
    share = wilson(float((delta < 0).sum()), len(delta))
    text = (
        f"the reference gives the rejected response the higher log-prob in {share.mean:.1%} of {len(delta)} training "
        f"pairs looked at (95 % interval {share.low:.1%} to {share.high:.1%}): a proxy for wrong labels or a "
        "misaligned reference, it cannot say which"
    )
    return [Finding("note", "assumption", text, e.place, (), "chosen")]


BATCH = 8  # pairs a forward: memory of a large model's logits
ULPS = 64  # units in the last place of float32 that a loss of some ten operations may lose


def live_logps(
    architecture: Architecture, weights: Tensor, pairs: Sequence[TokenisedPair], device: torch.device
) -> np.ndarray:
    """Log-probs `(n, 2)` in nats of both responses under the weights `(P,)`, as training computes them."""
    model = build_lanes(skeleton(architecture), [weights], device)
    corpus = build_corpus([pack_rows(pairs)], None, device)
    found = []
    with torch.no_grad():
        for start in range(0, len(pairs), BATCH):
            index = torch.arange(start, min(start + BATCH, len(pairs)), device=device)[None]
            logps = pair_logps(model, corpus, index)
            found.append(torch.stack([logps.chosen[0], logps.rejected[0]], -1).float().cpu().numpy())
    return np.concatenate(found)


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
