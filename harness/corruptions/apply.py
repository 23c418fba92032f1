"""One step of damage, and sequences of them: state in, state and ledger out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from operator import index
from typing import Any

import numpy as np
import pandas as pd

from harness.corruptions.ledger import COLUMNS, as_ledger, gold_source, ids_hash, masked_ids, perform, step_manifest
from harness.corruptions.registry import SEQUENCE, resolve, settle
from harness.corruptions.select import Hits
from harness.corruptions.state import State, first_state, state_after, unique_ids
from harness.corruptions.view import View, as_facts, require, texts
from harness.identity import plain
from harness.types import CorruptionSpec, InputError, PreferencePair

Step = tuple[str, float | None, Mapping[str, Any]]


def corrupt_pairs(
    pairs: Sequence[PreferencePair],
    kind: str,
    rate: float | None,
    seed: int,
    facts: Any,
    after: pd.DataFrame | None,
    params: Mapping[str, Any],
) -> tuple[list[PreferencePair], pd.DataFrame]:
    """See `harness.corruptions.corrupt`."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise InputError(f"corruption '{kind}': seed must be a whole number, got {seed!r}")
    seed = index(seed)
    steps = _sequence(rate, params) if kind == SEQUENCE else [(kind, rate, params)]
    settled = [settle(name, share, values) for name, share, values in steps]
    table, (named, renamed) = as_facts(facts), unique_ids(pairs)
    state = first_state(named, after)
    before_hash = state.content
    earlier = [] if after is None else _composition(after)
    ledgers: list[dict[str, list[Any]]] = []
    manifests: list[dict[str, Any]] = []
    for number, (row, share, values) in enumerate(settled):
        view = _view(state, row.name, seed, share, values, table)
        view = require(view, row.needs_of(values))
        hits: Hits = _function(row.function)(view)
        state, columns, counts = _apply(state, view, hits, number)
        counts |= {"gold_source": gold_source(view, hits), "n_duplicate_ids": renamed, "eval_hash": None}
        manifests.append({**step_manifest(view, hits, counts), "composition": list(earlier)})
        earlier.append({**manifests[-1], "composition": []})
        ledgers.append(columns)
    ledger_columns = {name: [v for part in ledgers for v in part[name]] for name in ledgers[0]}
    manifest = manifests[0]
    if kind == SEQUENCE:
        manifest = _sequence_manifest(steps, manifests, before_hash, state)
    ledger = as_ledger(ledger_columns, plain(manifest))
    if kind == SEQUENCE:
        masked = masked_ids(ledger)
        ledger.attrs["manifest"] |= {
            "mask_hash": ids_hash(masked),
            "k_realised": len(masked),
            "rate_realised": len(masked) / len(named) if named else 0.0,
        }
    return state.pairs, ledger


def apply_spec(
    spec: CorruptionSpec, pairs: Sequence[PreferencePair], seed: int, facts: Any = None
) -> tuple[list[PreferencePair], pd.DataFrame]:
    """`corrupt` for one resolved cell of a spec."""
    return corrupt_pairs(pairs, spec.kind, spec.rate, seed, facts, None, dict(spec.params))


def _apply(state: State, view: View, hits: Hits, number: int) -> tuple[State, dict[str, list[Any]], dict[str, Any]]:
    """The state after the hits, their ledger columns, and the counts and hashes of the manifest."""
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
    after = state_after(state, acts, perform(state.pairs, acts))
    hash_of = dict(zip((p.id for p in after.pairs), after.hashes, strict=True))
    label_of = dict(zip((p.id for p in after.pairs), after.label.tolist(), strict=True))
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
        "clean_label": [int(view.label[i]) for i in hit],
        "observed_label": [int(view.label[i]) if n in gone else label_of[n] for i, n in zip(hit, names, strict=True)],
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
    return after, columns, counts


def _view(
    state: State, kind: str, seed: int, rate: float | None, params: Mapping[str, Any], facts: pd.DataFrame
) -> View:
    ids = [pair.id for pair in state.pairs]
    everyone = np.ones(len(ids), dtype=bool)
    return View(kind, seed, rate, params, state.pairs, ids, state.fact_ids, state.label, state.changed, everyone, facts)


def _sequence(rate: float | None, params: Mapping[str, Any]) -> list[Step]:
    """The steps of a sequence, given as (kind, rate, params) or as cells `{kind, rate, ...}`."""
    steps = params.get("steps")
    if rate is not None or set(params) != {"steps"} or not isinstance(steps, list | tuple) or not steps:
        raise InputError("corruption 'sequence' takes steps=[(kind, rate, params), ...] and nothing else")
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Mapping):
            spec = resolve(step)
            step = (spec.kind, spec.rate, spec.params)
        kind, share, values = step
        if kind == SEQUENCE:
            raise InputError("a sequence cannot stand inside a sequence; write its steps in one list")
        found.append((kind, share, dict(values)))
    return found


def _sequence_manifest(
    steps: Sequence[Step], manifests: list[dict[str, Any]], before_hash: str, state: State
) -> dict[str, Any]:
    """The manifest of a whole sequence; each step's own stands in `composition`."""
    first = manifests[0]
    return {
        **dict.fromkeys(first),
        **{name: first[name] for name in ("seed", "hash_function", "key_version", "n_before", "n_duplicate_ids")},
        "kind": SEQUENCE,
        "params": {"steps": [[kind, rate, dict(params)] for kind, rate, params in steps]},
        "k_unit": "pairs",
        "n_after": len(state.pairs),
        "n_vacuous": sum(manifest["n_vacuous"] for manifest in manifests),
        "n_ties": sum(manifest["n_ties"] for manifest in manifests),
        "before_hash": before_hash,
        "after_hash": state.content,
        "stats": {},
        "composition": [*manifests[-1]["composition"], {**manifests[-1], "composition": []}],
    }


def _composition(after: pd.DataFrame) -> list[dict[str, Any]]:
    manifest = dict(after.attrs["manifest"])
    earlier: list[dict[str, Any]] = manifest.pop("composition")
    return earlier if manifest["kind"] == SEQUENCE else [*earlier, {**manifest, "composition": []}]


def _function(name: str) -> Any:
    module, function = name.split(":")
    return getattr(import_module(module), function)


def _fresh(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}{number}"
    taken.add(found)
    return found
