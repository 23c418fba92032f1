"""A choice at several learning rates and budgets, from planted results: it holds, it flips, or too little is shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.identity import canonical_json, run_key, stream_seed
from harness.report.answer import answer
from harness.report.cards import cards
from harness.report.data.report_data import ReportData, read_report_data
from harness.report.page import write_report
from harness.report.render.blocks import Table
from harness.report.sections.levels import levels, levels_sentence
from harness.storage.answer_file import answer_lines
from harness.types import RunSpec, TrainingSpec
from tests.report.fixture import grid, write_sweep

FIRST = TrainingSpec(steps=200, learning_rate=1e-3)
SLOW = replace(FIRST, learning_rate=2.5e-4)
SHORT = replace(FIRST, steps=100)
Truth = Callable[[RunSpec], float]


def planted(
    folder: Path, truth: Truth, trainings: tuple[TrainingSpec, ...], seeds: int = 6, noise: float = 0.01
) -> Path:
    """A sweep on clean labels whose ranking accuracies are `truth` and a little noise of each run."""
    base = grid(betas=1, dials=(0.75,), rates=(0.0,), seeds=seeds, items=8)
    runs = {run_key(run): run for training in trainings for run in (replace(run, training=training) for run in base)}
    write_sweep(folder, list(runs.values()), samples=False)
    for path in folder.glob("*/result.json"):
        value = json.loads(path.read_text())
        del value["sha256"]
        run = runs[value["run_key"]]
        drawn = np.random.default_rng(stream_seed(run.seed, value["run_key"])).normal(0, noise)
        value["results"]["ranking_accuracy"] = truth(run) + float(drawn)
        value["sha256"] = hashlib.sha256(canonical_json(value).encode()).hexdigest()
        path.write_text(json.dumps(value))
    return folder


def holds(run: RunSpec) -> float:
    return {"dpo": 0.9, "ipo": 0.7, "cpo_smooth": 0.6}[run.objective.name] - (0.1 if run.training != FIRST else 0.0)


def flips(run: RunSpec) -> float:
    slow = {"dpo": 0.6, "ipo": 0.7, "cpo_smooth": 0.85}
    return slow[run.objective.name] if run.training == SLOW else holds(run)


def equal_when_slow(run: RunSpec) -> float:
    return 0.6 if run.training == SLOW else holds(run)


def read(folder: Path) -> ReportData:
    return read_report_data(folder, limit=0)  # results alone: the planted ones


def test_a_choice_that_holds_is_said_to_hold(tmp_path: Path) -> None:
    folder = planted(tmp_path / "s", holds, (FIRST, SLOW, SHORT))
    sentence = levels_sentence(read(folder))
    assert sentence == (
        "With clean labels, the choice of dpo over ipo or cpo_smooth holds at both learning rates (0.00025 and 0.001)"
        " and both budgets (100 and 200 steps)."
    )
    write_report(folder, limit=0)
    use = answer_lines(folder / "report")[0]
    assert use.startswith("Use: dpo") and sentence in use, "`status` and the end of a sweep say it"
    assert (folder / "report" / "report.md").read_text().count("holds at both learning rates") == 3


def test_a_choice_that_flips_names_the_axis_it_depends_on(tmp_path: Path) -> None:
    data = read(planted(tmp_path / "s", flips, (FIRST, SLOW, SHORT)))
    sentence = levels_sentence(data)
    assert sentence == (
        "With clean labels, the choice depends on the learning rate: cpo_smooth at learning rate 0.00025 (ipo or dpo"
        " shown worse), dpo at learning rate 0.001 (ipo or cpo_smooth shown worse); the choice of dpo over ipo or"
        " cpo_smooth holds at both budgets (100 and 200 steps)."
    )
    assert answer(data)[-1] == sentence and sentence in cards(data)[0].lines
    content = levels(data)
    assert content is not None and content.lead == sentence
    table = content.blocks[0]
    assert isinstance(table, Table)
    head, kept, worse = ([row[i].main for row in table.rows] for i in range(3))
    assert head == ["learning rate 0.00025", "learning rate 0.001", "100 steps", "200 steps"]
    assert kept[0].startswith("cpo_smooth at beta 5") and "dpo at beta 5: cpo_smooth at beta 5 is ahead by" in worse[0]


def test_too_little_power_is_no_dependence(tmp_path: Path) -> None:
    noisy = levels_sentence(read(planted(tmp_path / "noisy", flips, (FIRST, SLOW), noise=0.3)))
    assert noisy is not None and "cannot be told: no objective is shown worse at any of them." in noisy
    few = levels_sentence(read(planted(tmp_path / "few", flips, (FIRST, SLOW), seeds=5)))
    assert few is not None and few.endswith("depends on the learning rate cannot be told with fewer than 6 seeds.")


def test_what_is_shown_at_one_level_alone_is_no_dependence(tmp_path: Path) -> None:
    sentence = levels_sentence(read(planted(tmp_path / "s", equal_when_slow, (FIRST, SLOW))))
    assert sentence == (
        "With clean labels, whether the choice of dpo depends on the learning rate cannot be told (shown worse: none at"
        " learning rate 0.00025, ipo or cpo_smooth at learning rate 0.001)."
    )


def test_levels_are_compared_where_the_rest_of_the_training_is_the_same(tmp_path: Path) -> None:
    apart = replace(SLOW, steps=100)
    data = read(planted(tmp_path / "apart", holds, (FIRST, apart)))
    assert data.levels == () and levels(data) is None, "rate and budget vary together: neither is known alone"
    assert levels_sentence(read(planted(tmp_path / "one", holds, (FIRST,)))) is None
