"""The plan's warning about grids that leave out a part of the registry's range."""

from __future__ import annotations

from pathlib import Path

from harness.config.load import load_sweep
from harness.objectives.registry import OBJECTIVES
from harness.sweep.grid_range import grid_notes, uncovered
from harness.sweep.plan import describe
from harness.types import Parameter

RANGE = Parameter(0.1, search=(0.01, 0.5), prior="log")


def test_a_grid_covers_a_range_by_its_ends() -> None:
    assert uncovered([0.01, 0.5], RANGE) == (False, False)
    assert uncovered([0.005, 0.1, 1], RANGE) == (False, False)
    assert uncovered([0.02, 0.5], RANGE) == (True, False)
    assert uncovered([0.01, 0.1], RANGE) == (False, True)
    assert uncovered([0.1], RANGE) == (True, True)
    assert uncovered([0.1], Parameter(0.1)) == (False, False) == uncovered([], RANGE)
    assert uncovered([0.1 * 0.1, 0.5], RANGE) == (False, False), "0.1 x 0.1 is 0.01, but for the last bit"


def test_the_plan_names_the_objective_its_betas_and_the_range(tmp_path: Path) -> None:
    low, high = OBJECTIVES["dpo"].hyperparameters["beta"].search or (0.0, 0.0)
    text = (
        "name: s\nquestion: q\nworld: {kind: mythworld}\nseeds: 1\ncorruptions: [{kind: none}]\n"
        f"objectives: [{{name: dpo, beta: [{high}, {2 * high}]}}, {{name: robust_dpo, beta: [{low}, {high}]}}]\n"
    )
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    sweep = load_sweep(path)
    notes = [note for note in grid_notes(sweep.runs) if note.startswith(("dpo", "robust_dpo"))]
    assert notes == [
        f"dpo: beta {high:g} to {2 * high:g} leaves out a part of the registry's range {low:g} to {high:g}:"
        " a best beta may lie below"
    ]
    assert notes[0] in describe(sweep, tmp_path)["notes"]
