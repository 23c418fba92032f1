"""What `--out` holds of an earlier diagnosis: one that holds as much may replace it, any other only where asked to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from harness.metrics.records import Columns
from harness.storage.logps_file import POLICY, REFERENCE, LogpsTable, read_logps
from harness.storage.output import check_own
from harness.types import InputError

PAIRS, JSON = "pairs.parquet", "diagnosis.json"

Holds = Callable[[LogpsTable], bool]  # whether a diagnosis holds every row of an earlier one


def check_earlier(out: Path, force: bool, holds: Holds) -> None:
    """Raise InputError where writing a diagnosis into `out` would lose log-probs that it `holds` not itself.

    Scoring them cost compute, or they are the log of a training run (`GeometryCallback`).
    """
    check_own(out, (PAIRS, JSON))
    if force or not any((out / name).exists() for name in (PAIRS, JSON)):
        return
    try:
        kept = holds(read_logps(out / PAIRS))
    except InputError:  # not there, or not to be read: what it held cannot be told
        kept = False
    if not kept:
        raise InputError(
            f"--out {out}: holds the diagnosis of other policies or pairs, of another reference, or with other tokens; "
            "choose another folder, or add --force to replace it"
        )


def holds_scored(meta: Mapping[str, Any], pairs: Collection[tuple[str, str]]) -> Holds:
    """Of a diagnosis of models that are about to be scored: by what `meta` says, and split and tokens of its pairs."""

    def holds(earlier: LogpsTable) -> bool:
        before = earlier.meta
        return (
            before.get("policies", {}).items() <= meta["policies"].items()
            and all(before.get(name) == meta[name] for name in ("reference", "dtype"))
            and {*zip(earlier.columns["split"], earlier.columns["tokens"], strict=True)} <= {*pairs}
        )

    return holds


def holds_rows(columns: Columns) -> Holds:
    """Of a diagnosis of a log-prob file: row by row, values included."""

    def rows(of: Columns) -> set[tuple[str, ...]]:
        named = ("policy", "step", "split", "id", *POLICY, *REFERENCE)
        return set(zip(*(map(str, of[name].tolist()) for name in named), strict=True))

    return lambda earlier: rows(earlier.columns) <= rows(columns)
