"""Section Cleaning: each curation arm beside the same noise left alone, another objective, and clean labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.corruptions import curation
from harness.corruptions.registry import resolve
from harness.report.data.conditions import CURATION
from harness.report.data.report_data import read_report_data
from harness.report.page import write_report
from harness.report.sections.cleaning import cleaning, cleaning_finding
from harness.types import RunSpec
from tests.report.fixture import grid, write_sweep

FLIP = {"kind": "uniform_flip", "rate": 0.2}


def runs(arms: tuple[str, ...]) -> list[RunSpec]:
    """dpo and ipo at two betas under clean labels, flips, and flips that each arm has cleaned."""
    base = grid(("dpo", "ipo"), dials=(0.75,), rates=(0.0, 0.2))
    noisy = [run for run in base if run.corruption.kind != "none"]
    sets = [resolve({"sequence": [FLIP, {"kind": arm, "rate": 0.2}]}) for arm in arms]
    return [*base, *(replace(run, corruption=one) for one in sets for run in noisy)]


def test_every_row_of_curation_is_known() -> None:
    assert set(CURATION) == {row.name for row in curation.ROWS}


def test_gains_are_paired_with_the_labels_as_they_are(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", runs(("crossfit_drop", "curate_relabel")), samples=False)
    data = read_report_data(folder)
    content = cleaning(data)
    assert content is not None
    (table,) = content.blocks
    rows = [[field.main for field in row] for row in table.rows]  # type: ignore[union-attr]
    what = ["as labelled", "crossfit_drop 0.2", "curate_relabel 0.2", "another objective, as labelled", "clean labels"]
    assert [row[1] for row in rows] == 2 * what
    # The first gain by hand: the best beta of each, seed by seed.
    by = {}
    for run in data.sweep.runs:
        if run.objective == "dpo":
            by.setdefault((run.corruption_text, run.beta), {})[run.seed] = run.measured("ranking_accuracy")
    best = {
        text: max((values for (own, _), values in by.items() if own == text), key=lambda v: np.mean(list(v.values())))
        for text in ("uniform_flip 0.2", "uniform_flip 0.2 + crossfit_drop 0.2")
    }
    gain = np.mean([best["uniform_flip 0.2 + crossfit_drop 0.2"][s] - best["uniform_flip 0.2"][s] for s in range(3)])
    assert float(rows[1][3].split()[0].replace("−", "-")) == round(float(gain), 3)
    assert "Does cleaning help?" in write_report(folder).read_text("utf-8")
    finding = cleaning_finding(data)
    assert finding is not None
    shown = finding[1].replace("\u2212", "-")
    assert f"crossfit_drop 0.2 {'+' if gain > 0 else ''}{100 * gain:.1f}".removesuffix(".0") in shown, "as the table"
    assert "curate_relabel 0.2" in shown and "instead ipo at beta" in shown


def test_a_sweep_without_cleaning_has_no_such_section(tmp_path: Path) -> None:
    data = read_report_data(write_sweep(tmp_path / "s", runs(()), samples=False))
    assert cleaning(data) is None and cleaning_finding(data) is None
