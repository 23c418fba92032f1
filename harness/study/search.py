"""The search: ask for a round of trials of every arm, train it, finish it in number order; until the budget is spent.

How runs are trained and scored is passed in (`Bench`), so the search can be tested on a known surface. Every step is
decided by the ledger and the runs on disk alone: killed anywhere, the same call continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from harness.config.search_space import Arm
from harness.config.study import StudySpec
from harness.config.study_targets import Constraint, Target
from harness.identity import plain
from harness.metrics.statistics import t_interval
from harness.study import optuna_adapter
from harness.study.files import SEARCH, TrialRun, trial_runs
from harness.study.trials import COMPLETE, FAIL, PRUNED, Ledger, Trial, finished, winners

ONE_SIDED = 0.90  # level of a two-sided interval whose one end is a 95 % bound


@dataclass(frozen=True)
class Bench:
    """`train` commits every run that has no outcome yet. `value` is a run's score for a target or a constraint, None
    where it has none. `cost` is what a run cost: tokens, seconds (empty without a result)."""

    train: Callable[[Sequence[TrialRun]], None]
    value: Callable[[TrialRun, Target | Constraint], float | None]
    cost: Callable[[TrialRun], dict[str, float]]


def search(spec: StudySpec, ledger: Ledger, bench: Bench, report: Callable[[str], None] = lambda _: None) -> None:
    """Spend the budget: on return every trial is finished, and each arm has `trials` of them or no budget left."""
    while True:
        if not ledger.open():
            for arm in spec.arms:
                left = _left(spec, ledger, bench, arm)
                if left:
                    ledger.ask(optuna_adapter.ask(spec, arm, ledger.finished(arm.label), left))
        trials = ledger.open()
        if not trials:
            return
        ledger.tell(_train(spec, ledger, bench, trials))
        report(_line(spec, ledger))


def _left(spec: StudySpec, ledger: Ledger, bench: Bench, arm: Arm) -> int:
    """How many trials the arm's next round has."""
    finished_trials = ledger.finished(arm.label)
    left = min(spec.round, spec.trials - len(finished_trials))
    limits = {name: limit for name, limit in plain(spec.budget).items() if limit is not None}
    if left <= 0 or not limits:
        return max(left, 0)
    spent = {"runs": 0.0, "tokens": 0.0, "seconds": 0.0}
    for trial in finished_trials:
        for item in trial_runs(spec, [trial], spec.seeds, SEARCH):
            cost = bench.cost(item)
            if cost:
                spent = {name: value + {"runs": 1.0, **cost}.get(name, 0.0) for name, value in spent.items()}
    return 0 if any(spent[name] >= limit for name, limit in limits.items()) else left


def _train(spec: StudySpec, ledger: Ledger, bench: Bench, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of a round with their outcomes, as they were asked for."""
    if spec.pruner.kind == "none":
        bench.train(trial_runs(spec, trials, spec.seeds, SEARCH))
        return [_outcome(spec, bench, trial) for trial in trials]
    lost: dict[tuple[str, int], Trial] = {}
    current = {(trial.arm, trial.number): trial for trial in trials}
    for stage, seed in enumerate(spec.seeds):
        alive = [trial for key, trial in current.items() if key not in lost]
        bench.train(trial_runs(spec, alive, [seed], SEARCH))
        for trial in alive:
            current[trial.arm, trial.number] = _after(spec, bench, trial, stage)
        if stage < len(spec.seeds) - 1:
            for arm in spec.arms:
                lost |= _pruned(spec, ledger, arm, current, lost, stage)
    return [lost.get((t.arm, t.number)) or _outcome(spec, bench, current[t.arm, t.number]) for t in trials]


def _after(spec: StudySpec, bench: Bench, trial: Trial, stage: int) -> Trial:
    """The trial with its values until now: the running mean over seeds, or (Wilcoxon pairs seeds) one per seed."""
    runs = trial_runs(spec, [trial], spec.seeds[: stage + 1], SEARCH)
    values = [bench.value(item, spec.targets[0]) for item in runs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return trial  # it fails at the end; nothing is put in the missing one's place
    if spec.pruner.kind == "wilcoxon":
        return replace(trial, intermediate=tuple(known))
    return replace(trial, intermediate=tuple(fmean(known[: n + 1]) for n in range(len(known))))


def _pruned(
    spec: StudySpec, ledger: Ledger, arm: Arm, current: dict[tuple[str, int], Trial],
    lost: dict[tuple[str, int], Trial], stage: int,
) -> dict[tuple[str, int], Trial]:  # fmt: skip
    """The trials of an arm that lose their remaining seeds now."""
    trials = [lost.get((t.arm, t.number)) or current.get((t.arm, t.number), t) for t in ledger.of(arm.label)]
    alive = [t.number for t in trials if (t.arm, t.number) in current and (t.arm, t.number) not in lost]
    alive = [number for number in alive if len(trials[number].intermediate) == stage + 1]
    pruned = {}
    for number, (trial, out) in optuna_adapter.prune(spec, arm, trials, alive).items():
        current[arm.label, number] = trial
        if out:
            why = f"{spec.pruner.kind} after {stage + 1} of {len(spec.seeds)} seeds"
            pruned[arm.label, number] = finished(trial, PRUNED, reason=why)
    return pruned


def _outcome(spec: StudySpec, bench: Bench, trial: Trial) -> Trial:
    """COMPLETE with the means over seeds, or FAIL naming the first seed and measure that is missing.

    A bound is on the end of the interval that lies nearer to it (one-sided 95 %), where there are two seeds or more: a
    winner is the best of many, and its mean keeps a bound by luck more often than its next seeds do.
    """
    runs = trial_runs(spec, [trial], spec.seeds, SEARCH)
    means: list[float] = []
    excess: list[float] = []
    for target in spec.wanted:
        values = [bench.value(item, target) for item in runs]
        for seed, value in zip(spec.seeds, values, strict=True):
            if value is None:
                return finished(trial, FAIL, reason=f"seed {seed} has no finite {target.measure} on {target.split}")
        known = [value for value in values if value is not None]
        if isinstance(target, Constraint):
            interval = t_interval(known, ONE_SIDED)
            ends = (interval.low, interval.high) if len(known) > 1 else (known[0],)
            excess.append(max(map(target.excess, ends)))
        else:
            means.append(fmean(known))
    return finished(trial, COMPLETE, values=tuple(means), constraints=tuple(excess))


def _line(spec: StudySpec, ledger: Ledger) -> str:
    """The state of the search, in one line."""
    directions = [target.direction for target in spec.targets]
    parts = []
    for arm in spec.arms:
        best = winners(ledger.of(arm.label), directions)
        shown = ", ".join(f"{trial.values[0]:.4g} (trial {trial.number})" for trial in best[:1]) or "none yet"
        parts.append(f"{arm.label} {len(ledger.finished(arm.label))}/{spec.trials} best {shown}")
    return "; ".join(parts)
