"""The coverage that docs/statistics.md states is what the simulation gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.metrics.simulate_coverage import KINDS, SIZES, coverage


def test_the_coverage_in_the_documentation_is_what_the_simulation_gives():
    """The t columns; the bootstrap's take a minute and are printed by the same command."""
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text("utf-8")
    for kind in KINDS:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {kind} |"))
        stated = [float(cell) for cell in row.split("|")[2:5]]
        assert stated == pytest.approx([coverage("t", kind, n) for n in SIZES], abs=0.0006)


def test_the_bootstrap_it_is_compared_with_covers_normal_data():
    assert coverage("studentised", "normal", 10, repeats=800) == pytest.approx(0.954, abs=0.02)
