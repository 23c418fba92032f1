"""The pairs between two steps: unique ids, labels against the clean set, content hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.corruptions.ledger import copy_id, rewritten, row_hash, set_hash
from harness.corruptions.view import Bools
from harness.types import PreferencePair


@dataclass(frozen=True, slots=True)
class State:
    """Pairs as they stand: with the clean id of each, its label against the clean one, whether its text is new, and
    its content hash; all `(n,)` in one order. `content` is the hash of the whole set."""

    pairs: list[PreferencePair]
    fact_ids: list[str]
    label: npt.NDArray[np.int8]
    changed: Bools
    hashes: list[str]
    content: str


def unique_ids(pairs: Sequence[PreferencePair]) -> tuple[list[PreferencePair], int]:
    """`pairs` with unique ids, and how many ids had to change.

    An empty id becomes the content hash. The second and later holders of an id, in order of their content, get
    `#2`, `#3`, ..., so that the order of the rows does not matter.
    """
    named = [p if p.id else rewritten(p, row_hash(p), p.chosen, p.rejected) for p in pairs]
    seen = Counter(pair.id for pair in named)
    twice = {name for name, count in seen.items() if count > 1}
    if not twice:
        return named, sum(1 for pair in pairs if not pair.id)
    holders = sorted((p.id, row_hash(p), i) for i, p in enumerate(named) if p.id in twice)
    taken, occurrence, renamed = set(seen), Counter[str](), 0
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
    return named, renamed + sum(1 for pair in pairs if not pair.id)


def first_state(pairs: list[PreferencePair], after: pd.DataFrame | None) -> State:
    """The state of `pairs`: clean, or as the ledger `after` left them."""
    label: dict[str, int] = {}
    changed: set[str] = set()
    clean: dict[str, str] = {}
    for action, name, new_id, observed, copies in (
        ()
        if after is None
        else zip(*(after[c] for c in ("action", "id", "new_id", "observed_label", "copies")), strict=True)
    ):
        touched = [name]
        if action in ("append", "reweight"):
            touched = [new_id] if action == "append" else [copy_id(name, j) for j in range(2, int(copies) + 1)]
            clean |= dict.fromkeys(touched, clean.get(name, name))
            changed |= set(touched) if name in changed else set()
        label |= dict.fromkeys(touched, int(observed))
        changed |= {name} if action in ("replace", "truncate") else set()
    hashes = [row_hash(pair) for pair in pairs]
    return State(
        pairs,
        [clean.get(pair.id, pair.id) for pair in pairs],
        np.array([label.get(pair.id, 1) for pair in pairs], np.int8),
        np.array([pair.id in changed for pair in pairs], bool),
        hashes,
        set_hash(pairs, hashes),
    )


def state_after(state: State, acts: Mapping[str, tuple[str, Any, Any, Any]], pairs: list[PreferencePair]) -> State:
    """The state that belongs to `pairs`, the outcome of `acts`: labels turn with flips, new text is marked as such."""
    position = {pair.id: i for i, pair in enumerate(state.pairs)}
    source: dict[str, tuple[int, int]] = {}  # new row -> position of its source, and whether it is flipped
    for name, (action, _, _, extra) in acts.items():
        if action == "append":
            source[extra] = position[name], -1
        elif action == "reweight":
            source |= {copy_id(name, j): (position[name], 1) for j in range(2, extra + 1)}
    fact_ids, label, changed, hashes = [], [], [], []
    for pair in pairs:
        own = pair.id in position
        i, sign = (position[pair.id], 1) if own else source[pair.id]
        act = acts[pair.id][0] if own and pair.id in acts else ""
        sign = -1 if act == "flip" else sign
        fact_ids.append(state.fact_ids[i])
        label.append(sign * int(state.label[i]))
        changed.append(bool(state.changed[i]) or act in ("replace", "truncate"))
        hashes.append(state.hashes[i] if own and act in ("", "relabel_same", "append", "reweight") else row_hash(pair))
    content = set_hash(pairs, hashes)
    return State(pairs, fact_ids, np.array(label, np.int8), np.array(changed, bool), hashes, content)
