"""`harness plan --predict`: ranking accuracy of a sweep's runs from short pilots, written down before the runs.

A pilot is the first steps of a dpo run at a small beta on clean labels. Its reference is one that the sweep needs, and
stays in the cache; the steps themselves are thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from harness.config.load import SweepSpec
from harness.corruptions.registry import CORRUPTIONS
from harness.identity import content_hash, plain
from harness.inputs.reference_models import build_models, builds, load_weights
from harness.metrics.prediction import (
    COMMON,
    COMMON_BY_RULE,
    PILOT_STEPS,
    Pairs,
    Schedule,
    Slopes,
    accuracy,
    calibrate,
    pilot_pairs,
    relabelled,
    simulate,
    stacked,
)
from harness.metrics.records import Columns, Floats
from harness.objectives.budget import family
from harness.objectives.foreign_logps import pair_losses
from harness.objectives.registry import OBJECTIVES, resolve
from harness.report.data.published import public_config
from harness.report.data.tables import csv_bytes
from harness.run_names import planned_runs
from harness.storage.atomic import write_atomic, write_json
from harness.storage.lock import sweep_lock
from harness.storage.prediction_file import COLUMNS, PREDICTION, read_prediction
from harness.storage.runs import final_keys
from harness.sweep.estimates import measured_under
from harness.sweep.packing import counts_of, plan_packs
from harness.sweep.progress import Progress, Speed
from harness.sweep.scheduler import STAGES
from harness.training.optim import learning_rate
from harness.types import CorruptionSpec, InputError, ObjectiveSpec, PlannedRun, RunSpec, RunStatus, TrainingSpec
from harness.worker.pilot import Pilot, train_pilots
from harness.worker.prepare import pick_device
from harness.worker.protocol import PackStep, PackTask, Phase, RunDone

PILOT_BETA = 0.1  # so small that the loss does not saturate within the pilot's steps
PILOT_SEEDS = 4  # of a setting; runs of further seeds are predicted by the mean of these
LANES = 128  # runs simulated at once
MOST_FLIPS = 0.25  # in version 2 of the embedded world: beyond that predictions were .06 too high
CLEAN = CorruptionSpec()


@dataclass(frozen=True, slots=True)
class Job:
    """One simulation: an objective under a corruption in a setting, from the pilot of a seed."""

    objective: ObjectiveSpec
    corruption: CorruptionSpec
    setting: RunSpec
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A pilot as the model reads it: its pairs under each corruption, what it gained, and kappa."""

    pairs: Mapping[CorruptionSpec, Pairs]
    gain: float
    kappa: float


def predict(sweep: SweepSpec, out: Path, console: Console) -> Mapping[str, Any]:
    """The content of `prediction.json` in the sweep's folder, which is written if it is not there.

    Progress goes to `console`. Where runs that it predicts have ended a prediction stays as it is; one made then says
    how many had (`finished_before`). Raises InputError where those runs are none of this spec's.
    """
    folder = out / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    with sweep_lock(folder):
        runs = planned_runs(sweep.runs)
        finished = len(final_keys(folder, [planned.key for planned in runs]))
        earlier = read_prediction(folder)
        if earlier is not None and _met(folder, runs, earlier):
            return earlier
        content = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "spec_sha256": content_hash(sweep.resolved),
            "finished_before": finished,
            **_predicted(runs, out, console),
        }
        write_json(folder / PREDICTION, content)
        write_atomic(folder / PREDICTION.replace(".json", ".csv"), csv_bytes(COLUMNS, content["predictions"]))
    return content


def _met(folder: Path, runs: Sequence[PlannedRun], earlier: Mapping[str, Any]) -> bool:
    """Whether a prediction speaks of runs that have ended. Raises InputError where it does, and of none of `runs`."""
    keys = {row["run_key"] for row in earlier["predictions"]}
    ended = bool(final_keys(folder, sorted(keys)))
    if ended and not keys & {planned.key for planned in runs}:
        raise InputError(
            f"{folder / PREDICTION}: predicts runs that have ended, none of them in this spec; change the name"
        )
    return ended


def prediction_lines(content: Mapping[str, Any]) -> list[str]:
    """What the plan says of a prediction."""
    rows = content["predictions"]
    values = [row["ranking_accuracy"] for row in rows if row["ranking_accuracy"] is not None]
    span = f", ranking accuracy {min(values):.3g} to {max(values):.3g}" if values else ""
    after = f", after {content['finished_before']} of them had ended" if content["finished_before"] else ""
    reasons = dict.fromkeys(row["reason"] for row in rows if row["reason"])
    counted = {reason: sum(row["reason"] == reason for row in rows) for reason in reasons}
    return [
        f"predicted {len(values)} of {len(rows)} runs{span} ({PREDICTION} of {content['made']}{after})",
        *(f"          not predicted, {count} runs: {reason}" for reason, count in counted.items()),
    ]


def why_not(run: RunSpec) -> str:
    """Why the model does not speak of a run; empty where it does."""
    row = OBJECTIVES.get(run.objective.name)
    if family(run.objective) != "pair" or row is None or row.state or row.needs:
        return f"{run.objective.name}: its loss is not one of single pairs and their log-probs alone"
    kind = run.corruption.kind
    if kind == "uniform_flip" and _by_rule(run) and (run.corruption.rate or 0.0) > MOST_FLIPS:
        return f"{kind} above {MOST_FLIPS}: in version 2 of the world, where the model is known to fail"
    if kind in ("none", "uniform_flip"):
        return ""
    corruption = CORRUPTIONS.get(kind)
    if corruption is None or corruption.changes_of(dict(run.corruption.params)) != "labels":
        return f"{kind}: it changes more than labels"
    return f"{kind}: flips that follow a pattern, where the model is known to fail"


def _by_rule(run: RunSpec) -> bool:
    """Whether held-out facts are in no training pair and follow from a rule."""
    return run.world is not None and run.world.version > 1


def _predicted(runs: Sequence[PlannedRun], out: Path, console: Console) -> dict[str, Any]:
    reasons = {planned.key: why_not(planned.run) for planned in runs}
    wanted: dict[RunSpec, list[RunSpec]] = {}
    for planned in runs:
        if not reasons[planned.key]:
            wanted.setdefault(_setting(planned.run), []).append(planned.run)
    packs = _pilot_packs(wanted)
    alone = [planned for _, pack in packs for planned in pack.runs]
    cache = out / "cache"
    speed = Speed(counts_of((planned.run for planned in alone), cache), measured_under(out))
    with Progress(console, len(alone), speed=speed, unit="pilots") as progress:
        _build_models(alone, cache, progress)
        pilots = _pilots(packs, wanted, cache, progress)
        jobs, own = _jobs(runs, reasons, pilots)
        results = _results(jobs, pilots, progress)
    return {
        "pilots": [
            {"setting": public_config(plain(setting)), "seed": seed, "gain": one.gain, "kappa": one.kappa}
            for setting, by_seed in pilots.items()
            for seed, one in by_seed.items()
        ],
        "predictions": [
            _row(planned, [results[job] for job in own.get(planned.key, ())], reasons[planned.key]) for planned in runs
        ],
    }


def _jobs(
    runs: Sequence[PlannedRun], reasons: dict[str, str], pilots: Mapping[RunSpec, Mapping[int, Measured]]
) -> tuple[dict[Job, None], dict[str, list[Job]]]:
    """The simulations to do, each once, and those of each run by key; `reasons` gets that of runs without a pilot."""
    jobs: dict[Job, None] = {}
    own: dict[str, list[Job]] = {}  # by run key
    for planned in runs:
        run = planned.run
        if not reasons[planned.key]:
            seeds = pilots[_setting(run)]
            chosen = [run.seed] if run.seed in seeds else list(seeds)
            own[planned.key] = [Job(run.objective, run.corruption, _setting(run), seed) for seed in chosen]
            jobs |= dict.fromkeys(own[planned.key])
            reasons[planned.key] = "" if chosen else "the pilots raised no margin"
    return jobs, own


def _results(
    jobs: Mapping[Job, None], pilots: Mapping[RunSpec, Mapping[int, Measured]], progress: Progress
) -> dict[Job, tuple[float, float, float]]:
    """Ranking accuracy of each job with its band."""
    progress.stage("simulating the runs", len(jobs), "simulations")
    results: dict[Job, tuple[float, float, float]] = {}
    for group in _groups(jobs, pilots):
        results |= dict(zip(group, _simulated(group, [pilots[job.setting][job.seed] for job in group]), strict=True))
        progress.advance(len(group))
    return results


def _row(planned: PlannedRun, found: Sequence[tuple[float, float, float]], reason: str) -> dict[str, Any]:
    """A row of the file; the mean of several pilots, with the widest band of any."""
    run = planned.run
    middle, low, high = zip(*found, strict=True) if found else ((), (), ())
    values = (
        planned.key, run.objective.name, run.objective.beta, run.corruption.kind, run.corruption.rate, run.seed,
        sum(middle) / len(middle) if found else None, min(low, default=None), max(high, default=None), reason,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _setting(run: RunSpec) -> RunSpec:
    """The pilot of a run, without its seed: runs of one setting share their pilots."""
    measured = replace(run.evaluation, checkpoints=1, ood=0, samples=0, gradient_probe=0, keep="")
    pilot = resolve("dpo", {"beta": PILOT_BETA})
    return replace(run, objective=pilot, corruption=CLEAN, evaluation=measured, seed=0, replica=0, reward_model=None)


def _pilot_packs(wanted: Mapping[RunSpec, Sequence[RunSpec]]) -> list[tuple[RunSpec, PackTask]]:
    """The pilots of every setting in packs, with their setting."""
    packs: list[tuple[RunSpec, PackTask]] = []
    for setting, members in wanted.items():
        seeds = sorted({run.seed for run in members})[:PILOT_SEEDS]
        runs = planned_runs(replace(setting, seed=seed) for seed in seeds)
        packs += [(setting, pack) for pack in plan_packs(runs, 1, first=len(packs))]
    return packs


def _build_models(runs: Sequence[PlannedRun], cache: Path, progress: Progress) -> None:
    """Build the models that the pilots start from, those that are not in the cache."""
    for stage in builds([planned.run for planned in runs]):
        missing = [build for build in stage if load_weights(cache, build.key) is None]
        if not missing:
            continue
        progress.stage(STAGES[stage[0].stage], len(missing), "models")
        # Those of worlds train side by side, those of data one after the other.
        for part in [missing] if missing[0].run.world is not None else [[build] for build in missing]:
            build_models(cache, part, pick_device(runs[0].run.device))
            progress.advance(len(part))


def _pilots(
    packs: Sequence[tuple[RunSpec, PackTask]],
    wanted: Mapping[RunSpec, Sequence[RunSpec]],
    cache: Path,
    progress: Progress,
) -> dict[RunSpec, dict[int, Measured]]:
    """The pilots of each setting by seed, those that raised their margins."""
    progress.start_runs([replace(pack, runs=tuple(map(_as_timed, pack.runs))) for _, pack in packs])
    measured: dict[RunSpec, dict[int, Measured]] = {setting: {} for setting in wanted}
    for setting, pack in packs:
        corruptions = tuple(dict.fromkeys(run.corruption for run in wanted[setting]))
        steps = _steps(setting)

        def show(step: int, phase: Phase, number: int = pack.number, steps: int = steps) -> None:
            progress.take(PackStep(number, step, steps, phase))

        pilots = train_pilots(pack.runs, steps, cache, setting.device, show)
        show(steps, Phase.SAMPLING)  # of which there is none: it ends the evaluation
        for planned, pilot in zip(pack.runs, pilots, strict=True):
            progress.take(RunDone(pack.number, planned.key, RunStatus.DONE))
            one = _measured(planned.run, pilot, corruptions, steps)
            if one is not None:
                measured[setting][planned.run.seed] = one
    return measured


def _steps(run: RunSpec) -> int:
    """Updates of a run's pilot."""
    return min(PILOT_STEPS, run.training.steps)


def _as_timed(planned: PlannedRun) -> PlannedRun:
    """A pilot as what its time is estimated by: a run of so many updates that is evaluated once after the start."""
    run = planned.run
    training, evaluation = replace(run.training, steps=_steps(run)), replace(run.evaluation, checkpoints=2)
    return replace(planned, run=replace(run, training=training, evaluation=evaluation))


def _measured(run: RunSpec, pilot: Pilot, corruptions: Sequence[CorruptionSpec], steps: int) -> Measured | None:
    soft = run.world is not None and run.world.labels == "bradley_terry"
    gap = np.asarray(pilot.columns["gold_margin"], dtype=np.float64)
    clean = 1 / (1 + np.exp(gap)) if soft else np.zeros(len(gap))
    found = pilot_pairs(pilot.columns, clean, pilot.trained, COMMON_BY_RULE if _by_rule(run) else COMMON)
    if found is None:
        return None
    pairs, gain = found
    slopes = _slopes([run.objective])
    kappa = calibrate(slopes, pairs, _schedule([run.training]), np.array([[gain]]), steps)
    by_corruption = {
        spec: relabelled(pairs, _flipped(clean, spec.rate or 0.0)[None], pilot.trained) for spec in corruptions
    }
    return Measured(by_corruption, gain, float(kappa[0, 0]))


def _flipped(clean: Floats, rate: float) -> Floats:
    """The probability `(n,)` that a label is wrong once labels wrong with probability `clean` are flipped at `rate`."""
    return np.asarray(clean * (1 - 2 * rate) + rate)


def _groups(jobs: Iterable[Job], pilots: Mapping[RunSpec, Mapping[int, Measured]]) -> Iterator[list[Job]]:
    """Jobs that one simulation does: one loss but for numbers, as many steps, as many pairs."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        words = tuple(pair for pair in job.objective.hyperparameters if not _number(pair[1]))
        count = pilots[job.setting][job.seed].pairs[job.corruption].flip.size
        groups.setdefault((job.objective.name, words, job.setting.training.steps, count), []).append(job)
    for group in groups.values():
        yield from (group[start : start + LANES] for start in range(0, len(group), LANES))


def _simulated(jobs: Sequence[Job], measured: Sequence[Measured]) -> list[tuple[float, float, float]]:
    """Ranking accuracy of each job with its band."""
    pairs = stacked([one.pairs[job.corruption] for job, one in zip(jobs, measured, strict=True)])
    kappa = np.array([[one.kappa] for one in measured])
    slopes, schedule = _slopes([job.objective for job in jobs]), _schedule([job.setting.training for job in jobs])
    columns = accuracy(pairs, simulate(slopes, pairs, schedule, kappa))
    return [(float(middle), float(low), float(high)) for middle, low, high in zip(*columns, strict=True)]


def _slopes(objectives: Sequence[ObjectiveSpec]) -> Slopes:
    """The slopes of one loss with the hyperparameters of each lane."""
    values = [dict(objective.hyperparameters) for objective in objectives]
    settings = {
        name: torch.tensor([[float(own[name])] for own in values], dtype=torch.float64) if _number(value) else value
        for name, value in values[0].items()
    }

    def slopes(columns: Columns) -> tuple[Floats, Floats]:
        found = pair_losses(objectives[0].name, settings, columns)
        return found["grad_w"], found["grad_l"]

    return slopes


def _schedule(settings: Sequence[TrainingSpec]) -> Schedule:
    def column(name: str) -> Floats:
        return np.array([[float(getattr(training, name))] for training in settings])

    rates = np.array([[learning_rate(step, training) for step in range(training.steps)] for training in settings])
    return Schedule(rates, column("adam_beta1"), column("adam_beta2"), column("batch_size"))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
