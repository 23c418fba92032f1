"""A sweep as pandas tables, for notebooks: `harness.load("runs/quick")`. Reads files of the sweep's folder on demand.

Columns have types: names are categories, counts integers, shares and log-probs floats, flags booleans. What does not
apply (the beta of an objective without one) is missing, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.metrics import METRICS, Metric
from harness.metrics.records import Array
from harness.report.data.sweep import Run, Sweep, read_sweep
from harness.report.data.tables import COSTS, cost_row, result_columns, result_row
from harness.text import look_up, suggestion
from harness.types import InputError, Split

# Splits of the per-example records by the letter under which a measure's row lists them; S are the samples.
LETTERS = {Split.TRAIN_OBSERVED: "O", Split.TRAIN_CLEAN: "C", Split.HELDOUT: "E", Split.OOD: "D"}
IDENTITY = ("run_key", "objective", "beta", "corruption", "rate", "misaligned", "seed")
TEXT = ("run_key", "id", "prompt", "response")  # one value a row, nearly: no categories


@dataclass(frozen=True)
class Frames:
    """The tables of one sweep folder. Every one is read when first asked for."""

    folder: Path

    @cached_property
    def sweep(self) -> Sweep:
        """Plan and results, as the report reads them."""
        return read_sweep(self.folder)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a planned run in spec order: the columns of `results.csv`, then those of `costs.csv`."""
        columns = (*result_columns(self.sweep), *COSTS[1:])
        rows = [result_row(run) | cost_row(run) for run in self.sweep.runs]
        return typed(pd.DataFrame({name: [row.get(name) for row in rows] for name in columns}))

    @property
    def cells(self) -> pd.DataFrame:
        """`report/cells.csv`: mean and interval over seeds of every cell and measure."""
        return self._report("cells.csv")

    @property
    def contrasts(self) -> pd.DataFrame:
        """`report/contrasts.csv`: every objective against the baseline, paired by seed."""
        return self._report("contrasts.csv")

    def examples(self, run_key: str) -> pd.DataFrame:
        """The per-example records of a run (its key, or the first characters of it): a row a pair, step and split."""
        return typed(pd.DataFrame(self._table(self.find(run_key), "examples.parquet")))

    def samples(self, run_key: str) -> pd.DataFrame:
        """The free-running samples that a run drew at its end."""
        return typed(pd.DataFrame(self._table(self.find(run_key), "samples.parquet")))

    def ledger(self, run_key: str) -> pd.DataFrame:
        """What the corruption did, a row a touched pair; no rows where the run's labels are clean."""
        run = self.find(run_key)
        if run.corruption == "none":
            return pd.DataFrame({"id": pd.Series(dtype=str)})
        return typed(pd.DataFrame(self._table(run, "ledger.parquet")))

    def measure(self, name: str) -> pd.DataFrame:
        """A row of METRICS over the stored records of every finished run, at each step and on each split it is for.

        Columns: `run_key, objective, beta, corruption, rate, misaligned, seed`, the sweep's further axes, `step, split,
        value`. A run to which the measure does not apply (it needs beta, the objective has none) has no rows; `value`
        is missing where it is not defined, as for a policy that is not finite. Raises InputError for an unknown name,
        and where no run has what the measure needs.
        """
        row = look_up(METRICS, name, "measure")
        axes = [axis for axis in self.sweep.axes if axis not in IDENTITY]
        rows: list[dict[str, Any]] = []
        reasons: list[str] = []
        for run in (run for run in self.sweep.runs if run.status.final):
            settings = {key: value for key, value in result_row(run).items() if key in (*IDENTITY, *axes)}
            try:
                rows += [settings | value for value in values(run, row, self._table(run, file_of(row)))]
            except InputError as absent:
                reasons += absent.problems
        if not rows:
            reason = reasons[0] if reasons else "no finished run"
            raise InputError(f"measure '{name}': no run of {self.folder} has it ({reason})")
        columns = (*IDENTITY, *axes, "step", "split", "value")
        return typed(pd.DataFrame({column: [one.get(column) for one in rows] for column in columns}))

    def find(self, run_key: str) -> Run:
        """The run whose key begins with `run_key`. Raises InputError where none or several do."""
        runs = [run for run in self.sweep.runs if run.key.startswith(run_key)] if run_key else []
        if len(runs) == 1:
            return runs[0]
        if runs:
            shown = ", ".join(run.key[: len(run_key) + 6] for run in runs[:5])
            raise InputError(f"'{run_key}' matches {len(runs)} runs of {self.folder} ({shown}); use a longer prefix")
        near = suggestion(run_key[:8], [run.key[:8] for run in self.sweep.runs])
        raise InputError(f"unknown run '{run_key}' in {self.folder}{near} (all keys: .runs.run_key)")

    def _table(self, run: Run, file: str) -> dict[str, Array]:
        table = run.table(file)
        if table is None:
            raise InputError(f"run {run.key[:8]} ({run.status}) has no {file} in {self.folder}")
        return table

    def _report(self, file: str) -> pd.DataFrame:
        path = self.folder / "report" / file
        if not path.is_file():
            raise InputError(f"{path}: no such file; run `harness report {self.folder}` first")
        return read_csv(path)


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV table that the harness wrote, with a type for every column."""
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    return typed(pd.DataFrame({name: [_value(field) for field in column] for name, column in text.items()}))


def load(folder: Path | str) -> Frames:
    """The tables of the sweep under `folder`. Raises InputError where there is no plan."""
    path = Path(folder)
    if not (path / "plan.json").is_file():
        raise InputError(f"{path}: no plan.json here; give the folder of one sweep, e.g. runs/quick")
    return Frames(path)


def file_of(row: Metric) -> str:
    """The file of a run that holds what a measure reads."""
    return "samples.parquet" if row.splits == "S" else "examples.parquet"


def values(run: Run, row: Metric, table: Mapping[str, Array]) -> Iterator[dict[str, Any]]:
    """`step`, `split` and `value` of a measure over a run's records. Raises InputError where it cannot be computed."""
    steps = table.get("step", np.full(len(table["split"]), run.result["steps"] if run.result else 0))
    keys = pd.DataFrame({"step": steps, "split": table["split"]})
    groups: Mapping[Any, Any] = keys.groupby(["step", "split"], sort=True).indices
    gamma = run.hyperparameters.get("gamma")
    for (step, split), places in groups.items():
        if row.splits == "S" or LETTERS.get(split, "") in row.splits:
            value = row.compute(
                {name: column[places] for name, column in table.items()},
                beta=run.beta,
                gamma=gamma,
                objective=run.objective,
                hyperparameters=run.hyperparameters,
            )
            yield {"step": int(step), "split": split, "value": value}


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with a type for every column: bool, int, float, text or category; missing values stay missing."""
    return pd.DataFrame({name: _typed(str(name), column) for name, column in frame.items()}, columns=frame.columns)


def _value(text: str) -> Any:
    """A field of our CSV files: missing, a number in full, a flag or text."""
    if text in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _typed(name: str, column: pd.Series) -> pd.Series:
    known = column.dropna()
    if column.dtype == bool or (len(known) and all(isinstance(value, bool | np.bool_) for value in known)):
        return column.astype(bool if len(known) == len(column) else "boolean")
    if len(known) == 0 or pd.api.types.is_numeric_dtype(column.infer_objects()):
        return column.astype(np.float64) if column.dtype == object else column
    if all(isinstance(value, int | float | np.number) for value in known):
        return pd.to_numeric(column)
    return column.astype(str if name in TEXT else "category")
