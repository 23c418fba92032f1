"""Laws of report sections: what a row states, and what it makes of a sweep's folder."""

from __future__ import annotations

import re
from pathlib import Path

from harness.laws import hold
from harness.report.data.context import read_material
from harness.report.render.blocks import Section
from harness.report.sections.registry import Row


def states_itself(row: Row) -> None:
    """The name is an anchor, the short name one line."""
    hold(re.fullmatch(r"[a-z][a-z0-9_-]*", row.name) is not None, "name: expected lower-case letters, digits, - and _")
    hold(bool(row.short) and row.short.isprintable(), "short: expected one line for the table of contents")


def draws(row: Row, sweep_folder: Path) -> None:
    """It makes a section of a sweep, or none."""
    section = row.make(read_material(sweep_folder))
    hold(
        section is None or isinstance(section, Section),
        f"make returns {type(section).__name__}; expected Section or None",
    )


LAWS = (states_itself,)
