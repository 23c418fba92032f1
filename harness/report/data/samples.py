"""Free-running samples of a few cells, as columns: read once, with what could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.metrics.records import Array, Bools, Columns, flags, numbers, size
from harness.metrics.samples import EVALUATION_SPLITS
from harness.metrics.sentinel import watch
from harness.report.data.cells import Cell
from harness.report.data.sweep import Run

# What goes wrong in an answer, by its column in `samples.parquet`: name, and the question type that invites it.
FAULTS: Mapping[str, tuple[str, str]] = {
    "over_refusal": ("over-refusal", "trick"),
    "sycophantic": ("sycophancy", "pushed"),
    "harmful": ("harmful compliance", "secret"),
}
REFERENCE = "reference_"


def read_samples(cells: Sequence[Cell]) -> tuple[dict[str, dict[str, Array]], tuple[str, ...]]:
    """Samples by run key of the finished runs that drew any, and a sentence about files that cannot be read."""
    samples: dict[str, dict[str, Array]] = {}
    damaged: list[str] = []
    for run in (run for cell in cells for run in cell.runs if run.done):
        try:
            table = run.table("samples.parquet")
        except (OSError, ValueError):
            damaged.append(run.key[:8])
            continue
        if table is not None:
            samples[run.key] = table
    text = f"samples of {len(damaged)} runs cannot be read ({', '.join(damaged[:3])}); `harness verify` names them"
    return samples, (text,) if damaged else ()


@dataclass(frozen=True, slots=True)
class WorstPair:
    """A row of `worst.parquet`. `row` of the data file is None, `group` empty where it is not known."""

    split: str
    id: str
    prompt: str
    chosen: str
    rejected: str
    row: int | None
    group: str


def row_of(table: Columns, place: int) -> int | None:
    """The row of the data file that a row of a table comes from; None where it is not known."""
    return int(table["row"][place]) if "row" in table else None


def read_worst(run: Run) -> list[WorstPair]:
    """The rows of `worst.parquet` in their order; none where the run kept none. OSError where it is damaged."""
    table = run.table("worst.parquet")
    if table is None:
        return []
    groups = table.get("group", np.full(size(table), ""))
    names = ("split", "id", "prompt", "chosen", "rejected")
    return [
        WorstPair(**{name: str(table[name][i]) for name in names}, row=row_of(table, i), group=str(groups[i]))
        for i in range(size(table))
    ]


def faults_of(samples: Mapping[str, Columns], cell: Cell) -> list[str]:
    """The sentinel's flags that fire in more than half of a cell's sampled runs: worse than the reference's answers."""
    by_run = [watch(samples[run.key]).flags for run in cell.runs if run.key in samples]
    names = sorted({name for fired in by_run for name in fired})
    return [f"{name} in {n}/{len(by_run)}" for name in names if 2 * (n := sum(name in f for f in by_run)) > len(by_run)]


def split_of(samples: Columns, name: str) -> Bools:
    """The rows of one split, `eval` or `ood`."""
    split = np.asarray(samples["split"]).astype(str)
    return np.isin(split, EVALUATION_SPLITS) if name == "eval" else np.asarray(split == name)


def rate(samples: Columns, column: str, mask: Bools) -> tuple[float, int] | None:
    """(mean of a flag or number over the masked rows, their prompts); None where unknown or without rows."""
    if column not in samples or not mask.any():
        return None
    values = numbers(samples, column)[mask]
    known = ~np.isnan(values)
    if not known.any():
        return None
    # Several answers to a prompt are no observations of their own. Prompts that merely have one text are.
    prompts = int(known.sum()) if "answer" not in samples else int((numbers(samples, "answer")[mask][known] == 0).sum())
    return float(values[known].mean()), prompts


def of_type(samples: Columns, group: str) -> Bools:
    """The rows of one question type; all rows where the samples know no such type."""
    groups = np.asarray(samples["group"]).astype(str)
    mask = np.asarray(groups == group)
    return mask if mask.any() else np.ones(size(samples), dtype=bool)


def fault(samples: Columns, row: int) -> str:
    """The faults of one answer in words: `sycophancy`, `malformed`, `wrong`, or nothing."""
    names = [name for column, (name, _) in FAULTS.items() if column in samples and flags(samples, column)[row]]
    if "malformed" in samples and flags(samples, "malformed")[row]:
        names.append("malformed")
    if not names and "correct" in samples and not flags(samples, "correct")[row]:
        names.append("wrong")
    return ", ".join(names)
