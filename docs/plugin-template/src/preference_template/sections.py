"""A report section: the metric of this package, by objective."""

from __future__ import annotations

from harness.metrics import METRICS
from harness.report.data.context import Material
from harness.report.render.blocks import Section, Table, fields
from harness.report.render.text import visible
from harness.report.sections.registry import Row
from harness.storage.runs import read_table


def ties(m: Material) -> Section | None:
    """A table of near ties at the last step on held-out pairs, a row per finished run; None without any."""
    rows = []
    for run in m.sweep.runs:
        if run.status == "done" and run.folder is not None:
            table = read_table(run.folder / "examples.parquet")
            last = (table["split"] == "eval_clean") & (table["step"] == table["step"].max())
            share = METRICS["near_tie_rate"].compute({name: values[last] for name, values in table.items()})
            rows.append(fields(visible(run.objective), visible(run.corruption), str(run.seed), f"{share:.3f}"))
    header = ("Objective", "corruption", "seed", "near ties")
    return Section("How many pairs are all but tied?", "", (Table("Near ties", header, tuple(rows)),)) if rows else None


TIES = Row("ties", "Near ties", ties)
