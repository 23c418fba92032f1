"""What one step of a corruption sees: the pairs as they stand, their clean facts, and the draws that decide.

Facts are keyed by clean id and stay in the clean orientation. A flip is chosen by the clean facts, so that doing it
twice undoes it; a relabelling or a selection reads them as the pairs are labelled now (`labelled`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

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

    `label` is +1 where a pair stands as in the clean set and -1 where it is flipped; `changed` marks pairs whose text
    an earlier step replaced; `fact_ids` are the clean ids under which `facts` (indexed by id) knows them. Only
    `eligible` pairs can be hit. `params` has every parameter, defaults filled in.
    """

    kind: str
    seed: int
    rate: float | None
    params: Mapping[str, Any]
    pairs: Sequence[PreferencePair]
    ids: Sequence[str]
    fact_ids: Sequence[str]
    label: npt.NDArray[np.int8]
    changed: Bools
    eligible: Bools
    facts: pd.DataFrame

    @property
    def n(self) -> int:
        """Number of pairs before this step."""
        return len(self.ids)


def as_facts(facts: Any) -> pd.DataFrame:
    """`facts` as a frame indexed by clean id (text). Accepts a frame with column or index `id`, or `{id: {...}}`.

    Raises InputError for another form, or where an id stands twice.
    """
    if facts is None:
        return pd.DataFrame(index=pd.Index([], dtype=object))
    if isinstance(facts, Mapping):
        by_id = bool(facts) and all(isinstance(value, Mapping) for value in facts.values())
        facts = pd.DataFrame.from_dict(dict(facts), orient="index") if by_id else pd.DataFrame(dict(facts))
    if not isinstance(facts, pd.DataFrame):
        raise InputError(f"facts: expected a table with a column 'id', got {type(facts).__name__}")
    table = facts.set_index("id") if "id" in facts.columns else facts
    # Plain Python texts: iterating Arrow-backed ones costs more than the look-ups they are for.
    table = table.set_axis(pd.Index(table.index.tolist(), dtype=object), axis="index")
    table = table.astype({name: object for name in TEXTS if name in table.columns})
    if len(table) and not all(isinstance(i, str) for i in table.index):
        raise InputError("facts: no column 'id' with the clean ids of the pairs; add one")
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise InputError(f"facts: {len(twice)} ids appear more than once, the first is {twice[0]!r}; keep one row each")
    return table


def numbers(view: View, name: str) -> Floats:
    """One numeric fact in the clean orientation, `(n,)`, NaN where it is missing. Raises InputError on other values."""
    if name == "gold_margin" and view.params.get("gold_from") == "scores":
        return numbers(view, "score_chosen") - numbers(view, "score_rejected")
    values = _column(view, name)
    try:
        array = np.array([np.nan if v is None or v is pd.NA else v for v in values], dtype=np.float64)
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
        values = np.where(view.changed, np.nan, values)
    return values


def texts(view: View, name: str) -> list[str | None]:
    """One textual fact, n entries, None where it is missing. A prompt without an id is known by its text."""
    values = _column(view, name)
    found = [None if v is None or v is pd.NA or isinstance(v, float) else str(v) for v in values]
    if name == "prompt_id":
        return [v or pair.prompt or None for v, pair in zip(found, view.pairs, strict=True)]
    return found


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
            replaced = int((absent & view.changed).sum()) if name in _OF_TEXT else 0
            because = f" ({replaced:,} had their text replaced by an earlier step)" if replaced else ""
            problems.append(
                f"corruption '{view.kind}' needs {what}; {int(absent.sum()):,} of {view.n:,} pairs have none"
                f"{because}. {_REMEDY.get(name, f'Pass facts with a column {name}')}."
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


def _length(text: str, unit: str) -> int:
    return len(text.split()) if unit == "words" else len(text)


def _column(view: View, name: str) -> list[Any]:
    """The fact of every pair: from the table, else from the pair itself, else None."""
    values: list[Any] = [None] * view.n
    if name in view.facts.columns:
        table = dict(zip(view.facts.index, view.facts[name].tolist(), strict=True))
        values = [table.get(i) for i in view.fact_ids]
    return [
        (pair.gold_margin if name == "gold_margin" else pair.meta.get(name)) if v is None or v is pd.NA or v != v else v
        for v, pair in zip(values, view.pairs, strict=True)
    ]


def _from_scores(view: View, name: str) -> bool:
    return name == "gold_margin" and view.params.get("gold_from") == "scores"
