"""How a corruption draws the pairs that it hits: from the `View` of all pairs, by sorted keys, to the `Hits`.

Facts are keyed by clean id and stay in the clean orientation. A flip is chosen by the clean facts, so that doing it
twice undoes it; a relabelling or a selection reads them as the pairs are labelled now (`labelled`).

Every fixed-rate kind sorts a key and takes the k smallest, ties broken by id; the key knows neither the rate nor the
order of the rows, so sets are nested in the rate and shards need no quotas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.identity import uniform
from harness.types import InputError, PreferencePair

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

TEXTS = ("prompt_id", "generator_chosen", "generator_rejected")
# Facts of one response text: once a step has replaced the text, the clean value no longer describes the pair.
_OF_TEXT = ("chosen_len", "rejected_len", "delta_ref", "marker_chosen", "marker_rejected")
_MIRROR = {"chosen_len": "rejected_len", "marker_chosen": "marker_rejected"}
_MIRRORED = _MIRROR | {value: key for key, value in _MIRROR.items()}

_LENGTHS = "Provide chosen_len and rejected_len from the tokeniser, or choose unit=words or unit=characters"
_REMEDY = {
    "gold_margin": "Provide gold_margin (or score_chosen and score_rejected, chosen explicitly with gold_from=scores), "
    "or use 'uniform_flip'",
    "chosen_len": _LENGTHS,
    "rejected_len": _LENGTHS,
    "delta_ref": "Pass facts with delta_ref, the reference log-probability of chosen minus that of rejected, in nats",
    "prompt_id": "Provide prompt_id, or pairs with a prompt",
    "marker_chosen": "Provide the columns marker_chosen and marker_rejected, or name a phrase with marker=...",
    "marker_rejected": "Provide the columns marker_chosen and marker_rejected, or name a phrase with marker=...",
    "generator_chosen": "Provide a second set of responses, or use form=mismatched",
    "generator_rejected": "Provide a second set of responses, or use form=mismatched",
}


@dataclass(frozen=True, slots=True)
class View:
    """The input of one step: n pairs with unique `ids`, everything else `(n,)` in the same order.

    `label` is +1 where a pair stands as in the clean set and -1 where it is flipped; `replaced` marks pairs whose text
    an earlier step replaced; `clean_ids` are the ids under which `facts` (name of the fact -> id -> value) knows them.
    Only `eligible` pairs can be hit. `params` has every parameter, defaults filled in.
    """

    kind: str
    seed: int
    rate: float | None
    params: Mapping[str, Any]
    pairs: Sequence[PreferencePair]
    ids: Sequence[str]
    clean_ids: Sequence[str]
    label: npt.NDArray[np.int8]
    replaced: Bools
    eligible: Bools
    facts: Mapping[str, Mapping[str, Any]]

    @property
    def n(self) -> int:
        """Number of pairs before this step."""
        return len(self.ids)


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


def numbers(view: View, name: str) -> Floats:
    """One numeric fact in the clean orientation, `(n,)`, NaN where it is missing. Raises InputError on other values."""
    if name == "gold_margin" and view.params.get("gold_from") == "scores":
        return numbers(view, "score_chosen") - numbers(view, "score_rejected")
    values = _column(view, name)
    try:
        array = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"corruption '{view.kind}': fact '{name}' must hold numbers only") from None
    wrong = np.isinf(array)
    if name.endswith("_len"):
        wrong |= array < 1
    if wrong.any():
        row = int(np.argmax(wrong))
        allowed = "lengths are at least 1" if name.endswith("_len") else "values are finite"
        raise InputError(f"corruption '{view.kind}': {name} of pair '{view.ids[row]}' is {array[row]:g}; {allowed}")
    return array


def labelled(view: View, name: str) -> Floats:
    """One numeric fact of the pairs as labelled now, `(n,)`: flipped pairs negate margins and swap their sides.

    NaN where the fact is missing or an earlier step replaced the text it describes.
    """
    values = numbers(view, name)
    flipped = view.label < 0
    if flipped.any():
        values = np.where(flipped, numbers(view, _MIRRORED[name]) if name in _MIRRORED else -values, values)
    if name in _OF_TEXT:
        values = np.where(view.replaced, np.nan, values)
    return values


def texts(view: View, name: str) -> list[str | None]:
    """One textual fact, n entries, None where it is missing. A prompt without an id is known by its text."""
    values = _column(view, name)
    present = [None if v is None or isinstance(v, float) else str(v) for v in values]
    if name == "prompt_id":
        return [v or pair.prompt or None for v, pair in zip(present, view.pairs, strict=True)]
    return present


def require(view: View, needs: Sequence[str]) -> View:
    """`view` with every needed fact present on its eligible pairs.

    Pairs that lack one are an InputError (kind, fact, how many of n, the remedy), or with `on_missing=exclude` are
    not eligible any more.
    """
    if not needs or not view.n:
        return view
    problems, eligible = [], view.eligible.copy()
    excluding = view.params.get("on_missing") == "exclude"
    for name in needs:
        absent = (
            np.array([v is None for v in texts(view, name)])
            if name in TEXTS
            else np.isnan(labelled(view, name) if name in _OF_TEXT else numbers(view, name))
        ) & view.eligible
        eligible &= ~absent
        if absent.any() and not (excluding and eligible.any()):
            what = "gold margin (from score_chosen and score_rejected)" if _from_scores(view, name) else name
            without = int((absent & view.replaced).sum()) if name in _OF_TEXT else 0
            because = f" ({without:,} had their text replaced by an earlier step)" if without else ""
            first = view.pairs[int(np.argmax(absent))]
            place = f", the first in row {first.meta['row']}" if "row" in first.meta else ""
            problems.append(
                f"corruption '{view.kind}' needs {what}; {int(absent.sum()):,} of {view.n:,} pairs have none"
                f"{because}{place}. {_REMEDY.get(name, f'Pass facts with a column {name}')}."
            )
    if problems:
        raise InputError(*problems)
    return replace(view, eligible=eligible)


def uniforms(view: View, stream: str = "", names: Sequence[str] | None = None) -> Floats:
    """u in (0, 1), one per pair id (or entry of `names`), fixed by (seed, kind, id). `stream` names a second draw."""
    kind = f"{view.kind}:{stream}" if stream else view.kind
    return np.array([uniform(view.seed, kind, name) for name in (view.ids if names is None else names)], np.float64)


def length_sides(view: View) -> tuple[Floats, Floats]:
    """Lengths of chosen and rejected as labelled now, `(n,)` each, in the parameter `unit`."""
    unit = view.params["unit"]
    if unit == "tokens":
        return labelled(view, "chosen_len"), labelled(view, "rejected_len")
    return (
        np.array([_length(pair.chosen, unit) for pair in view.pairs], np.float64),
        np.array([_length(pair.rejected, unit) for pair in view.pairs], np.float64),
    )


def spread(values: Floats) -> float:
    """Standard deviation, summed in sorted order: the same to the last bit whatever the order of the rows."""
    return float(np.std(np.sort(values))) if len(values) else 0.0


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


def _length(text: str, unit: str) -> int:
    return len(text.split()) if unit == "words" else len(text)


def _column(view: View, name: str) -> list[Any]:
    """The fact of every pair: from the table, else from the pair itself, else None."""
    of_clean = view.facts.get(name, {})
    return [
        (pair.gold_margin if name == "gold_margin" else pair.meta.get(name)) if v is None or v != v else v
        for v, pair in zip(map(of_clean.get, view.clean_ids), view.pairs, strict=True)
    ]


def _from_scores(view: View, name: str) -> bool:
    return name == "gold_margin" and view.params.get("gold_from") == "scores"


def _ties(key: Floats) -> int:
    """How many pairs share their finite key with another."""
    _, counts = np.unique(key[np.isfinite(key)], return_counts=True)
    return int(counts[counts > 1].sum())
