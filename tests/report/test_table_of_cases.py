"""The table of cases and its filter: a row per world and corruption, named without the training."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from harness.report.data.report_data import ReportData, read_report_data
from harness.report.render.blocks import Filter, Table
from harness.report.sections.cases import cases
from harness.report.sections.hyperparameters import heat
from tests.report.fixture import grid, write_sweep


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """Two worlds, three rates; with clean labels and a wrong reference also at twice the learning rate."""
    runs = grid(objectives=("dpo", "cpo_smooth"), betas=1, rates=(0.0, 0.2, 0.4), seeds=3, items=48)
    again = [
        replace(run, training=replace(run.training, learning_rate=2 * run.training.learning_rate))
        for run in runs
        if run.corruption.kind == "none" and run.world is not None and run.world.misaligned
    ]
    folder = tmp_path_factory.mktemp("cases") / "s"
    return read_report_data(write_sweep(folder, [*runs, *again], samples=False))


def test_a_row_per_world_and_corruption_with_what_none_is_shown_to_beat(data: ReportData) -> None:
    found = cases(data)
    assert found is not None
    filters, table = found.blocks
    assert isinstance(filters, Filter) and isinstance(table, Table)
    assert [[text for _, text in options] for _, options in filters.groups] == [
        ["reference wrong on 75\u00a0% of topics", "reference right on every topic"],
        ["clean labels", "20\u00a0% flips", "40\u00a0% flips"],
    ], "the learning rate is no part of the world"
    assert len(table.rows) == 6 and table.row_tags == ("w0 n0", "w0 n1", "w0 n2", "w1 n0", "w1 n1", "w1 n2")
    for row, case in zip(table.rows, data.cases, strict=True):
        assert row[0].main == case.labels and row[0].sub == case.world and case.lead is not None
        means = {cell.named: cell.estimate(case.measure).mean for cell in case.arena.cells}
        assert means[case.lead.named] == max(means.values()), "the best mean leads"
        assert case.over is not None and "dpo" in {case.lead.first.objective, case.over.over.first.objective}
        word = "interval above 0" if case.over.interval.low > 0 else "interval not above 0"
        assert row[-1].sub.endswith(f": {word}"), "three seeds are no verdict"


def test_settings_of_which_every_value_is_recommended_are_not_named(data: ReportData) -> None:
    clean = data.cases[0]
    rates = {cell.first.config["training"]["learning_rate"] for cell in clean.arena.cells}
    for choice in clean.choices:
        named = {dict(setting)["training.learning_rate"] for _, setting in choice.arms}
        assert ("learning rate" in choice.text) == (named != rates) or len(rates) == 1


def test_the_filter_knows_tables_and_columns_of_the_heat_map(data: ReportData) -> None:
    found = heat(data)
    assert found is not None
    first = next(block for block in found.blocks if isinstance(block, Table))
    assert first.tags == "w0" and first.column_tags[:4] == ("", "n0", "n1", "n2")
    assert all(re.fullmatch(r"(n\d)?", tag) for tag in first.column_tags)
    assert len(first.column_tags) == len(first.header)
