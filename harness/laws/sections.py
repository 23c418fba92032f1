"""Laws of report sections: what a row states, and what it makes of a sweep's folder."""

from __future__ import annotations

import re
from pathlib import Path

from harness.laws import hold
from harness.report.data.report_data import ReportData, read_report_data
from harness.report.render.blocks import Content
from harness.report.sections.row import Section


def states_itself(row: Section[ReportData]) -> None:
    """The name is an anchor, the short name one line."""
    hold(re.fullmatch(r"[a-z][a-z0-9_-]*", row.name) is not None, "name: expected lower-case letters, digits, - and _")
    hold(bool(row.short) and row.short.isprintable(), "short: expected one line for the table of contents")


def draws(row: Section[ReportData], sweep_folder: Path) -> None:
    """It makes a section of a sweep, or none."""
    content = row.make(read_report_data(sweep_folder))
    right = content is None or isinstance(content, Content)
    hold(right, f"make returns {type(content).__name__}; expected Content or None")


LAWS = (states_itself,)
