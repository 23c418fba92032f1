"""Checks before step one: policy and reference agree, and how often the reference contradicts the labels."""

from __future__ import annotations

import math

import numpy as np

from harness.metrics.statistics import wilson
from harness.preflight.row import Check, Evidence, Finding, Reference, row_numbers

# How far two forwards of one model may differ, in nats for a response of n tokens: TOLERANCE * sqrt(n) + that share of
# the log-prob. Rounding of fp32 is some 1e-5 a response; bf16 keeps 8 bits, so single tokens move by some 0.02.
TOLERANCE = {"float32": (1e-3, 1e-5), "bfloat16": (5e-2, 5e-3)}


def policy_is_reference(e: Evidence) -> list[Finding]:
    """The reference's log-probs as training computes them are the stored ones, within the rounding of the dtype.

    They are the policy's before its first step unless the spec names another reference.
    """
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
    if reference.file:
        text = (
            f"{reference.file} holds other log-probs than the reference gives: {len(wrong)} of {len(reference.pairs)} "
            f"pairs differ, by up to {worst:.3g} nats where {float(allowed.max()):.2g} is the rounding of "
            f"{reference.dtype}"
        )
        fix = "name the model that was scored as model.reference, or score the pairs again (model.reference_logps)"
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


ROWS = (
    Check("policy_is_reference", "policy and reference before the first step", policy_is_reference),
    Check("assumption", "pairs that the reference ranks the other way", assumption),
)
