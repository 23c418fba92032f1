"""`harness verify RUN_FOLDER --rerun`: train a run again from nothing, and say how the two differ.

Tiers: T1 every stored value equal bit for bit; T2 final measures within 1e-4 (float32); else what differs, and what of
code and machine is not the same. T3, equal in distribution, is a statement about many seeds: no single run shows it.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import typing
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.cells import check_plugins
from harness.config.load import reward_run
from harness.identity import run_key
from harness.storage.atomic import read_json
from harness.storage.runs import find_run, load_result, read_table, run_status
from harness.storage.verify import verify
from harness.types import InputError, PlannedRun, RunSpec

TOLERANCE = 1e-4  # of a final measure: tier T2
TABLES = ("examples.parquet", "samples.parquet", "probes.parquet", "ledger.parquet")


@dataclass(frozen=True, slots=True)
class Comparison:
    """`tier` is T1, T2 or empty; `lines` say it in words. `largest` is the largest difference of a final measure."""

    tier: str
    largest: float
    lines: tuple[str, ...]


def rerun(folder: Path) -> Comparison:
    """Train the run of `folder` again, models and all, in a folder beside its sweep that is removed afterwards.

    Raises InputError where `folder` holds no finished run, is damaged, or the code now gives its config another key.
    """
    from rich.console import Console

    from harness.sweep.console import CommandOutput
    from harness.sweep.scheduler import SweepOptions, run_packs

    folder = folder.resolve()
    result = load_result(folder)
    if result is None or not run_status(result).final:
        raise InputError(f"{folder}: holds no finished run; give a run's folder, such as runs/quick/<run>")
    damaged = verify(folder)
    if damaged:
        raise InputError(*damaged)
    run = run_of(result["config"])
    check_plugins(run)
    if run_key(run) != result["run_key"]:
        raise InputError(
            f"{folder}: this version of the code gives its config another key ({run_key(run)[:8]}, stored "
            f"{result['run_key'][:8]}); use the version that its provenance.json names"
        )
    runs = (run,) if run.reward_model is None else (reward_run(run), run)
    again = folder.parent.parent / f".rerun-{uuid.uuid4().hex[:8]}" / "again"
    try:
        again.mkdir(parents=True, mode=0o700)
        planned = [PlannedRun(run_key(one), "again", one) for one in runs]
        threads = int(read_json(folder / "provenance.json")["machine"]["threads"])
        options = SweepOptions("inline", math.inf, track=False, threads=threads)
        failed = run_packs(again, len(planned), planned, 1, CommandOutput(Console(quiet=True)), options)
        if failed:
            raise InputError(f"{folder}: could not be trained again", *failed)
        new_folder = find_run(again, result["run_key"])
        new_result = load_result(new_folder) if new_folder is not None else None
        assert new_folder is not None and new_result is not None  # nothing failed
        return compare(folder, result, new_folder, new_result)
    finally:
        shutil.rmtree(again.parent, ignore_errors=True)


def compare(old: Path, old_result: Mapping[str, Any], new: Path, new_result: Mapping[str, Any]) -> Comparison:
    """How two finished folders of one run differ."""
    unequal = [name for name in TABLES if not _equal_tables(old / name, new / name)]
    before, after = old_result["results"], new_result["results"]
    names = sorted({*before, *after})
    gaps = {name: _gap(before.get(name), after.get(name)) for name in names}
    largest = max(gaps.values(), default=0.0)
    same = old_result["status"] == new_result["status"]
    if same and not unequal and largest == 0:
        return Comparison("T1", 0.0, ("bitwise equal: every stored value and every result (T1)",))
    lines = [f"{name}: values differ" for name in unequal]
    if not same:
        lines.append(f"status: {old_result['status']}, again {new_result['status']}")
    lines += [f"{name}: {before.get(name)!r}, again {after.get(name)!r}" for name in names if gaps[name]]
    lines += _provenance(old, new)
    if same and largest <= TOLERANCE:
        head = f"within tolerance: final measures differ by at most {largest:.1e} (<= {TOLERANCE:g}, T2)"
        return Comparison("T2", largest, (head, *lines))
    return Comparison("", largest, ("different", *lines))


def _gap(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    return 0.0 if a == b or (a != a and b != b) else abs(a - b)


def _equal_tables(a: Path, b: Path) -> bool:
    if not (a.exists() and b.exists()):
        return a.exists() == b.exists()
    one, two = read_table(a), read_table(b)
    return list(one) == list(two) and all(
        np.array_equal(one[name], two[name], equal_nan=one[name].dtype.kind == "f") for name in one
    )


def _provenance(old: Path, new: Path) -> list[str]:
    """What of code, data, reference and machine is not the same in two provenance records."""
    one, two = (_leaves(read_json(folder / "provenance.json")) for folder in (old, new))
    return [
        f"provenance {name}: {one.get(name)!r}, again {two.get(name)!r}"
        for name in sorted({*one, *two})
        if one.get(name) != two.get(name)
    ]


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: leaf for k, child in value.items() for key, leaf in _leaves(child, f"{name}.{k}".lstrip(".")).items()}


def run_of(config: Mapping[str, Any]) -> RunSpec:
    """The run of a stored config: the inverse of `identity.plain`. Raises InputError where a field is unknown now."""
    try:
        run: RunSpec = _built(RunSpec, config)
    except (TypeError, ValueError) as error:
        raise InputError(f"config of the run: this version of the code cannot read it ({error})") from None
    return run


def _built(kind: Any, value: Any) -> Any:
    options = [option for option in (*typing.get_args(kind), kind) if dataclasses.is_dataclass(option)]
    if options and isinstance(value, Mapping):
        # A section may have two forms: the one whose fields these are.
        make: Any = next((o for o in options if value.keys() <= {f.name for f in dataclasses.fields(o)}), options[0])
        hints = typing.get_type_hints(make)
        return make(**{name: _built(hints.get(name), child) for name, child in value.items()})
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(child) for child in value) if isinstance(value, list) else value
