"""What was predicted of the runs before they were trained, beside what they did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics.prediction import Calibration, calibration
from harness.report.data.cells import Cell, cell_columns
from harness.report.data.report_data import ReportData
from harness.report.data.tables import csv_bytes
from harness.report.render.blocks import Content, Lines, Table, fields, present
from harness.report.render.figures import GRID, Picture, line_style, picture, shape_of
from harness.report.render.text import DASH, ascii_visible, quantity, visible
from harness.report.sections.row import Section

MAX_PANELS = 6
COLUMNS = ("predicted", "low", "high", "measured", "n", "covered", "reason")


@dataclass(frozen=True, slots=True)
class Met:
    """A cell of which something was said: the mean prediction and band of its finished runs, their measured mean, and
    how many of the `n` runs lie in their own band. Without a prediction `reason` says why."""

    cell: Cell
    predicted: float | None
    low: float | None
    high: float | None
    measured: float | None
    n: int
    covered: int
    reason: str


def prediction(data: ReportData) -> Content | None:
    """Every sweep with a `prediction.json`."""
    if data.prediction is None:
        return None
    met = meet(data.cells, data.prediction)
    known = [one for one in met if one.predicted is not None and one.measured is not None]
    by_condition = {c.title: [one for one in known if one.cell in c.cells] for c in data.conditions}
    by_condition = {title: ones for title, ones in by_condition.items() if ones}
    after = data.prediction["finished_before"]
    late = (
        f" It was made after {quantity(after, 'run')} of the sweep had ended: it is no prediction of those."
        if after
        else " No run of the sweep had ended by then."
    )
    return Content(
        "Was it predicted?",
        f"Ranking accuracy as `harness plan --predict` wrote it down at {visible(data.prediction['made'])} from short"
        " pilots, beside what training reached. R2, slope and mean absolute error are over cells (means over seeds);"
        " coverage is the share of runs within their own band." + late,
        present(_picture(data, by_condition), _table(by_condition, known), _reasons(met)),
    )


def prediction_csv(data: ReportData, content: Mapping[str, Any]) -> bytes:
    """`prediction.csv` of a report: a row per cell of which something was said."""
    rows = [
        cell_columns(one.cell, data.sweep.axes) | {name: getattr(one, name) for name in COLUMNS}
        for one in meet(data.cells, content)
    ]
    columns = dict.fromkeys(name for cell in data.cells for name in cell_columns(cell, data.sweep.axes))
    return csv_bytes((*columns, *COLUMNS), rows)


def meet(cells: Iterable[Cell], content: Mapping[str, Any]) -> list[Met]:
    """Predictions and results by cell. Cells of which no run was known to the prediction are left out."""
    rows = {row["run_key"]: row for row in content["predictions"]}
    met = []
    for cell in cells:
        said = [rows[run.key] for run in cell.runs if run.key in rows]
        if not said:
            continue
        results = {run.key: value for run in cell.runs if (value := run.measured("ranking_accuracy")) is not None}
        usable = [row for row in said if row["ranking_accuracy"] is not None]
        both = [row for row in usable if row["run_key"] in results]
        values = [results[row["run_key"]] for row in both]
        covered = sum(row["low"] <= value <= row["high"] for row, value in zip(both, values, strict=True))
        middle, low, high = (
            _mean([row[name] for row in both or usable]) for name in ("ranking_accuracy", "low", "high")
        )
        reason = "" if usable else str(said[0]["reason"])
        met.append(Met(cell, middle, low, high, _mean(values), len(values), covered, reason))
    return met


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _calibrated(ones: Sequence[Met]) -> Calibration:
    pairs = [(one.predicted, one.measured) for one in ones if one.predicted is not None and one.measured is not None]
    return calibration([x for x, _ in pairs], [y for _, y in pairs])


def _table(by_condition: Mapping[str, Sequence[Met]], known: Sequence[Met]) -> Table | None:
    if not known:
        return None
    parts = {**by_condition, **({"all conditions": known} if len(by_condition) > 1 else {})}
    rows = []
    for title, ones in parts.items():
        fit, runs = _calibrated(ones), sum(one.n for one in ones)
        share = sum(one.covered for one in ones) / runs
        numbers = [DASH if v is None else f"{v:.3f}" for v in (fit.r2, fit.slope, fit.mae, fit.bias, share)]
        rows.append(fields(title, str(fit.n), *numbers, str(runs)))
    header = ("Condition", "cells", "R2", "slope", "MAE", "predicted - measured", "runs within the band", "runs")
    note = "R2 below 0: the mean of the measured cells would have been the better prediction."
    return Table("Predicted against measured ranking accuracy", header, tuple(rows), note)


def _reasons(met: Iterable[Met]) -> Lines | None:
    cells: dict[str, int] = {}
    for one in met:
        if one.reason:
            cells[one.reason] = cells.get(one.reason, 0) + 1
    lines = tuple(f"{visible(reason)} ({quantity(count, 'cell')})" for reason, count in cells.items())
    return Lines(lines, "Not predicted") if lines else None


def _picture(data: ReportData, by_condition: Mapping[str, Sequence[Met]]) -> Picture | None:
    shown = dict(list(by_condition.items())[:MAX_PANELS])
    if not shown:
        return None
    rows, columns = shape_of(len(shown))

    def paint(_: Any, axes: Any) -> None:
        for panel, (title, ones) in zip(axes.flat, shown.items(), strict=False):
            panel.plot([0, 1], [0, 1], color=GRID, linewidth=1)
            for one in ones:
                look = line_style(data.looks[one.cell.first.objective]) | {"linestyle": "none"}
                assert one.predicted is not None and one.low is not None and one.high is not None
                bar = [[one.predicted - one.low], [one.high - one.predicted]]
                panel.errorbar([one.predicted], [one.measured], xerr=bar, elinewidth=0.6, **look)
            panel.set_title("\n".join(map(ascii_visible, title.split(", "))), fontsize=8.5)
            panel.set_xlim(-0.03, 1.03)
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("predicted")
        axes[0, 0].set_ylabel("measured")

    return picture(
        "prediction",
        "Ranking accuracy: predicted before training, and measured",
        "A point per cell, coloured by objective; bars are the band of the prediction. On the line both agree."
        + (f" The first {MAX_PANELS} of {len(by_condition)} conditions." if len(by_condition) > MAX_PANELS else ""),
        "Predicted and measured ranking accuracy of each cell, a panel per condition.",
        (rows, columns),
        (max(2.7 * columns, 3.4), 2.9 * rows),
        paint,
        sharey=True,
    )


ROWS = (Section("prediction", "Prediction", prediction),)
