"""The only module that imports Optuna: what to try next, what to prune, which settings matter, Optuna's storage.

Optuna never holds the truth. Each round is asked of a study made anew in memory from the finished trials, and every
draw is seeded by the trial's number, so the same history asks the same trials whatever was killed in between. The
storage is a projection: written from the ledger, mended or written anew where it differs from it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from harness.config.search_space import Arm, Axis, Choice, rounded
from harness.config.study import StudySpec
from harness.config.study_targets import Constraint
from harness.identity import stream_seed
from harness.study.trials import COMPLETE, RUNNING, Trial

STORAGE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, OSError, optuna.exceptions.StorageInternalError)
MIN_FOR_IMPORTANCE = 4  # complete trials, below which shares of variance are noise

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


def distribution(axis: Axis) -> BaseDistribution:
    """An axis as Optuna knows it."""
    if isinstance(axis, Choice):
        return CategoricalDistribution(axis.values)
    if axis.integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _sampler(spec: StudySpec, arm: Arm, number: int) -> Any:
    """The sampler for one trial: its seed follows from the study's seed, the arm and the trial's number alone."""
    seed = stream_seed(spec.sampler.seed, "sampler", arm.label, number) % 2**32
    if spec.sampler.kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.sampler.kind == "gp":
        return _quietly(
            optuna.samplers.GPSampler, seed=seed, n_startup_trials=spec.sampler.startup_trials,
            deterministic_objective=False,
        )  # fmt: skip
    # The constant liar spreads trials that are asked together: those in flight count as poor.
    return _quietly(
        optuna.samplers.TPESampler, seed=seed, n_startup_trials=spec.sampler.startup_trials, constant_liar=True
    )


def _quietly(make: Any, **settings: Any) -> Any:
    """What Optuna marks as experimental, without the warning: its version is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make(**settings)


def _pruner(spec: StudySpec) -> Any:
    kind, pruner = spec.pruner.kind, spec.pruner
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=pruner.startup_trials, n_warmup_steps=0)
    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=len(spec.seeds), reduction_factor=2)
    if kind == "wilcoxon":
        return _quietly(optuna.pruners.WilcoxonPruner, p_threshold=pruner.p, n_startup_steps=2)
    return optuna.pruners.NopPruner()


def study_name(spec: StudySpec, arm: Arm) -> str:
    """The name of an arm's study in a storage, which may hold others."""
    return f"{spec.name}.{arm.label}"


def _frozen(spec: StudySpec, arm: Arm, trial: Trial) -> FrozenTrial:
    """A trial of the ledger as Optuna stores it."""
    complete = trial.state == COMPLETE
    return create_trial(
        state=TrialState[trial.state],
        values=list(trial.values) if complete else None,
        params=dict(trial.params),
        distributions={name: distribution(arm.space[name]) for name in trial.params},
        intermediate_values=dict(enumerate(trial.intermediate)),
        user_attrs={"reason": trial.reason} if trial.reason else {},
        system_attrs=dict(trial.attrs),
        constraints=_named(spec.constraints, trial.constraints) if complete and spec.constraints else None,
    )


def _named(constraints: Sequence[Constraint], values: Sequence[float]) -> dict[str, float]:
    return {bound.name: value for bound, value in zip(constraints, values, strict=True)}


def _in_memory(spec: StudySpec, arm: Arm, history: Sequence[Trial]) -> optuna.Study:
    study = optuna.create_study(
        study_name=study_name(spec, arm), directions=[target.direction for target in spec.targets], pruner=_pruner(spec)
    )
    study.add_trials([_frozen(spec, arm, trial) for trial in history])
    return study


def ask(spec: StudySpec, arm: Arm, finished: Sequence[Trial], count: int) -> tuple[Trial, ...]:
    """The next `count` trials of an arm after every finished trial, in number order."""
    study = _in_memory(spec, arm, finished)
    space = {name: distribution(axis) for name, axis in arm.space.items()}
    asked = []
    for number in range(len(finished), len(finished) + count):
        study.sampler = _sampler(spec, arm, number)
        trial = study.ask(space)
        params = {name: rounded(trial.params[name], arm.space[name]) for name in space}
        asked.append(Trial(arm.label, number, params))
    return tuple(asked)


def prune(spec: StudySpec, arm: Arm, trials: Sequence[Trial], alive: Sequence[int]) -> dict[int, tuple[Trial, bool]]:
    """By number, each trial in flight with what the pruner keeps of it, and whether it loses its remaining seeds.

    `trials` are all of the arm, in number order; `alive` the numbers to judge.
    """
    study, pruner = _in_memory(spec, arm, trials), _pruner(spec)
    out = {}
    for number in sorted(alive):
        lost = bool(pruner.prune(study, study.trials[number]))
        out[number] = replace(trials[number], attrs=dict(study.trials[number].system_attrs)), lost
    return out


def importance(spec: StudySpec, arm: Arm, finished: Sequence[Trial]) -> dict[str, float]:
    """Share of the first target's variation that each searched setting explains (PED-ANOVA, arXiv 2304.10255).

    Empty below a handful of complete trials or where all score the same.
    """
    complete = [trial for trial in finished if trial.state == COMPLETE]
    sign = -1.0 if spec.targets[0].direction == "maximize" else 1.0  # it explains what makes a value low
    if len(complete) < MIN_FOR_IMPORTANCE or len({trial.values[0] for trial in complete}) < 2:
        return {}
    study = _in_memory(spec, arm, [replace(trial, number=i) for i, trial in enumerate(complete)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that low values are what it explains, which the sign sees to
        shares = optuna.importance.get_param_importances(study, target=lambda t: sign * t.values[0])
    return {name: float(value) for name, value in shares.items()}


def project(spec: StudySpec, arm: Arm, trials: Sequence[Trial], url: str, in_folder: bool = False) -> None:
    """Make an arm's study in the storage equal to the ledger's finished trials; one that differs is written anew.

    Trials that some process left RUNNING there are removed. `in_folder`: the file holds nothing else, so a power loss
    may cost it. Raises one of `STORAGE_ERRORS` where the storage cannot be reached or is damaged.
    """
    name = study_name(spec, arm)
    directions = [target.direction for target in spec.targets]
    wanted = [_frozen(spec, arm, trial) for trial in trials if trial.state != RUNNING]
    storage = optuna.storages.RDBStorage(url)
    if in_folder:  # a flush per trial would cost more than everything else here, to protect what can be written again
        event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        storage.engine.dispose()
    try:
        names = optuna.get_all_study_names(storage)
        if name in names:
            study = optuna.load_study(study_name=name, storage=storage)
            held = study.get_trials(deepcopy=False)
            stored = [direction.name.lower() for direction in study.directions]
            if stored != directions or [_content(t) for t in held] != [_content(t) for t in wanted[: len(held)]]:
                optuna.delete_study(study_name=name, storage=storage)
                names, held = [n for n in names if n != name], []
        if name not in names:
            study = optuna.create_study(study_name=name, storage=storage, directions=directions)
            study.set_user_attr("harness.study", spec.key)
            _quietly(study.set_metric_names, metric_names=[f"{t.measure} ({t.split})" for t in spec.targets])
            held = []
        study.add_trials(wanted[len(held) :])
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _content(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.state, trial.values, dict(trial.params), dict(trial.constraints)
