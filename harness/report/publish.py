"""`publish`: one folder of a sweep that may leave the machine: tables, provenance, figures and a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.report.answer import answer
from harness.report.data.cells import Cell, build_cells, cells_csv
from harness.report.data.conditions import build_conditions, build_families
from harness.report.data.contrasts import contrasts_csv
from harness.report.data.frontier import Arena, build_arenas
from harness.report.data.published import PUBLISHED, published_record, read_published
from harness.report.data.report_data import read_report_data
from harness.report.data.run_facts import REWARD_MODEL
from harness.report.data.tables import csv_bytes, result_columns, result_row
from harness.report.page import axes, flags
from harness.report.render.figures import Picture, write_pictures
from harness.report.render.jinja import render
from harness.report.render.text import visible
from harness.report.sections.registry import SECTIONS
from harness.storage.atomic import read_json, write_atomic, write_json
from harness.storage.plan_file import read_plan_file
from harness.types import InputError


@dataclass(frozen=True)
class Card:
    """What `README.md` of a published folder shows, as plain text."""

    name: str
    question: str
    answer: tuple[str, ...]
    status: str
    flags: tuple[str, ...]
    axes: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]


def publish_sweep(folder: Path, to: Path) -> Path:
    """Write the published form of a sweep's folder to `to`, and return its path.

    Everything is drawn from `published.json` and from measures of pairs; figures are those of the built-in sections.
    Raises InputError for a study, and where `to` holds anything but an earlier published form of the same sweep.
    """
    if (folder / "study.json").is_file():
        raise InputError(f"{folder}: is a study; publish takes the folder of a sweep")
    name, record = read_plan_file(folder)["name"], to / PUBLISHED
    if to.exists() and (not to.is_dir() or (any(to.iterdir()) and not record.is_file())):
        raise InputError(f"--to {to}: exists and is no published folder; choose another name")
    if record.is_file() and (other := dict(read_json(record)).get("name")) != name:
        raise InputError(
            f"--to {to}: holds the published form of sweep '{other}', not of '{name}'; choose another name"
        )
    data = read_report_data(folder, texts="none", public=True)
    facts = data.cells[0].facts
    to.mkdir(parents=True, exist_ok=True)
    write_json(record, published_record(data.sweep, facts))
    sweep = read_published(to)
    cells = build_cells(sweep, facts)
    write_atomic(to / "results.csv", csv_bytes(result_columns(sweep), [result_row(run) for run in sweep.runs]))
    write_atomic(to / "cells.csv", cells_csv(cells, sweep.axes))
    write_atomic(to / "contrasts.csv", contrasts_csv(_arenas(cells, sweep.axes), data.baseline, sweep.axes))
    made = [row.make(data) for row in SECTIONS.built_in.values()]
    pictures = tuple(picture for content in made if content is not None for picture in content.pictures)
    write_pictures(to / "figures", pictures)
    card = Card(
        visible(sweep.name), visible(sweep.question), answer(data), sweep.status_line, flags(sweep, cells),
        axes(sweep, cells), pictures,
    )  # fmt: skip
    write_atomic(to / "README.md", render("published.md", card))
    return to


def _arenas(cells: Sequence[Cell], axes: Sequence[str]) -> tuple[Arena, ...]:
    """What objectives are compared in, as in the report: policies, and of replicas one."""
    policies = [cell for cell in cells if cell.first.objective != REWARD_MODEL]
    conditions = build_conditions(policies or cells, axes)
    first = [one for one in conditions if one.first.replica == conditions[0].first.replica]
    return build_arenas((one for family in build_families(first) for one in family.conditions), axes)
