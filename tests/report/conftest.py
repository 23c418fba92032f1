"""Sweep folders shared by the report's tests; each test that writes into one copies it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.fixture import grid, write_sweep


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 80 simulated runs with a Bradley-Terry cell, one pending and one diverged run; no report yet."""
    runs = grid(bradley_terry=True)
    return write_sweep(
        tmp_path_factory.mktemp("out") / "pristine", runs, skip=[3], diverged=[7], notes=["2 rows dropped: empty"]
    )
