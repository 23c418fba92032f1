"""A report section: the metric of this package, by objective."""

from __future__ import annotations

from harness.metrics import METRICS
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Table, fields
from harness.report.render.text import visible
from harness.report.sections.row import Section
from harness.storage.runs import read_table


def ties(data: ReportData) -> Content | None:
    """A table of near ties at the last step on held-out pairs, a row per finished run; None without any."""
    rows = []
    for run in data.sweep.runs:
        if run.status == "done" and run.folder is not None:
            table = read_table(run.folder / "examples.parquet")
            last = (table["split"] == "eval_clean") & (table["step"] == table["step"].max())
            share = METRICS["near_tie_rate"].compute({name: values[last] for name, values in table.items()})
            rows.append(fields(visible(run.objective), visible(run.corruption), str(run.seed), f"{share:.3f}"))
    header = ("Objective", "corruption", "seed", "near ties")
    return Content("How many pairs are all but tied?", "", (Table("Near ties", header, tuple(rows)),)) if rows else None


TIES = Section("ties", "Near ties", ties)
