"""The row of a section: its anchor, its name in the table of contents, and the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content


@dataclass(frozen=True, slots=True)
class Section:
    """`name` is the anchor on the page, `short` the name in the table of contents; `make` gives None without data."""

    name: str
    short: str
    make: Callable[[ReportData], Content | None]
