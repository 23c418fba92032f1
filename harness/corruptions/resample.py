"""Kinds that change which pairs there are: copies with the other label, pairs dropped or drawn again; no new text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from harness.corruptions.draw import (
    Floats,
    Hits,
    View,
    chosen_by,
    hits,
    in_order,
    labelled,
    length_sides,
    smallest,
    uniforms,
    weighted_key,
)
from harness.corruptions.row import GOLDEN, MISSING, MODE, UNIT, Corruption, Params, by_severity, lengths_needed
from harness.types import InputError, Parameter


def contradictory_dup(view: View) -> Hits:
    """Append flipped copies of the k pairs with the smallest u; a copy's id is `<id>#dup`, originals stay in place."""
    u = uniforms(view)
    hit = smallest(view, u, "append", {"u": u})
    return replace(hit, texts=[(view.pairs[i].rejected, view.pairs[i].chosen) for i in hit.index.tolist()])


CONTRADICTORY_DUP = Corruption(
    name="contradictory_dup", function=contradictory_dup, rate="fixed", changes="rows", laws="CN",
    rank="smallest u",
    summary="append flipped copies (id `<id>#dup`) of a share of pairs",
    parameters={"mode": MODE},
    severities=by_severity(0.05, 0.2, 0.5),
)  # fmt: skip


def ref_shift(view: View) -> Hits:
    """Lower the mean reference margin (delta_ref as labelled now) by `shift` nats; labels and reference stay.

    select: drop the pairs with the largest delta_ref, as few as do it. reweight: draw each pair about n w times (its
    floor or the next whole number, by u) with w proportional to exp(-t delta_ref) and t solved for the shift.
    Raises InputError where no choice of pairs lowers the mean that far.
    """
    delta = labelled(view, "delta_ref")
    shift = float(view.params["shift"])
    order = in_order(view.ids, -delta, np.flatnonzero(view.eligible))
    falling = delta[order]
    if shift == 0 or not len(falling):
        return hits(order[:0], "drop", {"delta_ref": delta})
    aim = float(falling.mean()) - shift
    if falling[-1] > aim:
        reach = float(falling.mean() - falling[-1])
        raise InputError(
            f"corruption 'ref_shift': shift {shift:g} nats is out of reach: the mean delta_ref is "
            f"{falling.mean():.4g} and the smallest {falling[-1]:.4g}; use a shift below {reach:.4g}"
        )
    if view.params["form"] == "select":
        # Mean of what is left after dropping the first j, for j = 0..n-1: non-increasing.
        left = np.cumsum(falling[::-1])[::-1] / np.arange(len(falling), 0, -1)
        j = min(int(np.argmax(left <= aim)) if (left <= aim).any() else len(falling) - 1, len(falling) - 1)
        stats = {"delta_ref_mean_before": float(falling.mean()), "delta_ref_mean_after": float(left[j])}
        columns = {"key": -delta, "delta_ref": delta}
        return hits(order[:j], "drop", columns, ranked=True, stats=stats)
    return _reweight(view, delta, order, falling, aim)


def _reweight(view: View, delta: Floats, order: Any, falling: Floats, aim: float) -> Hits:
    from scipy.optimize import brentq

    centred = falling - falling[-1]

    def weights(t: float) -> Floats:
        raw = np.exp(-t * centred)
        return np.asarray(raw / raw.sum())

    def excess(t: float) -> float:
        return float(weights(t) @ falling) - aim

    high = 1.0
    while excess(high) > 0 and high < 1e9:
        high *= 2.0
    share = weights(float(brentq(excess, 0.0, high))) if excess(high) <= 0 else weights(high)
    expected = np.zeros(view.n)
    expected[order] = share * len(order)
    u = uniforms(view)
    copies = np.ones(view.n, dtype=np.int64)
    copies[order] = (np.floor(expected) + (u < expected - np.floor(expected)))[order].astype(np.int64)
    index = chosen_by(view, copies != 1)
    stats = {
        "delta_ref_mean_before": float(falling.mean()),
        "delta_ref_mean_after": float(delta[order] @ copies[order] / max(1, int(copies[order].sum()))),
        "effective_sample_size": float(1.0 / (share @ share)),
    }
    columns = {"u": u, "weight": expected, "delta_ref": delta}
    return hits(index, "reweight", columns, copies=copies[index].tolist(), stats=stats)


REF_SHIFT = Corruption(
    name="ref_shift", function=ref_shift, rate="derived", changes="rows", laws="D",
    rank="largest reference margin dropped first",
    summary="lower the mean reference margin by dropping pairs (form=select) or by resampling them under "
    "exponential weights (form=reweight); the reference itself is untouched",
    citation="2605.20834; 2602.11902",
    parameters={
        "shift": Parameter(1.0, low=0.0, search=(0.0, 8.0), doc="nats by which the mean delta_ref falls"),
        "form": Parameter(
            "select", "choice", choices=("select", "reweight"), doc="drop pairs, or resample them by weight"
        ),
        "on_missing": MISSING,
    },
    needs=("delta_ref",),
    set_by="shift",
    neutral=({"shift": 0},),
    severities=by_severity(1.0, 4.0, 8.0, "shift"),
)  # fmt: skip


def mnar(view: View) -> Hits:
    """Drop pairs with probability sigmoid(a + b x), or an exact rate with that weight.

    x is the gold margin, the total length of both responses, or delta_ref, as labelled now and in its own unit.
    """
    from scipy.special import expit

    on = view.params["on"]
    columns: dict[str, Any] = {}
    if on == "length":
        chosen, rejected = length_sides(view)
        value, columns["delta_len"] = chosen + rejected, chosen - rejected
    else:
        value = columns[on] = labelled(view, on)
    p = expit(float(view.params["a"]) + float(view.params["b"]) * value)
    u = uniforms(view)
    columns["u"] = u
    if view.params["form"] == "rate":
        weight = np.where(view.eligible, p, 0.0)
        return smallest(view, weighted_key(u, weight), "drop", {**columns, "weight": weight})
    return hits(chosen_by(view, u < p), "drop", {**columns, "probability": p})


def _mnar_needs(params: Params) -> tuple[str, ...]:
    on = params.get("on", "gold_margin")
    return lengths_needed(params) if on == "length" else (on,)


MNAR = Corruption(
    name="mnar", function=mnar, rate="derived", changes="rows", laws="D", rated_laws="CN",
    rank="P(drop) = sigmoid(a + b * value)",
    summary="drop pairs not at random: by gold margin, by total response length or by reference margin; "
    "form=rate drops an exact share with that probability as weight",
    parameters={
        "a": Parameter(-2.0, doc="log-odds of a drop where the value is 0; larger: more pairs dropped"),
        "b": Parameter(1.0, doc="log-odds added per unit of the value; above 0: large values go"),
        "on": Parameter("gold_margin", "choice", choices=("gold_margin", "length", "delta_ref"), doc="the value"),
        "unit": UNIT,
        "form": Parameter("logit", "choice", choices=("logit", "rate"), doc="derive the rate from a and b, or set it"),
        "mode": MODE,
        **GOLDEN,
    },
    needs=_mnar_needs,
    set_by="a and b",
    severities={
        "mild": {"form": "rate", "rate": 0.1},
        "moderate": {"form": "rate", "rate": 0.3},
        "severe": {"form": "rate", "rate": 0.5},
    },
)  # fmt: skip


ROWS = (CONTRADICTORY_DUP, REF_SHIFT, MNAR)
