"""`prediction.json` of a sweep folder: what was predicted of its runs, and when. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.storage.atomic import read_json
from harness.types import InputError

PREDICTION = "prediction.json"
COLUMNS = (
    "run_key", "objective", "beta", "corruption", "rate", "seed", "ranking_accuracy", "low", "high", "reason",
)  # fmt: skip


def read_prediction(folder: Path) -> Mapping[str, Any] | None:
    """The prediction of a sweep as plain data, None where there is none.

    `made`, `spec_sha256`, `finished_before` (runs that had ended by then), `predictions`: a row of `COLUMNS` per run,
    with `ranking_accuracy`, `low` and `high` null and a `reason` where nothing is predicted. InputError where it
    cannot be read.
    """
    path = folder / PREDICTION
    if not path.is_file():
        return None
    value = read_json(path)
    try:
        rows = {row["run_key"]: [row[name] for name in COLUMNS] for row in value["predictions"]}
        whole = isinstance(value["finished_before"], int) and isinstance(value["made"], str) and bool(rows)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"{path}: not a prediction; remove it and run `harness plan SPEC --predict` again")
    return dict(value)
