"""`write_report`: tables, figures and one self-contained page, from the files of a sweep folder alone.

The bytes depend on those files only: no clock, locale, time zone, working directory or row order enters.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report import figures, sections
from harness.report.answer import answer, gap_size, rivals
from harness.report.cells import Cell, baseline, build_cells, cells_csv
from harness.report.conditions import Condition, build_conditions, telling
from harness.report.contrasts import build_contrasts, contrasts_csv
from harness.report.damage import damage_picture, damage_sentence, damages
from harness.report.facts import Facts, read_facts
from harness.report.methods import DEFINITIONS, asked, flags, methods, provenance, run_notes
from harness.report.misspecified import misspecified_table
from harness.report.reading import Sweep, read_sweep
from harness.report.style import Picture
from harness.report.tables import write_run_tables
from harness.report.text import markdown, visible
from harness.tracking.store import write_atomic

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """Everything the templates show, as plain text without markup."""

    name: str
    question: str
    answer: str
    status: str
    flags: tuple[str, ...]
    axes: tuple[tuple[str, str], ...]
    approaches: sections.Table
    contrasts: sections.Table | None
    pictures: tuple[dict[str, Any], ...]
    heats: tuple[sections.Table, ...]
    survival: tuple[sections.Table, ...]
    details: tuple[sections.Table, ...]
    methods: tuple[str, ...]
    definitions: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    provenance: tuple[str, ...]


def write_report(sweep_folder: Path) -> Path:
    """Writes `results.csv`, `costs.csv` and `report/` (page, Markdown, `cells.csv`, `contrasts.csv`, figures).

    Returns the path of `report/index.html`. Works while runs are missing (they are counted and shown as such).
    Raises InputError where there is no readable plan.
    """
    sweep = read_sweep(Path(sweep_folder))
    write_run_tables(sweep)
    facts = {run.key: found for run in sweep.runs if (found := read_facts(run)) is not None}
    cells = build_cells(sweep, facts)
    folder = sweep.folder / "report"
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "cells.csv", cells_csv(cells, sweep.axes))
    write_atomic(folder / "contrasts.csv", contrasts_csv(cells, baseline(sweep), sweep.axes))
    conditions = build_conditions(cells, sweep.axes)
    pictures = draw_all(conditions)
    for old in (folder / "figures").glob("*.svg"):
        if old.stem not in {picture.name for picture in pictures}:
            old.unlink()  # left by an earlier report of this sweep that could draw more
    for picture in pictures:
        write_atomic(folder / "figures" / f"{picture.name}.svg", picture.svg)
    page = build_page(sweep, cells, conditions, pictures)
    write_atomic(folder / "report.md", render_markdown(page))
    write_atomic(folder / "index.html", render_html(page))
    return folder / "index.html"


def write_cells(sweep_folder: Path) -> Path:
    """Writes `report/cells.csv` alone and returns its path."""
    sweep, cells = _cells(sweep_folder)
    return _write(sweep, "cells.csv", cells_csv(cells, sweep.axes))


def write_contrasts(sweep_folder: Path) -> Path:
    """Writes `report/contrasts.csv` alone and returns its path."""
    sweep, cells = _cells(sweep_folder)
    return _write(sweep, "contrasts.csv", contrasts_csv(cells, baseline(sweep), sweep.axes))


def _cells(sweep_folder: Path) -> tuple[Sweep, tuple[Cell, ...]]:
    sweep = read_sweep(Path(sweep_folder))
    facts: dict[str, Facts] = {run.key: f for run in sweep.runs if (f := read_facts(run)) is not None}
    return sweep, build_cells(sweep, facts)


def _write(sweep: Sweep, name: str, data: bytes) -> Path:
    path = sweep.folder / "report" / name
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, data)
    return path


def draw_all(conditions: Sequence[Condition]) -> list[Picture]:
    """Every figure that the sweep has data for, in the order of the page."""
    headline = telling(conditions)
    found = damages(conditions)
    # With many kinds one picture compares them; a picture a kind is left to those swept over several rates.
    noise = figures.noise(conditions, rates=3 if found else 2)
    drawn = [damage_picture(found), figures.curves(headline), figures.plane(headline), *noise]
    return [p for p in (*drawn, figures.quality(headline), figures.predicted(conditions)) if p is not None]


def build_page(
    sweep: Sweep, cells: Sequence[Cell], conditions: Sequence[Condition], pictures: Sequence[Picture]
) -> Page:
    """All texts of the page."""
    base, headline = baseline(sweep), telling(conditions)
    contrasts = build_contrasts(cells, base, "ranking_accuracy")
    shown = _cells_of_the_answer(headline, cells, base)
    details = [misspecified_table(conditions)]
    details += [sections.group_table(shown), sections.sample_table(shown)] if shown else []
    return Page(
        name=visible(sweep.name),
        question=visible(sweep.question) or "What does this sweep show?",
        answer=damage_sentence(damages(conditions), base) or answer(headline, cells, contrasts, base),
        status=sections.status_line(sweep),
        flags=flags(sweep, cells),
        axes=asked(sweep, cells),
        approaches=sections.approaches(headline, conditions),
        contrasts=sections.contrast_table(contrasts, headline),
        pictures=tuple(_embedded(picture) for picture in pictures),
        heats=tuple(sections.heat(condition, sweep.axes) for condition in conditions),
        survival=tuple(sections.survival(conditions)),
        details=tuple(table for table in details if table is not None),
        methods=methods(sweep, cells, contrasts, base),
        definitions=DEFINITIONS,
        notes=tuple(visible(note) for note in (*sweep.notes, *run_notes(sweep))),
        provenance=provenance(sweep),
    )


def _cells_of_the_answer(headline: Condition, cells: Sequence[Cell], base: str) -> list[Cell]:
    """The baseline cell with the widest gap and the objective that ranks best beside it."""
    own = [c for c in headline.by_objective.get(base, ()) if c.values("ranking_accuracy")]
    if not own:
        return []
    first = max(own, key=gap_size)
    others = rivals(headline, first, cells, base)
    return [first, *sorted(others, key=lambda c: -c.estimate("ranking_accuracy").mean)[:1]]


def _embedded(picture: Picture) -> dict[str, Any]:
    """As a data image: its ids and styles stay its own, and no script in it could run."""
    texts = {"name": picture.name, "title": picture.title, "caption": picture.caption, "alt": picture.alt}
    size = {"width": picture.width, "height": picture.height}
    return {**texts, **size, "data": base64.b64encode(picture.svg).decode("ascii")}


def render_html(page: Page) -> bytes:
    """The page; autoescape is on for every value."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(TEMPLATES, encoding="utf-8")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Our own style sheet, not data: escaping it would break its quotes.
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704
    return environment.get_template("index.html").render(page=page, style=style).encode("utf-8")


def render_markdown(page: Page) -> bytes:
    """The same as Markdown; every value passes the `md` filter."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = markdown
    text = environment.get_template("report.md").render(page=page)
    return (re.sub(r"\n{3,}", "\n\n", text).strip() + "\n").encode("utf-8")
