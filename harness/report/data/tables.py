"""`results.csv` and `costs.csv`: one row per planned run, in spec order."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.report.data.sweep import Run, Sweep, read_sweep
from harness.report.render.text import csv_text
from harness.storage.atomic import write_atomic

# Measured columns of `results.csv` by name: is it a share in [0, 1]?
MEASURES: Mapping[str, bool] = {
    "train_loss_first": False,
    "train_loss_last": False,
    "reward_accuracy": True,
    "ranking_accuracy": True,
    "undesirable_zone": True,
    "chosen_displacement": False,
    "rejected_displacement": False,
    "gold_reward": False,
    "kl": False,
    "ood_ranking_accuracy": True,
}
IDENTITY = ("run_key", "status", "objective", "beta", "corruption", "rate", "misaligned", "seed", "steps")
COSTS = (
    "run_key", "seconds", "tokens", "flops", "peak_memory", "host", "attempt", "pack", "lane", "generated_tokens",
    "reward_flops",
)  # fmt: skip


def write_results(sweep: Sweep | Path) -> tuple[Path, Path]:
    """Writes `results.csv` and `costs.csv` beside the plan and returns their paths.

    `sweep`: as it was read, or its folder. InputError without a plan.
    """
    sweep = read_sweep(sweep) if isinstance(sweep, Path) else sweep
    results, costs = sweep.folder / "results.csv", sweep.folder / "costs.csv"
    columns = result_columns(sweep)
    write_atomic(results, csv_bytes(columns, [result_row(run) for run in sweep.runs]))
    write_atomic(costs, csv_bytes(COSTS, [cost_row(run) for run in sweep.runs]))
    return results, costs


def result_columns(sweep: Sweep) -> tuple[str, ...]:
    """Columns of `results.csv`: the fixed ones, `labels`, `hp.*`, `corruption.*`, further axes, further measures.

    Every hyperparameter and corruption parameter has its column; of the rest only what varies within the sweep.
    """
    named = {name for run in sweep.runs for name in run.settings()}
    settings = sorted(n for n in named if n.startswith("hp.")) + sorted(n for n in named if n.startswith("corruption."))
    axes = [name for name in sweep.axes if name in named and name not in settings]
    known = (*IDENTITY, *MEASURES, "labels", *settings, *axes)
    measured = {name for run in sweep.runs for name in run.results}
    return (*known, *sorted(measured - set(known)))


def result_row(run: Run) -> dict[str, Any]:
    """One row by column name, None where not applicable. `steps` counts the steps done (planned, while pending)."""
    row: dict[str, Any] = dict(run.results)
    row |= {name: run.measured(name) for name in MEASURES}
    return row | {
        "run_key": run.key,
        "status": run.status.value,
        "objective": run.objective,
        "beta": run.beta,
        "corruption": run.corruption,
        "rate": run.rate,
        "misaligned": run.misaligned,
        "seed": run.seed,
        "steps": int(run.result["steps"]) if run.result else run.planned_steps,
        "labels": run.labels,
        **run.settings(),
    }


def cost_row(run: Run) -> dict[str, Any]:
    """One row of `costs.csv`; pending runs have cost nothing yet."""
    costs = run.result["costs"] if run.result else {}
    return {name: costs.get(name) for name in COSTS} | {"run_key": run.key}


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """RFC 4180 text in UTF-8 with `\\n` line ends, floats in full, empty for None, NaN and what a row lacks."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([csv_text(name) for name in columns])
    writer.writerows([_field(row.get(name)) for name in columns] for row in rows)
    return out.getvalue().encode("utf-8")


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if value != value else repr(value)
    return str(value) if isinstance(value, int) else csv_text(value)
