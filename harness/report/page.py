"""`write_report`: tables, figures and one self-contained page, from the files of a sweep folder alone.

The bytes depend on those files only: no clock, locale, time zone, working directory or row order enters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.report.data.cells import cells_csv
from harness.report.data.context import PER_EXAMPLE_RUNS, Material, read_material
from harness.report.data.contrasts import contrasts_csv
from harness.report.data.tables import write_run_tables
from harness.report.render.blocks import Section
from harness.report.render.jinja import render
from harness.report.render.text import visible
from harness.report.sections.answer import answer
from harness.report.sections.methods import asked, flags, status_line, warnings
from harness.report.sections.registry import Row, sections
from harness.report.texts import BANNER
from harness.storage.atomic import write_atomic
from harness.storage.plan_file import PRIVATE


@dataclass(frozen=True)
class Page:
    """Everything the templates show, as plain text without markup."""

    name: str
    question: str
    answer: tuple[str, ...]
    warnings: tuple[str, ...]
    status: str
    flags: tuple[str, ...]
    axes: tuple[tuple[str, str], ...]
    sections: tuple[tuple[Row, Section], ...]
    texts: str


def write_report(sweep_folder: Path, limit: int = PER_EXAMPLE_RUNS, texts: str = "") -> Path:
    """Writes `results.csv`, `costs.csv` and `report/` (page, Markdown, `cells.csv`, `contrasts.csv`, figures).

    Returns the path of `report/index.html`. Works while runs or their records are missing (the page says which); above
    `limit` runs no per-example record is read. `texts`, one of `TEXTS`, stands for what the spec says of texts; quotes
    of `data` go to `report/private.html`. Raises InputError where there is no readable plan.
    """
    m = read_material(Path(sweep_folder), limit, texts)
    write_run_tables(m.sweep)
    folder = m.sweep.folder / "report"
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "cells.csv", cells_csv(m.cells, m.sweep.axes))
    write_atomic(folder / "contrasts.csv", contrasts_csv(m.cells, m.baseline, m.sweep.axes))
    page = build_page(m)
    pictures = [picture for _, section in page.sections for picture in section.pictures]
    for old in (folder / "figures").glob("*.svg"):
        if old.stem not in {picture.name for picture in pictures}:
            old.unlink()  # left by an earlier report of this sweep that could draw more
    for picture in pictures:
        write_atomic(folder / "figures" / f"{picture.name}.svg", picture.svg)
    write_atomic(folder / "report.md", render("report.md", page))
    write_atomic(folder / "index.html", render("index.html", page))
    _write_private(m, folder / PRIVATE)
    return folder / "index.html"


def _write_private(m: Material, path: Path) -> None:
    """The sections that quote, on a page of their own; without any the file of an earlier report goes."""
    policy = m.texts.private
    page = None if policy is None else build_page(replace(m, texts=policy))
    quoting = () if page is None else tuple((row, found) for row, found in page.sections if found.quotes)
    if page is None or not quoting:
        path.unlink(missing_ok=True)
        return
    write_atomic(path, render("private.html", replace(page, sections=quoting, warnings=(BANNER,))))


def build_page(m: Material) -> Page:
    """All texts of the page."""
    return Page(
        name=visible(m.sweep.name),
        question=visible(m.sweep.question) or "What does this sweep show?",
        answer=answer(m),
        warnings=warnings(m),
        status=status_line(m.sweep),
        flags=flags(m.sweep, m.cells),
        axes=asked(m.sweep, m.cells),
        sections=sections(m),
        texts=m.texts.shown,
    )
