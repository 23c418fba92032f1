"""The tables that docs/statistics.md states are what the simulation gives."""

from __future__ import annotations

import pytest

from tests.metrics.simulate_coverage import BREAKDOWN_N, BREAKDOWN_RATES, KINDS, SIZES, TABLES, coverage, stated


def test_the_coverage_in_the_documentation_is_what_the_simulation_gives():
    """The t columns; the bootstrap's take a minute and are printed by the same command."""
    for kind, row in stated("means").items():
        if kind in KINDS:
            assert [float(cell) for cell in row[:3]] == pytest.approx(
                [coverage("t", kind, n) for n in SIZES], abs=0.0006
            )


def test_every_table_of_the_documentation_is_there():
    assert all(len(stated(name)) > 3 for name in TABLES)
    assert len(stated("breakdown")["straight"]) == len(BREAKDOWN_N) * len(BREAKDOWN_RATES)


def test_the_bootstrap_it_is_compared_with_covers_normal_data():
    assert coverage("studentised", "normal", 10, repeats=800) == pytest.approx(0.954, abs=0.02)
