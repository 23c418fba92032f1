"""Who is hit: keys, exact counts and the record of the choice.

Every fixed-rate kind sorts a key and takes the k smallest, ties broken by id; the key knows neither the rate nor the
order of the rows, so sets are nested in the rate and shards need no quotas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.corruptions.view import Floats, Ints, View, uniforms
from harness.types import InputError


@dataclass(frozen=True, slots=True)
class Hits:
    """What a kind decided about m pairs.

    `index` (m,) are positions in the view, in rank order where `ranked`. `action` is one word for all or one each.
    `columns` are ledger columns (m,). `texts` are the new (chosen, rejected) of replaced, truncated and appended
    rows; `copies` how often a reweighted row stands in the new set. `target` is the k aimed at, in `unit`s.
    """

    index: Ints
    action: str | Sequence[str]
    columns: Mapping[str, Any] = field(default_factory=dict)
    texts: Sequence[tuple[str, str]] | None = None
    copies: Sequence[int] | None = None
    ranked: bool = False
    target: int | None = None
    reached: int | None = None
    unit: str = "pairs"
    ties: int = 0
    stats: Mapping[str, Any] = field(default_factory=dict)


def hits(index: Ints, action: str | Sequence[str], columns: Mapping[str, Any], **more: Any) -> Hits:
    """Hits of the pairs at `index`; `columns` are given for all n pairs and cut to those hit."""
    return Hits(index, action, {name: np.asarray(values)[index] for name, values in columns.items()}, **more)


def half_up(share: float, n: int) -> int:
    """floor(share * n + 1/2): halves round up, unlike Python's `round`."""
    return math.floor(share * n + 0.5)


def target(view: View, u: Floats, n: int | None = None) -> int:
    """How many are to be hit: exactly floor(rate n + 1/2) of the eligible, or in mode `bernoulli` how many u < rate.

    Counting draws keeps the bernoulli sets nested too, for every key: k grows with the rate and the k smallest are hit.
    `u` must hold the eligible units only.
    """
    assert view.rate is not None
    if view.params.get("mode") == "bernoulli":
        return int((u < view.rate).sum())
    return half_up(view.rate, len(u) if n is None else n)


def in_order(names: Sequence[str], key: Floats, among: Ints) -> Ints:
    """Positions `among` sorted by key, ties by name."""
    keys = key.tolist()
    return np.array(sorted(among.tolist(), key=lambda i: (keys[i], names[i])), dtype=np.int64)


def smallest(view: View, key: Floats, action: str, columns: Mapping[str, Any] | None = None, **more: Any) -> Hits:
    """The k eligible pairs with the smallest key, as `Hits` with the columns u, key and rank. Infinite: never hit.

    Raises InputError where fewer than k pairs have a finite key.
    """
    u: Floats = columns["u"] if columns is not None and "u" in columns else uniforms(view)
    among = np.flatnonzero(view.eligible)
    k = target(view, u[among])
    order = in_order(view.ids, key, among)
    possible = int(np.isfinite(key[among]).sum())
    if k > possible:
        raise InputError(
            f"corruption '{view.kind}': rate {view.rate:g} asks for {k:,} pairs, but only {possible:,} of "
            f"{len(among):,} have a positive weight; lower rate or change what sets the weights"
        )
    columns = {**(columns or {}), "u": u, "key": key}
    return hits(order[:k], action, columns, ranked=True, target=k, ties=_ties(key[among]), **more)


def weighted_key(u: Floats, weight: Floats) -> Floats:
    """-log(u) / w: the k smallest are a weighted draw without replacement (Efraimidis and Spirakis 2006)."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(-np.log(u) / weight)


def chosen_by(view: View, hit: Any) -> Ints:
    """Positions of the eligible pairs where `hit` is true, sorted by id: the order of derived-rate ledgers."""
    among = np.flatnonzero(view.eligible & np.asarray(hit, dtype=bool))
    return np.array(sorted(among.tolist(), key=view.ids.__getitem__), dtype=np.int64)


def _ties(key: Floats) -> int:
    """How many pairs share their finite key with another."""
    _, counts = np.unique(key[np.isfinite(key)], return_counts=True)
    return int(counts[counts > 1].sum())
