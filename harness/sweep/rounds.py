"""Seeds in rounds: which runs each round adds, from what the report would say of the runs before.

What is drawn depends on finished runs alone: a sweep that was stopped and resumed draws the same rounds, and a run's
key, seed streams and numbers know nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from harness.config.load import SweepSpec, reward_run
from harness.identity import plain, run_key
from harness.metrics.statistics import is_settled, practical_margin
from harness.report.data.report_data import read_contrasts
from harness.report.data.sweep import planned_sweep
from harness.run_names import planned_runs
from harness.types import PlannedRun


def rounds(sweep: SweepSpec, folder: Path) -> Iterator[tuple[PlannedRun, ...]]:
    """All runs of the sweep until now, once per round; the next is drawn when those are finished in `folder`.

    An arm, an objective in one world under one corruption, gets more seeds until its comparisons with the baseline are
    settled; the baseline gets them as long as anything compared with it does.
    """
    every = tuple(planned_runs(sweep.runs))
    if sweep.rounds is None:
        yield every
        return
    cells = {planned.key: run_key(replace(planned.run, seed=0)) for planned in every}
    limits: dict[str, int] = {}
    going = set(cells.values())
    for look in sweep.rounds.looks:
        limits |= dict.fromkeys(going, look)
        runs = _within(every, cells, limits)
        yield runs
        going &= _open(sweep, folder, runs, cells, going)
        if not going:
            return


def _within(
    every: tuple[PlannedRun, ...], cells: Mapping[str, str], limits: Mapping[str, int]
) -> tuple[PlannedRun, ...]:
    """The runs whose seed is within the limit of their cell, in spec order, with the reward models that they need."""
    inside = {planned.key for planned in every if planned.run.seed < limits[cells[planned.key]]}
    learners = {one.key: run_key(reward_run(one.run)) for one in every if one.run.reward_model is not None}
    needed = {learners[key] for key in inside & learners.keys()}
    models = set(learners.values())
    return tuple(one for one in every if one.key in (needed if one.key in models else inside))


def _open(
    sweep: SweepSpec, folder: Path, runs: tuple[PlannedRun, ...], cells: Mapping[str, str], going: set[str]
) -> set[str]:
    """The cells that need more seeds: those of an open comparison, and those that nothing is compared with."""
    assert sweep.rounds is not None
    entries = [{"run_key": one.key, "config": plain(one.run)} for one in runs]
    seen = planned_sweep(folder, {"name": sweep.name, "runs": entries, "seed_rounds": plain(sweep.rounds)})
    compared: set[str] = set()
    undecided: set[str] = set()
    for contrast in read_contrasts(seen):
        arm, base = (
            {cells[run.key] for cell in contrast.arena.of(name) for run in cell.runs}
            for name in (contrast.objective, contrast.baseline)
        )
        compared |= arm | base
        margin = practical_margin(share=True)
        if arm & going and not is_settled(contrast.verdict, sweep.rounds, contrast.n, margin):
            undecided |= arm | base
    return undecided | (going - compared)
