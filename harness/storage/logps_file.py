"""The log-prob file: one Parquet row per pair under one policy, the open format of `docs/diagnose.md`.

Imports NumPy and pyarrow alone, so that a trainer's environment can write it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.types import InputError

VERSION = 1
POLICY, REFERENCE = ("policy_chosen", "policy_rejected"), ("reference_chosen", "reference_rejected")
LENGTHS = ("chosen_len", "rejected_len")
REQUIRED = ("id", "prompt_id", *POLICY, *REFERENCE, *LENGTHS)
# Of the reference's summed hidden states (`models/reference_logps.py`): <H_w, H_l>, |H_w|^2, |H_l|^2.
HIDDEN = ("hidden_product", "hidden_chosen", "hidden_rejected")
# `tokens`: what `data/rows.py token_key` gives for the pair; `row`: its place in the data file, from 1. Further columns
# are slices.
OPTIONAL = ("gold_margin", "split", "step", "policy", "tokens", "row", *HIDDEN)
COUNTS = ("step", "row")
TEXTS = ("id", "prompt_id", "split", "policy", "tokens")
ROUNDING = 1e-3  # nats a log-prob may lie above 0 in low precision
_META = b"harness.logps"
_SHOWN = 5

Columns = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True, eq=False)
class LogpsTable:
    """Checked rows as columns of equal length, every known column filled in, with the file's own description `meta`.

    Unknown `step` and `row` are -1, unknown `tokens` "", `gold_margin` and `HIDDEN` NaN; without a reference its two
    columns are NaN in every row. `slices` names the further columns, as text.
    """

    columns: Columns
    slices: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["id"])

    @property
    def referenced(self) -> bool:
        """Whether the rows have reference log-probs."""
        return bool(np.isfinite(self.columns["reference_chosen"]).all())


def write_logps(path: Path, columns: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> None:
    """Check the rows and write them, whole or not at all. `meta` is JSON: beta, dtype, which models, which limits.

    Raises InputError as `read_logps` does; nothing is written then.
    """
    table = checked(columns, str(path), meta or {})
    unknown = {
        **{name: np.isnan(table.columns[name]).all() for name in ("gold_margin", *HIDDEN)},
        **{name: (table.columns[name] < 0).all() for name in COUNTS},
        "tokens": (table.columns["tokens"] == "").all(),
    }
    kept = {name: values for name, values in table.columns.items() if not unknown.get(name, False)}
    write_columns(path, kept, table.meta)


def write_columns(path: Path, columns: Mapping[str, np.ndarray[Any, Any]], meta: Mapping[str, Any]) -> None:
    """Write rows as they are, whole or not at all: a diverged policy's may not be finite."""
    arrays = {
        name: pa.array(values.tolist(), pa.string())
        if values.dtype == object
        else pa.array(values, from_pandas=True, mask=values < 0 if name in COUNTS else None)
        for name, values in columns.items()
    }
    note = json.dumps({"version": VERSION, **meta}, sort_keys=True, allow_nan=False).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(pa.table(arrays).replace_schema_metadata({_META: note}), temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_logps(path: Path) -> LogpsTable:
    """The rows of a file. Raises InputError, a line per fault, for what is no such file or cannot be true."""
    table = _table(path)
    note = (table.schema.metadata or {}).get(_META)
    try:
        meta = json.loads(note) if note else {}
    except ValueError:
        raise InputError(f"{path}: the description under {_META.decode()} in its metadata is no JSON") from None
    if meta.get("version", VERSION) != VERSION:
        raise InputError(f"{path}: version {meta['version']} of the log-prob format; this harness reads {VERSION}")
    columns = {name: np.array(table.column(name).to_pylist(), dtype=object) for name in table.column_names}
    return checked(columns, str(path), meta)


@dataclass(frozen=True, eq=False)
class StoredReference:
    """Reference log-probs from a file: `sums` by response key, in nats, `hidden` by the keys of a pair (`HIDDEN`; NaN
    where the file has none). `dtype` is that of the forward pass, empty where the file does not say."""

    path: Path
    sums: Mapping[str, float]
    hidden: Mapping[tuple[str, str], tuple[float, float, float]]
    dtype: str

    def check_holds(self, wanted: set[str]) -> None:
        """Raise InputError unless the file holds every response of `wanted`, by its key."""
        if lost := wanted - self.sums.keys():
            raise InputError(
                f"{self.path}: holds {len(wanted) - len(lost)} of the {len(wanted)} responses with these token ids: "
                "scored on other pairs, or with another tokenizer, chat template or length limit; score them again"
            )


def read_reference(path: Path) -> StoredReference:
    """The reference of a log-prob file. Raises InputError where it has none, or none whose tokens are known."""
    table = read_logps(path)
    if not table.referenced:
        raise InputError(f"{path}: has no reference log-probs")
    told = table.columns["tokens"] != ""
    if not told.any():
        raise InputError(
            f"{path}: rows without `tokens`, so whether they were scored on these token ids cannot be told; write the "
            "column as docs/diagnose.md says, or give a model"
        )
    sums: dict[str, float] = {}
    keys = table.columns["tokens"][told]
    for at, side in enumerate(REFERENCE):
        for key, value in zip(keys, table.columns[side][told].tolist(), strict=True):
            if sums.setdefault(key[32 * at : 32 * at + 32], value) != value:
                raise InputError(f"{path}: one response has two reference log-probs: it holds two references")
    hidden = np.stack([table.columns[name][told] for name in HIDDEN], -1).tolist()
    pairs = {(key[:32], key[32:]): tuple(row) for key, row in zip(keys, hidden, strict=True)}
    return StoredReference(path, sums, pairs, str(table.meta.get("dtype", "")))


def read_columns(path: Path) -> Columns:
    """The rows of a file as they are. Raises InputError for what is no such file."""
    table = _table(path)
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def _table(path: Path) -> Any:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a log-prob file (Parquet)") from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: no Parquet file that can be read ({str(error).splitlines()[0]})") from None


def checked(columns: Mapping[str, Any], where: str, meta: Mapping[str, Any]) -> LogpsTable:
    """The rows as a table. Raises InputError naming columns, and the first ids, of what cannot be true."""
    if missing := [name for name in REQUIRED if name not in columns and name not in REFERENCE]:
        raise InputError(f"{where}: no column {', '.join(missing)}; a log-prob file has {', '.join(REQUIRED)}")
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"{where}: columns of different lengths {sizes}")
    count = sizes["id"]
    if not count:
        raise InputError(f"{where}: no rows; expected one row per pair")
    out: Columns = {}
    defaults = {"split": "heldout", "policy": "policy", "tokens": ""}
    for name in TEXTS:
        out[name] = _texts(columns.get(name), count, defaults.get(name))
    problems = [f"{where}: column {name}: empty in row {_rows(out[name] == '')}" for name in ("id", "prompt_id")
                if (out[name] == "").any()]  # fmt: skip
    numbers = (*POLICY, *REFERENCE, *LENGTHS, "gold_margin", *COUNTS, *HIDDEN)
    for name in numbers:
        try:
            out[name] = _numbers(columns.get(name), count)
        except (TypeError, ValueError):
            problems.append(f"{where}: column {name} holds something else than numbers")
            out[name] = np.full(count, np.nan)
    if not problems:
        problems = [f"{where}: {fault}" for fault in _faults(out)]
    if problems:
        raise InputError(*problems)
    for name in COUNTS:
        out[name] = np.nan_to_num(out[name], nan=-1).astype(np.int64)
    for name in LENGTHS:
        out[name] = out[name].astype(np.int64)
    slices = tuple(name for name in columns if name not in REQUIRED and name not in OPTIONAL)
    for name in slices:
        out[name] = _texts(columns[name], count, "")
    return LogpsTable(out, slices, dict(meta))


def _texts(values: Any, count: int, default: str | None) -> np.ndarray[Any, Any]:
    if values is None:
        return np.full(count, default, dtype=object)
    return np.array([default or "" if value is None else str(value) for value in values], dtype=object)


def _numbers(values: Any, count: int) -> np.ndarray[Any, Any]:
    if values is None:
        return np.full(count, np.nan)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _rows(bad: Any) -> str:
    """The first rows (from 1) that are marked."""
    found = np.flatnonzero(bad) + 1
    return ", ".join(map(str, found[:_SHOWN])) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _faults(columns: Columns) -> list[str]:
    """Why these rows cannot be the log-probs of pairs, a line each."""
    ids = columns["id"]

    def named(bad: Any) -> str:
        return f"row {_rows(bad)} (id {ids[int(np.flatnonzero(bad)[0])]})"

    faults = []
    unknown = np.isnan(columns["reference_chosen"]) & np.isnan(columns["reference_rejected"])
    sides = POLICY if unknown.all() else (*POLICY, *REFERENCE)
    if unknown.any() and not unknown.all():
        faults.append(f"no reference log-probs in {named(unknown)}; give them for every row or for none")
        sides = POLICY
    for name in sides:
        if (bad := ~np.isfinite(columns[name])).any():
            faults.append(f"{name} is not a finite number in {named(bad)}: a diverged policy, or a missing value")
        elif (bad := columns[name] > ROUNDING).any():
            faults.append(f"{name} is above 0 in {named(bad)}: expected log-probs in nats, summed over the response")
    for name in LENGTHS:
        if (bad := ~(columns[name] >= 1) | (columns[name] % 1 != 0)).any():
            faults.append(f"{name} is no token count of at least 1 in {named(bad)}")
    for name in COUNTS:
        whole = np.isnan(columns[name]) | ((columns[name] >= -1) & (columns[name] % 1 == 0))  # -1: unknown
        if not whole.all():
            faults.append(f"{name} is no whole number from 0 on in {named(~whole)}")
    return faults or _across_rows(columns, named)


def _across_rows(columns: Columns, named: Any) -> list[str]:
    """Faults that show only beside other rows: a pair twice, or one id for different tokens."""
    faults = []
    keys = list(zip(*(columns[name].tolist() for name in ("policy", "step", "split", "id")), strict=True))
    keys = [(policy, -1 if step != step else step, split, name) for policy, step, split, name in keys]
    seen: set[Any] = set()
    twice = np.zeros(len(keys), dtype=bool)
    for at, key in enumerate(keys):
        twice[at] = key in seen
        seen.add(key)
    if twice.any():
        faults.append(f"the id stands twice under one policy, step and split in {named(twice)}; ids name pairs")
    first: dict[Any, Any] = {}
    facts = list(zip(*(columns[name].tolist() for name in ("prompt_id", *LENGTHS, "tokens")), strict=True))
    sides = list(zip(columns["split"].tolist(), columns["id"].tolist(), strict=True))
    differs = np.array([first.setdefault(key, fact) != fact for key, fact in zip(sides, facts, strict=True)])
    if differs.any():
        faults.append(
            f"prompt_id, lengths or tokens differ from an earlier row of the same pair in {named(differs)}: scored "
            "with another tokenizer, chat template or length limit"
        )
    return faults
