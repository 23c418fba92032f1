"""The ledger: one row per touched pair, enough to repeat the corruption; its manifest; both in one Parquet file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.corruptions.draw import Bools, Floats, Hits, View, numbers
from harness.identity import canonical_json
from harness.types import InputError, PreferencePair

# Column -> pandas dtype, in order. Text columns hold NaN where unused, counts <NA>, numbers NaN. `new_id` is the id of
# an appended row, `copies` how often a reweighted row stands in the new set, `new_chosen` and `new_rejected` the texts
# of rows that were replaced or appended.
COLUMNS: Mapping[str, str] = {
    "id": "str",
    "prompt_id": "str",
    "kind": "str",
    "step": "int32",
    "action": "str",  # flip, append, drop, reweight, replace, truncate or relabel_same
    "u": "float64",
    "weight": "float64",
    "key": "float64",
    "rank": "Int64",
    "probability": "float64",
    "gold_margin": "float64",
    "delta_len": "float64",
    "delta_ref": "float64",
    "annotator_id": "str",
    "clean_label": "int8",
    "observed_label": "int8",
    "before_hash": "str",
    "after_hash": "str",
    "vacuous": "bool",
    "new_id": "str",
    "copies": "Int64",
    "new_chosen": "str",
    "new_rejected": "str",
}
_ARROW = {
    "str": pa.string(),
    "int32": pa.int32(),
    "int8": pa.int8(),
    "float64": pa.float64(),
    "Int64": pa.int64(),
    "bool": pa.bool_(),
}
_MANIFEST = b"harness.manifest"
KEY_VERSION = 1
HASH_FUNCTION = "BLAKE2b-64 over length-prefixed (seed, stream, id); u = (top 52 bits + 1/2) / 2**52"
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def row_hash(pair: PreferencePair) -> str:
    """Content hash of one row: `identity.content_hash([prompt, chosen, rejected])`, with the encoder built once.

    The id stays outside: it survives a change of content.
    """
    text = _ENCODE([pair.prompt, pair.chosen, pair.rejected])
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def set_hash(pairs: Sequence[PreferencePair], hashes: Sequence[str] | None = None) -> str:
    """Order-independent content hash of a set of pairs: SHA-256 over its id-sorted (id, row hash) lines."""
    hashes = [row_hash(pair) for pair in pairs] if hashes is None else hashes
    return _lines_hash(f"{len(pair.id)}:{pair.id} {h}" for pair, h in zip(pairs, hashes, strict=True))


def ids_hash(ids: Iterable[str]) -> str:
    """Order-independent hash of a set of ids: the mask's."""
    return _lines_hash(f"{len(i)}:{i}" for i in ids)


def as_ledger(columns: Mapping[str, Sequence[Any]], manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Columns of equal length (missing ones are null) as a ledger with its dtypes and manifest."""
    n = len(columns["id"])
    empty: dict[str, Any] = {"str": None, "float64": float("nan"), "Int64": pd.NA}
    data = {
        name: pd.Series(list(columns[name]) if name in columns else [empty[dtype]] * n, dtype=dtype)
        for name, dtype in COLUMNS.items()
    }
    ledger = pd.DataFrame(data)
    ledger.attrs["manifest"] = dict(manifest)
    return ledger


def perform(
    pairs: Sequence[PreferencePair], acts: Mapping[str, tuple[str, Any, Any, Any]]
) -> tuple[list[PreferencePair], list[int]]:
    """`pairs` after one step, and the position of the pair that each comes from.

    `acts`: id -> (action, new chosen, new rejected, new id or number of copies). Rows keep their order, dropped ones
    leave, appended ones follow at the end in the order of their sources.
    """
    kept: list[tuple[PreferencePair, int]] = []
    added: list[tuple[PreferencePair, int]] = []
    for i, pair in enumerate(pairs):
        action, chosen, rejected, extra = acts.get(pair.id, ("relabel_same", None, None, None))
        if action in ("relabel_same", "append") or (action == "reweight" and extra):
            kept.append((pair, i))
        elif action == "flip":
            kept.append((rewritten(pair, pair.id, pair.rejected, pair.chosen), i))
        elif action in ("replace", "truncate"):
            kept.append((rewritten(pair, pair.id, chosen, rejected), i))
        if action == "append":
            added.append((rewritten(pair, extra, chosen, rejected), i))
        elif action == "reweight":
            copies = (rewritten(pair, f"{pair.id}#copy{j}", pair.chosen, pair.rejected) for j in range(2, extra + 1))
            added += [(copy, i) for copy in copies]
    rows = kept + added
    return [pair for pair, _ in rows], [i for _, i in rows]


def rewritten(pair: PreferencePair, name: str, chosen: str, rejected: str) -> PreferencePair:
    """`pair` with another id and texts; prompt, source, gold margin and meta as they are."""
    return PreferencePair(name, pair.prompt, chosen, rejected, pair.source, pair.gold_margin, pair.meta)


def write_ledger(ledger: pd.DataFrame, path: Path) -> None:
    """Write the ledger as Parquet; the manifest stands as JSON in the file's metadata under `harness.manifest`.

    Columns beyond those of `COLUMNS` are counts.
    """
    pq.write_table(_as_table(ledger), path)


def ledger_bytes(ledger: pd.DataFrame) -> bytes:
    """What `write_ledger` writes."""
    sink = pa.BufferOutputStream()
    pq.write_table(_as_table(ledger), sink)
    return bytes(sink.getvalue().to_pybytes())


def _as_table(ledger: pd.DataFrame) -> pa.Table:
    manifest = canonical_json(ledger.attrs["manifest"]).encode("utf-8", "surrogatepass")
    bare = ledger.copy()
    bare.attrs = {}
    types = [(name, _ARROW[COLUMNS.get(name, "Int64")]) for name in bare.columns]
    schema = pa.schema(types, metadata={_MANIFEST: manifest})
    return pa.Table.from_pandas(bare, schema=schema, preserve_index=False)


def read_ledger(path: Path) -> pd.DataFrame:
    """The ledger of a Parquet file with `attrs["manifest"]`. Raises InputError where the file carries no manifest."""
    table = pq.read_table(path)
    metadata = table.schema.metadata or {}
    if _MANIFEST not in metadata:
        raise InputError(f"{path.name}: no corruption manifest in the file's metadata; it was not written as a ledger")
    columns = {name: table.column(name).to_pylist() for name in COLUMNS}
    return as_ledger(columns, json.loads(metadata[_MANIFEST]))


def _lines_hash(lines: Iterable[str]) -> str:
    return sha256("\n".join(sorted(lines)).encode("utf-8", "surrogatepass")).hexdigest()


def step_manifest(view: View, hits: Hits, counts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of one step, JSON-ready. `counts` brings sizes and hashes.

    `rate_realised` is the share of pairs the step acted on; pairs an annotator relabelled as they were do not count.
    `rate_requested` and `k_target` are null for derived-rate kinds. `k_unit` says what k counts.
    """
    actions = [hits.action] * len(hits.index) if isinstance(hits.action, str) else list(hits.action)
    acted = [a != "relabel_same" for a in actions]
    touched = len(actions) if hits.target is not None else sum(acted)
    return {
        "kind": view.kind,
        "params": {name: view.params[name] for name in sorted(view.params)},
        "mode": view.params.get("mode"),
        "rate_requested": view.rate,
        "seed": view.seed,
        "stream": view.kind,
        "hash_function": HASH_FUNCTION,
        "key_version": KEY_VERSION,
        "n_before": view.n,
        "n_eligible": int(view.eligible.sum()),
        "k_target": hits.target,
        "k_realised": hits.reached if hits.reached is not None else touched,
        "k_unit": hits.unit,
        "rate_realised": touched / view.n if view.n else 0.0,
        "n_ties": hits.ties,
        **counts,
        "stats": {**label_stats(view, hits, actions), **hits.stats},
    }


def label_stats(view: View, hits: Hits, actions: list[str]) -> dict[str, Any]:
    """What the flips did, from whatever facts cover all pairs; null where they do not.

    Flip rate by decile of the absolute gold margin (10 groups of equal size, ascending), correlation of flip and
    length difference (clean chosen minus rejected), share of delta_ref < 0 before and after, and how many clean pairs
    have a negative gold margin.
    """
    flipped = np.zeros(view.n, dtype=bool)
    flipped[[i for i, action in zip(hits.index.tolist(), actions, strict=True) if action == "flip"]] = True
    margin, delta_ref = _complete(view, "gold_margin"), _complete(view, "delta_ref")
    chosen_len, rejected_len = _complete(view, "chosen_len"), _complete(view, "rejected_len")
    deciles = share_before = share_after = correlation = None
    if margin is not None and view.n >= 10:
        order = sorted(range(view.n), key=lambda i: (abs(margin[i]), view.ids[i]))
        deciles = [float(part.mean()) for part in np.array_split(flipped[order], 10)]
    if chosen_len is not None and rejected_len is not None:
        correlation = _correlation(flipped, chosen_len - rejected_len)
    if delta_ref is not None and not view.replaced.any() and view.n:
        now = delta_ref * view.label
        share_before, share_after = float((now < 0).mean()), float((np.where(flipped, -now, now) < 0).mean())
    return {
        "n_negative_gold_margin": None if margin is None else int((margin < 0).sum()),
        "flip_rate_by_margin_decile": deciles,
        "flip_length_correlation": correlation,
        "delta_ref_negative_before": share_before,
        "delta_ref_negative_after": share_after,
    }


def gold_source(view: View, hits: Hits) -> str | None:
    """Where the gold margins of the decision came from, or None where it used none."""
    if "gold_margin" not in hits.columns:
        return None
    if view.params.get("gold_from") == "scores":
        return "score_chosen - score_rejected"
    return "facts.gold_margin, then the pair's gold_margin" if "gold_margin" in view.facts else "the pair's gold_margin"


def _complete(view: View, name: str) -> Floats | None:
    """A fact that is there for all pairs. A statistic may be absent, so unusable values give None, not an error."""
    try:
        values = numbers(view, name)
    except InputError:
        return None
    return None if np.isnan(values).any() else values


def _correlation(hit: Bools, values: Floats) -> float | None:
    """Pearson correlation; sums run exactly rounded (fsum), so that row order cannot show in the last bit."""
    n = len(values)
    if n < 2 or hit.all() or not hit.any():
        return None
    mean, share = math.fsum(values) / n, float(hit.mean())
    square = math.fsum((values - mean) ** 2)
    if square == 0:
        return None
    return math.fsum((hit - share) * (values - mean)) / math.sqrt(square * n * share * (1 - share))
