"""`harness study`: claim the folder, search, run the winners on fresh seeds, project, write tables and report.

The same command goes on where it stands: finished runs stand on disk, trials in the ledger, everything else is drawn
from them. Neither MLflow nor Optuna's storage is ever waited for or believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from harness.config.load import SweepSpec
from harness.config.study import StudySpec
from harness.config.study_targets import CLEAN, OBSERVED, OOD, TEST, Constraint, Target, observed_refusal
from harness.identity import run_key
from harness.storage import runs as store
from harness.storage.databases import without_login
from harness.storage.lock import claim_sweep
from harness.study.files import Planned, all_runs, counts, fresh_runs, write_scores, write_study, write_study_plan
from harness.study.scores import Scorer
from harness.study.search import Bench, search
from harness.study.storage import storage_problem, storage_url, write_storage
from harness.study.trials import Ledger
from harness.sweep.console import CommandOutput
from harness.tracking.connection import tracking_warning
from harness.types import InputError, RunSpec
from harness.worker.protocol import DONE


class NothingTrained(Exception):  # noqa: N818 - says what happened
    """Every run failed, as where a reference cannot be built: no trial is to blame, so none is told."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(lines))


@dataclass
class _Engine:
    """Trains runs through the sweep's own packs and workers; keeps what failed, a line each."""

    spec: StudySpec
    out: Path
    folder: Path
    ledger: Ledger
    workers: int
    voice: CommandOutput
    failures: dict[str, str] = field(default_factory=dict)
    not_evaluated: list[str] = field(default_factory=list)

    def train(self, runs: Sequence[Planned]) -> None:
        """Commit every run that has no outcome yet; one that failed is tried once more, then it stands as failed."""
        from harness.sweep.scheduler import run_packs

        everything = {item.key: item for item in [*all_runs(self.spec, self.ledger), *runs]}
        write_study_plan(self.folder, self.spec, list(everything.values()))
        names = {key: item.name for key, item in everything.items()}
        specs = tuple(item.run for item in everything.values())
        sweep = SweepSpec(self.spec.name, self.spec.question, specs, self.spec.resolved, (), self.spec.path)
        for _ in range(2):
            left = list({item.key: item.run for item in runs if not done(self.folder, item.key)}.values())
            if not left:
                break
            failed = run_packs(sweep, self.out, self.folder, names, left, self.workers, self.voice)
            self.failures |= {line[:8]: line for line in failed}
            if failed and not any(done(self.folder, run_key(run)) for run in left):
                raise NothingTrained(failed)
        if self.spec.lm_eval is not None:
            from harness.sweep.evaluate import evaluate_runs

            asked = [item.run for item in runs]
            self.not_evaluated += evaluate_runs(self.folder, asked, self.spec.lm_eval, self.voice.progress)


def done(folder: Path, key: str) -> bool:
    """Whether a run has an outcome: done or diverged."""
    result = store.find_result(folder, key)
    return result is not None and result["status"] in DONE


def cost(folder: Path, item: Planned) -> dict[str, float]:
    """Tokens and one-core seconds of a finished run; empty where it has no result."""
    result = store.find_result(folder, item.key)
    if result is None:
        return {}
    return {name: float(result["costs"].get(name) or 0.0) for name in ("tokens", "seconds")}


def run_study(
    spec: StudySpec, out: Path, workers: int | None = None, console: Console | None = None, quiet: bool = False
) -> int:
    """Run what is missing of a study under `out`; the exit code (0, or 1 where a run failed). `quiet` as for a sweep.

    Raises InputError for data or a storage that cannot be used, KeyboardInterrupt where the user stops it.
    """
    from harness.sweep.resources import room_in, worker_count
    from harness.sweep.run import say_stopped

    voice = CommandOutput(console or Console(), quiet)
    storage_problem(spec.storage, out, spec.path)
    if spec.lm_eval is not None:
        from harness.sweep.evaluate import check_asked

        one = (spec.template,)
        check_asked(SweepSpec(spec.name, spec.question, one, spec.resolved, (), spec.path, spec.lm_eval))
    folder = out / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "plan.json").exists() and not (folder / "study.json").exists() and not Ledger.found(folder):
        raise InputError(f"{folder}: holds a sweep of this name; give the study another name")
    with room_in(folder), claim_sweep(folder):
        ledger = Ledger(folder, spec.key)
        scorer = _scorer(spec, folder)
        count = worker_count_of(spec, workers, worker_count)
        engine = _Engine(spec, out, folder, ledger, count, voice)
        bench = Bench(engine.train, lambda item, target: _value(scorer, item, target), lambda item: cost(folder, item))
        budget = f"{len(spec.arms)} objectives x {spec.trials} trials x {len(spec.seeds)} seeds"
        told = sum(len(ledger.told(arm.label)) for arm in spec.arms)
        voice.progress(f"{spec.name}: {budget}, {told} trials already done, {count} workers")
        if warning := tracking_warning(out):
            voice.result(f"tracking {warning}")
        try:
            _search(spec, ledger, bench, folder, voice)
            bench.train(fresh_runs(spec, ledger))
        except KeyboardInterrupt:
            say_stopped(folder, voice)
            raise
        except NothingTrained as failure:
            voice.failed(failure.lines)
            return 1
        return _finish(spec, out, folder, ledger, scorer, engine, voice)


def worker_count_of(spec: StudySpec, workers: int | None, count: Callable[[SweepSpec, int | None], int]) -> int:
    """As for a sweep of the study's template."""
    one: tuple[RunSpec, ...] = (spec.template,)
    return count(SweepSpec(spec.name, spec.question, one, spec.resolved, (), spec.path), workers)


def _search(spec: StudySpec, ledger: Ledger, bench: Bench, folder: Path, voice: CommandOutput) -> None:
    """The search, each round's outcome said and put into Optuna's storage."""

    def said(line: str) -> None:
        voice.progress(line)
        write_storage(spec, ledger, folder)

    search(spec, ledger, bench, said)


def _scorer(spec: StudySpec, folder: Path) -> Scorer:
    measures = [item.measure for item in spec.wanted]
    splits = [CLEAN, TEST]
    if spec.template.world is not None and spec.template.evaluation.ood:
        splits.append(OOD)
    if not observed_refusal("", spec.template.corruption):
        splits.append(OBSERVED)
    return Scorer(folder, measures, splits)


def _value(scorer: Scorer, item: Planned, target: Target | Constraint) -> float | None:
    return scorer.last(item.key, item.run.objective.beta, target.measure, target.split)


def _finish(
    spec: StudySpec, out: Path, folder: Path, ledger: Ledger, scorer: Scorer, engine: _Engine, voice: CommandOutput
) -> int:
    """Tables, report, storage, tracking; then say where everything stands."""
    from harness.report.study.page import write_study_report
    from harness.study.optuna_adapter import importance
    from harness.tracking.outbox import Outbox

    runs = all_runs(spec, ledger)
    write_study_plan(folder, spec, runs)
    shares = {arm.label: importance(spec, arm, ledger.told(arm.label)) for arm in spec.arms}
    write_study(folder, spec, ledger, runs, shares, observed_refusal("", spec.template.corruption))
    write_scores(folder, runs, scorer)
    page = write_study_report(folder)
    for arm in spec.arms:
        voice.progress(f"{arm.label:<12} {counts(ledger.of(arm.label))}")
    voice.result(f"results  {folder / 'results.csv'}\nreport   {page}")
    why = write_storage(spec, ledger, folder)
    voice.result(
        f"storage  {why}; run the same command to write it"
        if why
        else f"storage  {without_login(storage_url(spec, folder))}"
    )
    voice.tracked(folder, Outbox(out, folder.name).finish(folder))
    failed = [
        line for key, line in engine.failures.items() if not any(done(folder, i.key) for i in runs if i.key[:8] == key)
    ]
    failed += dict.fromkeys(engine.not_evaluated)
    voice.failed(failed)
    return 1 if failed else 0
