"""The row of a section, and the page that sections make together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from harness.report.render.blocks import Card, Content
from harness.report.render.figures import Picture, write_pictures
from harness.report.render.jinja import render
from harness.storage.atomic import write_atomic

Source = TypeVar("Source")


@dataclass(frozen=True)
class Section(Generic[Source]):
    """`name` is the anchor on the page, `short` the name in the table of contents; `make` gives None without data."""

    name: str
    short: str
    make: Callable[[Source], Content | None]


def make_sections(rows: Iterable[Section[Source]], data: Source) -> tuple[tuple[Section[Source], Content], ...]:
    """The sections that there is data for, in the order of the rows."""
    made = [(row, row.make(data)) for row in rows]
    return tuple((row, content) for row, content in made if content is not None)


@dataclass(frozen=True)
class Page(Generic[Source]):
    """Everything the templates show, as plain text without markup. `heroes` are the figures that head the page; where
    there are cards, sections that `open` does not name are folded, and so is the answer, under `folded`."""

    kind: str
    name: str
    question: str
    answer: tuple[str, ...]
    status: str
    sections: tuple[tuple[Section[Source], Content], ...]
    texts: str
    context: str = ""  # what stands below the question
    warnings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    axes: tuple[tuple[str, str], ...] = ()
    cards: tuple[Card, ...] = ()
    heroes: tuple[Picture, ...] = ()
    open: tuple[str, ...] = ()
    folded: str = "In full sentences: same KL, each at its best, and where the baseline fails"
    private: bool = False  # quotes pairs of a data set: sections alone, without the answer
    script: bool = True  # whether the page has the small script that sorts and copies tables


def write_page(folder: Path, page: Page[Source]) -> Path:
    """Writes `index.html`, `report.md` and `figures/` into a report's folder; the path of `index.html`."""
    write_pictures(
        folder / "figures", [*page.heroes, *(picture for _, content in page.sections for picture in content.pictures)]
    )
    write_atomic(folder / "report.md", render("report.md", page))
    write_atomic(folder / "index.html", render("index.html", page))
    return folder / "index.html"
