"""Controlled corruption of preference pairs: `CORRUPTIONS` (the registry), `corrupt`, `resolve` (a spec's cell)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.corruptions.registry import CORRUPTIONS, Corruption, resolve
from harness.types import PreferencePair

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CORRUPTIONS", "Corruption", "corrupt", "resolve"]


def corrupt(
    pairs: Sequence[PreferencePair],
    kind: str,
    rate: float | None = None,
    seed: int = 0,
    facts: Any = None,
    **params: Any,
) -> tuple[list[PreferencePair], pd.DataFrame]:
    """Corrupt a copy of `pairs`; the same arguments give the same bytes, in any process and any row order.

    `kind` is a name of `CORRUPTIONS` or `sequence` (with `steps=((kind, rate, params), ...)`, as in a
    `CorruptionSpec`). `rate` is the share of pairs in [0, 1], refused by kinds that derive it. `seed` is the replicate
    seed. `facts` is a table by clean id (a data frame with a column or index `id`, or a mapping `{id: {fact: value}}`)
    in the clean orientation; what it lacks is read from the pair (`gold_margin`, `meta`).

    Returns the pairs (ids, prompts, gold margins and meta unchanged) and the ledger: one row per touched pair, the
    manifest in `ledger.attrs["manifest"]`. Raises InputError before anything is done where a name, a value or a
    needed fact is wrong or missing.
    """
    # Imported here: every command reads the registry, and only this loads pandas and pyarrow.
    from harness.corruptions.apply import apply

    corrupted = apply(pairs, kind, rate, seed, facts, params)
    assert corrupted.ledger is not None
    return list(corrupted.pairs), corrupted.ledger
