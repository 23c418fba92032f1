"""Kinds that change which rows there are (near_tie also has a form that relabels). No text is new, no label is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from harness.corruptions.select import Hits, chosen_by, half_up, hits, in_order, smallest, weighted_key
from harness.corruptions.view import Floats, View, labelled, length_sides, numbers, uniforms
from harness.types import InputError


def contradictory_dup(view: View) -> Hits:
    """Append flipped copies of the k pairs with the smallest u; a copy's id is `<id>#dup`, originals stay in place."""
    u = uniforms(view)
    found = smallest(view, u, "append", {"u": u})
    swapped = [(view.pairs[i].rejected, view.pairs[i].chosen) for i in found.index.tolist()]
    return replace(found, texts=swapped)


def near_tie(view: View) -> Hits:
    """Near ties: the floor(quantile n + 1/2) pairs with the smallest absolute gold margin, or all pairs up to `tau`.

    form=coin gives each a fair coin as label (`relabel_same` where it stays, 2111.03026); form=filter drops all others.
    """
    margin = np.abs(numbers(view, "gold_margin"))
    order = in_order(view.ids, margin, np.flatnonzero(view.eligible))
    if "tau" in view.params:
        k = int((margin[order] <= float(view.params["tau"])).sum())
    else:
        k = half_up(float(view.params["quantile"]), len(order))
    columns: dict[str, Any] = {"key": margin, "gold_margin": numbers(view, "gold_margin")}
    if view.params["form"] == "filter":
        far = np.zeros(view.n, dtype=bool)
        far[order[k:]] = True
        return hits(chosen_by(view, far), "drop", columns)
    u = uniforms(view)
    columns |= {"u": u, "probability": np.full(view.n, 0.5)}
    actions = ["flip" if u[i] < 0.5 else "relabel_same" for i in order[:k].tolist()]
    return hits(order[:k], actions, columns, ranked=True)


def mnar(view: View) -> Hits:
    """Drop pairs with probability sigmoid(a + b x), or an exact rate with that weight.

    x is the gold margin, the total length of both responses, or delta_ref, as labelled now and in its own unit.
    """
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


def curate_drop(view: View) -> Hits:
    """Drop the k pairs whose label the reference distrusts most: smallest delta_ref as labelled now (nats)."""
    delta = labelled(view, "delta_ref")
    return smallest(view, delta, "drop", {"delta_ref": delta})


def _reweight(view: View, delta: Floats, order: Any, falling: Floats, aim: float) -> Hits:
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
