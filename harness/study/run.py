"""`harness study`: lock the folder, search, run the winners on fresh seeds, write storage, tables and report.

The same command continues where it was: finished runs are on disk, trials in the ledger, everything else derives from
them. Nothing depends on MLflow or on Optuna's storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.config.load import SweepSpec
from harness.config.study import StudySpec
from harness.config.study_targets import CLEAN, OBSERVED, OOD, TEST, Constraint, Target, observed_refusal
from harness.storage.answer_file import answer_lines
from harness.storage.lock import sweep_lock
from harness.storage.plan_file import PLAN
from harness.storage.runs import find_result, is_final
from harness.study.files import (
    STUDY,
    TrialRun,
    all_runs,
    counts,
    fresh_runs,
    write_scores,
    write_study,
    write_study_plan,
)
from harness.study.optuna_adapter import importance
from harness.study.scores import Scorer
from harness.study.search import Bench, search
from harness.study.storage import storage_problem, storage_url, write_storage
from harness.study.trials import Ledger
from harness.sweep import scheduler
from harness.sweep.console import CommandOutput
from harness.sweep.evaluate import check_asked, evaluate_runs
from harness.sweep.gold import score_runs
from harness.sweep.preflight import check_data
from harness.sweep.resources import check_shards, room_in, worker_count
from harness.sweep.run import print_stopped
from harness.text import without_credentials
from harness.tracking.connection import tracking_warning
from harness.tracking.outbox import Outbox
from harness.types import InputError, PlannedRun


class NothingTrained(Exception):  # noqa: N818 - says what happened
    """Every run failed, as where a reference cannot be built: no trial is to blame, so none is finished."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(lines))


@dataclass
class _Trainer:
    """Trains runs through the sweep's packs and workers; `failures` is a line per failed run, by 8 characters of its
    key."""

    spec: StudySpec
    folder: Path
    ledger: Ledger
    workers: int
    output: CommandOutput
    failures: dict[str, str] = field(default_factory=dict)
    not_evaluated: list[str] = field(default_factory=list)

    def train(self, runs: Sequence[TrialRun]) -> None:
        """Commit every run that has no outcome yet; one that failed is tried once more."""
        everything = {item.key: item for item in [*all_runs(self.spec, self.ledger), *runs]}
        write_study_plan(self.folder, self.spec, list(everything.values()))
        for _ in range(2):
            missing = [everything[key] for key in dict.fromkeys(item.key for item in runs)
                       if not is_final(self.folder, key)]  # fmt: skip
            if not missing:
                break
            planned = [PlannedRun(item.key, item.name, item.run) for item in missing]
            failed = scheduler.run_packs(self.folder, len(everything), planned, self.workers, self.output)
            self.failures |= {line[:8]: line for line in failed}
            if failed and not any(is_final(self.folder, item.key) for item in missing):
                raise NothingTrained(failed)
        if self.spec.lm_eval is not None:
            self.not_evaluated += evaluate_runs(self.folder, runs, self.spec.lm_eval, self.output.progress)
        if self.spec.gold is not None:
            once = list({item.key: item for item in runs}.values())
            self.not_evaluated += score_runs(self.folder, once, self.spec.gold, self.output.progress)


def cost(folder: Path, item: TrialRun) -> dict[str, float]:
    """Tokens and one-core seconds of a finished run; empty where it has no result."""
    result = find_result(folder, item.key)
    if result is None:
        return {}
    return {name: float(result["costs"].get(name) or 0.0) for name in ("tokens", "seconds")}


def run_study(
    spec: StudySpec, out: Path, workers: int | None = None, console: Console | None = None, quiet: bool = False
) -> int:
    """Run what is missing of a study under `out`; the exit code (0, or 1 where a run failed). `quiet` as for a sweep.

    Raises InputError for data or a storage that cannot be used, KeyboardInterrupt where the user stops it.
    """
    output = CommandOutput(console or Console(), quiet)
    storage_problem(spec.storage, out, spec.path)
    as_sweep = SweepSpec(spec.name, spec.question, (spec.template,), spec.resolved, (), spec.path, spec.lm_eval)
    check_asked(as_sweep)
    check_shards(as_sweep.runs)
    folder = out / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / PLAN).exists() and not (folder / STUDY).exists() and not Ledger.exists(folder):
        raise InputError(f"{folder}: holds a sweep of this name; give the study another name")
    with room_in(folder), sweep_lock(folder):
        check_data((spec.template,), folder, output.progress)
        ledger = Ledger(folder, spec.key)
        scorer = _scorer(spec, folder)
        count = worker_count(as_sweep, workers)
        trainer = _Trainer(spec, folder, ledger, count, output)
        bench = Bench(trainer.train, lambda item, target: _value(scorer, item, target), lambda item: cost(folder, item))
        budget = f"{len(spec.arms)} objectives x {spec.trials} trials x {len(spec.seeds)} seeds"
        finished = sum(len(ledger.finished(arm.label)) for arm in spec.arms)
        output.progress(f"{spec.name}: {budget}, {finished} trials already done, {count} workers")
        if warning := tracking_warning(out):
            output.result(f"tracking {warning}")
        try:
            search(spec, ledger, bench, partial(_after_round, spec, ledger, folder, output))
            bench.train(fresh_runs(spec, ledger))
        except KeyboardInterrupt:
            print_stopped(folder, output)
            raise
        except NothingTrained as failure:
            output.failed(failure.lines)
            return 1
        return _finish(folder, scorer, trainer)


def _after_round(spec: StudySpec, ledger: Ledger, folder: Path, output: CommandOutput, line: str) -> None:
    """Print the outcome of a round of the search, and write it to Optuna's storage."""
    output.progress(line)
    write_storage(spec, ledger, folder)


def _scorer(spec: StudySpec, folder: Path) -> Scorer:
    measures = [item.measure for item in spec.wanted]
    splits = [CLEAN, TEST]
    if spec.template.world is not None and spec.template.evaluation.ood:
        splits.append(OOD)
    if not observed_refusal("", spec.template.corruption):
        splits.append(OBSERVED)
    return Scorer(folder, measures, splits)


def _value(scorer: Scorer, item: TrialRun, target: Target | Constraint) -> float | None:
    return scorer.last(item.key, item.run.objective.beta, target.measure, target.split)


def _finish(folder: Path, scorer: Scorer, trainer: _Trainer) -> int:
    """Write tables, report and storage, deliver what is missing to tracking, and print where everything is."""
    from harness.report.study.page import write_study_report  # imports matplotlib

    spec, ledger, output = trainer.spec, trainer.ledger, trainer.output
    runs = all_runs(spec, ledger)
    write_study_plan(folder, spec, runs)
    shares = {arm.label: importance(spec, arm, ledger.finished(arm.label)) for arm in spec.arms}
    write_study(folder, spec, ledger, runs, shares, observed_refusal("", spec.template.corruption))
    write_scores(folder, runs, scorer)
    page = write_study_report(folder)
    for arm in spec.arms:
        output.progress(f"{arm.label:<12} {counts(ledger.of(arm.label))}")
    output.result(f"results  {folder / 'results.csv'}\nreport   {page}")
    why = write_storage(spec, ledger, folder)
    url = without_credentials(storage_url(spec, folder))
    output.result(f"storage  {why}; run the same command to write it" if why else f"storage  {url}")
    output.tracked(folder, Outbox(folder).finish())
    failed = [
        line
        for key, line in trainer.failures.items()
        if not any(is_final(folder, item.key) for item in runs if item.key[:8] == key)
    ]
    failed += dict.fromkeys(trainer.not_evaluated)
    output.failed(failed)
    for line in answer_lines(page.parent):
        output.result(line)
    return 1 if failed else 0
