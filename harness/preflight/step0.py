"""Before the first step: the policy is the reference, so log-probs must agree and losses have known values."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from harness.measure.statistics import wilson
from harness.preflight.finding import Evidence, Finding, row_numbers

# How far two forwards of one model may differ, in nats for a response of n tokens: TOLERANCE * sqrt(n) + that share of
# the log-prob. Rounding of fp32 is some 1e-5 a response; bf16 keeps 8 bits, so single tokens move by some 0.02.
TOLERANCE = {"float32": (1e-3, 1e-5), "bfloat16": (5e-2, 5e-3)}


def policy_is_reference(e: Evidence) -> list[Finding]:
    """The policy's log-probs before its first step are the stored reference's, within the rounding of the dtype."""
    if e.reference is None:
        return []
    stored, live = e.reference.stored, e.reference.live
    absolute, relative = TOLERANCE[e.reference.dtype]
    lengths = np.array(
        [[len(e.text.tokens[i].chosen), len(e.text.tokens[i].rejected)] for i in e.reference.ids], dtype=np.float64
    )
    allowed = absolute * np.sqrt(lengths) + relative * np.abs(stored)
    off = ~(np.abs(stored - live) <= allowed)  # NaN is off, too
    if not off.any():
        return []
    worst = float(np.nanmax(np.abs(stored - live))) if np.isfinite(stored - live).any() else math.nan
    by_id = {pair.id: pair for pair in e.pairs}
    wrong = [by_id[i] for i, bad in zip(e.reference.ids, off.any(axis=1), strict=True) if bad]
    text = (
        f"the policy before its first step is not the reference: {len(wrong)} of {len(e.reference.ids)} pairs differ, "
        f"by up to {worst:.3g} nats where {float(allowed.max()):.2g} is the rounding of {e.reference.dtype}"
    )
    fix = "remove the cache of references under --out, and check that policy and reference are one model"
    return [Finding("error", "policy_is_reference", text, e.place, row_numbers(wrong), "", fix, len(wrong))]


def assumption(e: Evidence) -> list[Finding]:
    """The share of training pairs that the reference orders the other way: a PROXY for what objectives assume.

    delta_ref < 0 says that the reference disagrees with the label, which may be its fault or the label's.
    """
    if e.reference is None:
        return []
    train = {pair.id for pair in e.text.train}
    own = np.array([i in train for i in e.reference.ids], dtype=bool)
    delta = (e.reference.stored[:, 0] - e.reference.stored[:, 1])[own]
    if not len(delta):
        return []
    share = wilson(float((delta < 0).sum()), len(delta))
    text = (
        f"the reference gives the rejected response the higher log-prob in {share.mean:.1%} of {len(delta)} training "
        f"pairs looked at (95 % interval {share.low:.1%} to {share.high:.1%}): a proxy for wrong labels or a "
        "misaligned reference, it cannot say which"
    )
    return [Finding("note", "assumption", text, e.place, (), "chosen")]


def closed_forms(e: Evidence, losses: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> list[Finding]:
    """Losses where policy and reference are equal, against closed forms: (objective, loss `(n,)`, closed `(n,)`)."""
    findings = []
    for name, loss, closed in losses:
        off = np.abs(loss - closed) > 1e-4 * np.maximum(1.0, np.abs(closed))
        if off.any() or not np.isfinite(loss).all():
            at = int(np.flatnonzero(off | ~np.isfinite(loss))[0])
            text = f"objective '{name}' has the loss {loss[at]:.6g} at step 0 where its closed form is {closed[at]:.6g}"
            findings.append(Finding("error", "closed_forms", text, e.place, (), "", "report this: the loss is wrong"))
    return findings
