"""`harness verify`: are the files of a sweep as they were written, do its tables match its runs, is it complete?"""

from __future__ import annotations

import csv
from pathlib import Path

from harness.identity import run_key
from harness.storage.plan_file import PLAN, read_plan_file
from harness.storage.runs import RESULT, final_keys
from harness.storage.verify import verify
from harness.sweep.rerun import run_of
from harness.types import InputError, RunStatus


def check(folder: Path) -> tuple[list[str], list[str]]:
    """(a line for each damaged file of a run or sweep: run key, file, what differs; notes). Changes nothing.

    Raises InputError for a folder that holds neither a run nor a sweep.
    """
    lines = verify(folder)
    if (folder / RESULT).exists():
        return lines, []
    if not (folder / PLAN).exists():
        if not lines and not any(folder.glob(f"*/{RESULT}")):
            raise InputError(f"{folder}: neither {RESULT} nor {PLAN} here; expected the folder of a run or a sweep")
        return lines, []
    try:
        plan = read_plan_file(folder)
    except InputError as error:
        return [*lines, *error.problems], []
    for run in plan["runs"]:
        if not _is_of(run["config"], run["run_key"]):
            lines.append(f"{run['run_key']} {PLAN}: its config does not match this key")
    return lines + _tables(folder), _notes(folder, [run["run_key"] for run in plan["runs"]])


def _is_of(config: dict[str, object], key: str) -> bool:
    try:
        return run_key(run_of(config)) == key
    except (InputError, KeyError, AttributeError):
        return False


def _tables(folder: Path) -> list[str]:
    """Rows of `results.csv` with an outcome that are not what the run's files say now."""
    from harness.report.data.sweep import read_sweep
    from harness.report.data.tables import csv_bytes, result_columns, result_row

    table = folder / "results.csv"
    if not table.exists():
        return []
    sweep = read_sweep(folder)
    text = csv_bytes(result_columns(sweep), [result_row(run) for run in sweep.runs]).decode("utf-8")
    now = {row["run_key"]: row for row in csv.DictReader(text.splitlines())}
    try:
        with table.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except (UnicodeDecodeError, csv.Error):
        return [f"{folder.name} {table.name}: is not a CSV file; harness report {folder} rewrites it"]
    wrong = []
    for number, row in enumerate(rows, 2):
        expected = now.get(row.get("run_key") or "")
        if expected is None:
            wrong.append(f"{table.name}: line {number} belongs to no run of the plan; harness report rewrites it")
        elif row.get("status") in (RunStatus.DONE, RunStatus.DIVERGED) and row != expected:
            wrong.append(
                f"{expected['run_key']} {table.name}: its row differs from its files; harness report rewrites it"
            )
    return wrong


def _notes(folder: Path, keys: list[str]) -> list[str]:
    """How many runs have no outcome yet."""
    left = len(keys) - len(final_keys(folder, keys))
    return [f"incomplete: {left} of {len(keys)} runs have no outcome yet; run the sweep again"] if left else []
