"""A corruption applied: the steps of one or of a sequence, and the `Corrupted` set they leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.corruptions.draw import Bools, Hits, Ints, View, require, texts
from harness.corruptions.ledger import (
    COLUMNS,
    as_ledger,
    gold_source,
    ids_hash,
    perform,
    rewritten,
    row_hash,
    set_hash,
    step_manifest,
)
from harness.corruptions.registry import SEQUENCE, resolve, settle
from harness.identity import plain
from harness.types import CorruptionSpec, InputError, PreferencePair

Labels = npt.NDArray[np.int8]
Step = tuple[str, float | None, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Corrupted:
    """A corrupted set of n pairs and what the corruption knows of each; all fields `(n,)` in the order of `pairs`.

    `origin` are positions in the clean set. `label` is +1 where a pair is oriented as the clean pair it comes from and
    -1 where it is turned. `changed` marks pairs whose texts are no longer those of the clean pair, so that they need
    reference log-probs of their own. `kind` names the corruption that touched a pair last, "" for none.
    """

    pairs: tuple[PreferencePair, ...]
    origin: Ints
    label: Labels
    changed: Bools
    kind: tuple[str, ...]
    ledger: pd.DataFrame | None  # None: nothing was asked for


def apply_spec(spec: CorruptionSpec, pairs: Sequence[PreferencePair], seed: int, facts: Any = None) -> Corrupted:
    """One resolved cell of a spec applied to `pairs`; `none` leaves them as they are, without a ledger."""
    if spec.kind == "none":
        n = len(pairs)
        return Corrupted(tuple(pairs), np.arange(n), np.ones(n, np.int8), np.zeros(n, bool), ("",) * n, None)
    return apply(pairs, spec.kind, spec.rate, seed, facts, dict(spec.params))


def apply(
    pairs: Sequence[PreferencePair],
    kind: str,
    rate: float | None,
    seed: int,
    facts: Any,
    params: Mapping[str, Any],
) -> Corrupted:
    """`harness.corruptions.corrupt`, with everything that is known of the outcome."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise InputError(f"corruption '{kind}': seed must be a whole number, got {seed!r}")
    seed = index(seed)
    steps = _sequence(rate, params) if kind == SEQUENCE else [(kind, rate, params)]
    settled = [settle(name, share, values) for name, share, values in steps]
    table, (clean, renamed) = _as_facts(facts), _unique_ids(pairs)
    first = state = _clean_state(clean)
    touched: set[str] = set()
    ledgers: list[dict[str, list[Any]]] = []
    manifests: list[dict[str, Any]] = []
    for number, (row, share, values) in enumerate(settled):
        view = View(
            kind=row.name,
            seed=seed,
            rate=share,
            params=values,
            pairs=state.pairs,
            ids=[pair.id for pair in state.pairs],
            clean_ids=[clean[i].id for i in state.origin],
            label=np.array(state.label, np.int8),
            replaced=np.array(state.replaced, bool),
            eligible=np.ones(len(state.pairs), dtype=bool),
            facts=table,
        )
        view = require(view, row.needs_of(values))
        hits = row.function(view)
        state, columns, masked, counts = _step(state, view, hits, number)
        counts |= {"gold_source": gold_source(view, hits), "n_duplicate_ids": renamed, "eval_hash": None}
        manifests.append({**step_manifest(view, hits, counts), "composition": []})
        ledgers.append(columns)
        touched |= set(masked)
    manifest = manifests[0]
    if kind == SEQUENCE:
        manifest = _sequence_manifest(steps, manifests, first, state, touched)
    ledger = as_ledger({name: [v for part in ledgers for v in part[name]] for name in COLUMNS}, plain(manifest))
    changed = [
        replaced and (pair.chosen, pair.rejected) != _sides(clean[i], label)
        for pair, i, label, replaced in zip(state.pairs, state.origin, state.label, state.replaced, strict=True)
    ]
    return Corrupted(
        tuple(state.pairs),
        np.array(state.origin, np.int64),
        np.array(state.label, np.int8),
        np.array(changed, bool),
        tuple(state.kind),
        ledger,
    )


@dataclass(frozen=True, slots=True)
class _State:
    """The pairs between two steps; all `(n,)` in one order, the meaning of fields as in `Corrupted`."""

    pairs: list[PreferencePair]
    origin: list[int]
    label: list[int]
    replaced: list[bool]  # a step replaced the text: facts of the clean text no longer hold
    kind: list[str]
    hashes: list[str]
    content: str  # the hash of the whole set


def _clean_state(pairs: list[PreferencePair]) -> _State:
    n, hashes = len(pairs), [row_hash(pair) for pair in pairs]
    return _State(pairs, list(range(n)), [1] * n, [False] * n, [""] * n, hashes, set_hash(pairs, hashes))


def _step(
    state: _State, view: View, hits: Hits, number: int
) -> tuple[_State, dict[str, list[Any]], list[str], dict[str, Any]]:
    """The state after the hits, their ledger columns, the ids that count as corrupted, and counts of the manifest."""
    hit, m = hits.index.tolist(), len(hits.index)
    actions = [hits.action] * m if isinstance(hits.action, str) else list(hits.action)
    new = list(hits.texts) if hits.texts is not None else [(None, None)] * m
    copies = list(hits.copies) if hits.copies is not None else [None] * m
    taken = set(view.ids)
    new_ids = [
        _fresh(f"{view.ids[i]}#dup", taken) if a == "append" else None for i, a in zip(hit, actions, strict=True)
    ]
    acts = {
        view.ids[i]: (action, chosen, rejected, fresh if action == "append" else count)
        for i, action, (chosen, rejected), fresh, count in zip(hit, actions, new, new_ids, copies, strict=True)
    }
    after = _state_after(state, acts, view.kind)
    hash_of = dict(zip((p.id for p in after.pairs), after.hashes, strict=True))
    label_of = dict(zip((p.id for p in after.pairs), after.label, strict=True))
    names = [fresh or view.ids[i] for i, fresh in zip(hit, new_ids, strict=True)]
    before = [state.hashes[i] for i in hit]
    gone = {view.ids[i] for i, a, c in zip(hit, actions, copies, strict=True) if a == "drop" or c == 0}
    after_hashes = [None if name in gone else hash_of[name] for name in names]
    prompts = texts(view, "prompt_id")
    columns: dict[str, list[Any]] = {
        "id": [view.ids[i] for i in hit],
        "prompt_id": [prompts[i] for i in hit],
        "kind": [view.kind] * m,
        "step": [number] * m,
        "action": actions,
        "rank": list(range(m)) if hits.ranked else [pd.NA] * m,
        "clean_label": [state.label[i] for i in hit],
        "observed_label": [state.label[i] if n in gone else label_of[n] for i, n in zip(hit, names, strict=True)],
        "before_hash": before,
        "after_hash": after_hashes,
        # A copy says again what its source says, yet the set changes: appended and reweighted rows are never vacuous.
        "vacuous": [
            a not in ("append", "reweight") and h == b for a, b, h in zip(actions, before, after_hashes, strict=True)
        ],
        "new_id": new_ids,
        "copies": [pd.NA if count is None else count for count in copies],
        "new_chosen": [chosen for chosen, _ in new],
        "new_rejected": [rejected for _, rejected in new],
    }
    empty = {"u": float("nan"), "annotator_id": None}
    for name in ("u", "weight", "key", "probability", "gold_margin", "delta_len", "delta_ref", "annotator_id"):
        values = hits.columns.get(name)
        columns[name] = [empty.get(name, float("nan"))] * m if values is None else list(values)
    assert columns.keys() == COLUMNS.keys()
    masked = [n for n, a in zip(names, actions, strict=True) if a != "relabel_same"]
    counts = {
        "n_after": len(after.pairs),
        "n_prompts": len({p for p in prompts if p is not None}),
        "n_vacuous": sum(columns["vacuous"]),
        "before_hash": state.content,
        "after_hash": after.content,
        "mask_hash": ids_hash(masked),
    }
    return after, columns, masked, counts


def _state_after(state: _State, acts: Mapping[str, tuple[str, Any, Any, Any]], kind: str) -> _State:
    """The state after `acts` (see `ledger.perform`) of a step of `kind`."""
    pairs, source = perform(state.pairs, acts)
    label, replaced, kinds, hashes = [], [], [], []
    for pair, i in zip(pairs, source, strict=True):
        before = state.pairs[i]
        action = acts[before.id][0] if before.id in acts else ""
        added = pair.id != before.id
        label.append(-state.label[i] if action == ("append" if added else "flip") else state.label[i])
        replaced.append(state.replaced[i] or action in ("replace", "truncate"))
        if added:  # the ledger names a reweighted row once, so that its copies count as untouched
            kinds.append(kind if action == "append" else "")
        else:
            kinds.append(state.kind[i] if action in ("", "relabel_same", "append") else kind)
        hashes.append(state.hashes[i] if pair is before else row_hash(pair))
    return _State(pairs, [state.origin[i] for i in source], label, replaced, kinds, hashes, set_hash(pairs, hashes))


def _sides(pair: PreferencePair, label: int) -> tuple[str, str]:
    return (pair.chosen, pair.rejected) if label > 0 else (pair.rejected, pair.chosen)


def _sequence(rate: float | None, params: Mapping[str, Any]) -> list[Step]:
    """The steps of a sequence, given as (kind, rate, params) or as cells `{kind, rate, ...}`."""
    given = params.get("steps")
    if rate is not None or set(params) != {"steps"} or not isinstance(given, list | tuple) or not given:
        raise InputError("corruption 'sequence' takes steps=[(kind, rate, params), ...] and nothing else")
    steps: list[Step] = []
    for step in given:
        if isinstance(step, Mapping):
            spec = resolve(step)
            step = (spec.kind, spec.rate, spec.params)
        kind, share, values = step
        if kind == SEQUENCE:
            raise InputError("a sequence cannot stand inside a sequence; write its steps in one list")
        steps.append((kind, share, dict(values)))
    return steps


def _sequence_manifest(
    steps: Sequence[Step], manifests: list[dict[str, Any]], before: _State, after: _State, touched: set[str]
) -> dict[str, Any]:
    """The manifest of a whole sequence; each step's own stands in `composition`."""
    first = manifests[0]
    return {
        **dict.fromkeys(first),
        **{name: first[name] for name in ("seed", "hash_function", "key_version", "n_before", "n_duplicate_ids")},
        "kind": SEQUENCE,
        "params": {"steps": [[kind, rate, dict(params)] for kind, rate, params in steps]},
        "k_unit": "pairs",
        "k_realised": len(touched),
        "rate_realised": len(touched) / len(before.pairs) if before.pairs else 0.0,
        "n_after": len(after.pairs),
        "n_vacuous": sum(manifest["n_vacuous"] for manifest in manifests),
        "n_ties": sum(manifest["n_ties"] for manifest in manifests),
        "before_hash": before.content,
        "after_hash": after.content,
        "mask_hash": ids_hash(touched),
        "stats": {},
        "composition": manifests,
    }


def _unique_ids(pairs: Sequence[PreferencePair]) -> tuple[list[PreferencePair], int]:
    """`pairs` with unique ids, and how many ids had to change.

    An empty id becomes the content hash. The second and later holders of an id, in order of their content, get
    `#2`, `#3`, ..., so that the order of the rows does not matter.
    """
    named = [p if p.id else rewritten(p, row_hash(p), p.chosen, p.rejected) for p in pairs]
    seen = Counter(pair.id for pair in named)
    twice = {name for name, count in seen.items() if count > 1}
    holders = sorted((p.id, row_hash(p), i) for i, p in enumerate(named) if p.id in twice)
    taken, occurrence, renamed = set(seen), Counter[str](), sum(1 for pair in pairs if not pair.id)
    for name, _, position in holders:
        occurrence[name] += 1
        if occurrence[name] == 1:
            continue
        while f"{name}#{occurrence[name]}" in taken:
            occurrence[name] += 1
        fresh = f"{name}#{occurrence[name]}"
        taken.add(fresh)
        pair = named[position]
        named[position] = rewritten(pair, fresh, pair.chosen, pair.rejected)
        renamed += 1
    return named, renamed


def _fresh(name: str, taken: set[str]) -> str:
    number, fresh = 1, name
    while fresh in taken:
        number += 1
        fresh = f"{name}{number}"
    taken.add(fresh)
    return fresh


def _as_facts(facts: Any) -> dict[str, dict[str, Any]]:
    """`facts` by name and clean id (text). Accepts a frame with column or index `id`, `{id: {...}}`, or columns.

    Raises InputError for another form, or where an id stands twice.
    """
    if facts is None:
        return {}
    if isinstance(facts, Mapping):
        by_id = bool(facts) and all(isinstance(value, Mapping) for value in facts.values())
        facts = pd.DataFrame.from_dict(dict(facts), orient="index") if by_id else pd.DataFrame(dict(facts))
    if not isinstance(facts, pd.DataFrame):
        raise InputError(f"facts: expected a table with a column 'id', got {type(facts).__name__}")
    table = facts.set_index("id") if "id" in facts.columns else facts
    ids = table.index.tolist()
    if not all(isinstance(i, str) for i in ids):
        raise InputError("facts: no column 'id' with the clean ids of the pairs; add one")
    twice = table.index[table.index.duplicated()].tolist()
    if twice:
        raise InputError(f"facts: {len(twice)} ids appear more than once, the first is {twice[0]!r}; keep one row each")
    return {
        str(name): dict(zip(ids, (None if v is pd.NA else v for v in table[name].tolist()), strict=True))
        for name in table.columns
    }
