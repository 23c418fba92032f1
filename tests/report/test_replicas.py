"""The A/A table of a sweep folder with replicas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from harness.report.data.sweep import read_sweep
from harness.report.data.tables import write_results
from harness.report.page import write_report
from harness.report.sections.statistics import aa_rows
from tests.report.fixture import grid, write_sweep


def test_a_sweep_of_replicas_has_a_check_and_a_column(tmp_path: Path) -> None:
    """Simulated runs of one seed are equal to the last bit: nothing is ever called, by any measure."""
    base = grid(objectives=("dpo",), betas=1, dials=(0.75,), rates=(0.0,), seeds=6)
    runs = [replace(run, replica=replica) for run in base for replica in (0, 1, 2)]
    folder = write_sweep(tmp_path / "replicas", runs, samples=False)
    sweep = read_sweep(folder)
    assert "replica" in sweep.axes
    table = pd.read_csv(write_results(folder)[0])
    assert list(table["replica"]) == [0, 1, 2] * 6
    rows = {row.measure: row for row in aa_rows(sweep)}
    assert {"ranking_accuracy", "undesirable_zone", "chosen_displacement"} <= set(rows) and "kl" not in rows
    for row in rows.values():
        assert row.interval.comparisons == 1000 and row.interval.stored == 18 and row.spread == 0.0
        assert row.interval.share == row.reported.share == 0.0 and row.interval.passed


def test_a_sweep_of_replicas_alone_answers_how_often_it_errs(tmp_path: Path) -> None:
    base = grid(objectives=("dpo", "ipo"), betas=1, dials=(0.75,), rates=(0.0,), seeds=6)
    alone = [replace(run, replica=replica) for run in base if run.objective.name == "dpo" for replica in (0, 1)]
    both = [replace(run, replica=replica) for run in base for replica in (0, 1)]
    pages = [write_report(write_sweep(tmp_path / name, runs)).read_text() for name, runs in (("a", alone), ("b", both))]
    assert "Of 1,000 drawn comparisons of replicas (6 seeds, 12 runs)" in pages[0]
    assert "drawn comparisons of replicas (" not in pages[1], "two objectives are compared there"


def test_few_seeds_and_no_replicas_have_none(tmp_path: Path) -> None:
    base = grid(objectives=("dpo",), betas=1, dials=(0.75,), rates=(0.0,), seeds=5)
    runs = [replace(run, replica=replica) for run in base for replica in (0, 1)]
    assert aa_rows(read_sweep(write_sweep(tmp_path / "few", runs, samples=False))) == ()
    alone = read_sweep(write_sweep(tmp_path / "alone", base, samples=False))
    assert aa_rows(alone) == () and "replica" not in alone.axes
