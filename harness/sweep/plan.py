"""What a sweep would do: runs, axes, what is done, what must be built, and what it should cost.

Imports no torch: a plan is there in a second, on any machine.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.load import SweepSpec
from harness.data.mythworld import world as mythworld
from harness.data.splits import data_notes
from harness.identity import content_hash, plain, without_later
from harness.model_files.location import model_shape
from harness.objectives.budget import budget, family
from harness.run_names import planned_runs
from harness.storage.runs import final_keys
from harness.sweep.detectable import detectable, detectable_lines
from harness.sweep.estimates import Machines, forecast, forecast_lines
from harness.sweep.evaluate import check_asked
from harness.text import duration
from harness.types import PlannedRun, RunSpec

# Assumed seconds on one free core for the default settings; work in proportion to steps x batch (x tokens).
PRETRAIN_SECONDS = 7.0  # 450 steps x 96 of the embedded world
SFT_SECONDS = 3.0  # 200 steps x 96 of the embedded world
TRAIN_SECONDS = 0.8  # 200 steps x 16 pairs of the embedded world
MEASURE_SECONDS = 0.4  # checkpoints and final samples of one run of the embedded world
ROLLOUT_SECONDS = 1e-4  # a response sampled and scored by reference and reward model in the embedded world
PASS_SECONDS = 1.7e-4  # a pass of training over it
TEXT_TOKENS_PER_SECOND = 60_000.0  # training throughput of the tiny text model at its default size
WORLD_WEIGHTS = 64 * (8 * 64 + 3 * 192)  # matrix products per layer of the sizes the constants were taken at
TEXT_WEIGHTS = 2 * WORLD_WEIGHTS


def describe(sweep: SweepSpec, out: Path, machines: Machines | None = None) -> dict[str, Any]:
    """The plan of `sweep` under the folder `out`, as plain data: what `harness plan --json` prints.

    `seconds` holds one-core seconds per stage of what is still to do; `cost_basis` says whether the seconds of a run
    are assumed or measured (the median of earlier `costs.csv` under `out`). `cores` divides them into `wall_seconds`.
    `forecast` is there where `machines` are given (`sweep/estimates.py`).
    """
    check_asked(sweep)
    folder = out / sweep.name
    runs = planned_runs(sweep.runs)
    done = final_keys(folder, [planned.key for planned in runs])
    missing = [planned for planned in runs if planned.key not in done]
    todo = [planned.run for planned in missing]
    measured = measured_seconds(out)
    seconds, models = _build_seconds(todo)
    per_run = [_run_seconds(run) for run in todo]
    sampling = any(family(run.objective) == "rl" for run in todo)
    if sampling:  # runs of very different cost: the median of others says little
        measured = None
    built = {stage: (total, models[stage]) for stage, total in seconds.items()}
    scale = measured / statistics.median(per_run) if measured is not None and per_run else 1.0
    ahead = forecast(missing, [scale * run for run in per_run], built, out, machines) if machines is not None else None
    seconds["runs"] = len(todo) * measured if measured is not None else math.fsum(per_run)
    cores = os.cpu_count() or 1
    return {
        "name": sweep.name,
        "question": sweep.question,
        "spec": str(sweep.path),
        "folder": str(folder),
        "runs": len(runs),
        "done": len(done),
        "to_do": len(todo),
        "axes": axes(sweep.runs),
        "models_to_build": models,
        "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        "wall_seconds": round(math.fsum(seconds.values()) / cores, 1),
        "cores": cores,
        "cost_basis": _basis(measured),
        **({"forecast": ahead} if ahead is not None else {}),
        "device": sorted({run.device for run in sweep.runs}),
        "data": sorted({run.data.path or run.data.hub for run in sweep.runs if run.data is not None}),
        "first": _named(runs[0]),
        "last": _named(runs[-1]),
        "run_keys": [planned.key for planned in runs],
        "lm_eval": list(sweep.lm_eval.tasks) if sweep.lm_eval is not None else [],
        "detectable": detectable(sweep.runs, out, sweep.name),
        "notes": [*sweep.notes, *data_notes(sweep.runs)],
    }


def axes(runs: Iterable[RunSpec]) -> dict[str, list[Any]]:
    """Everything that differs between runs: name -> its values, first appearance first.

    Hyperparameters are `hp.<name>`, corruption parameters `corruption.<name>`, fields of sections `<section>.<field>`.
    """
    values: dict[str, dict[str, Any]] = {}
    for run in runs:
        for name, value in _settings(run):
            values.setdefault(name, {}).setdefault(repr(value), value)
    return {name: list(seen.values()) for name, seen in values.items() if len(seen) > 1 or name == "objective"}


def measured_seconds(out: Path) -> float | None:
    """Median seconds of a run over every `costs.csv` under `out`; None where there is none."""
    seconds = []
    for path in sorted(out.glob("*/costs.csv")):
        with path.open(encoding="utf-8", newline="") as handle:
            seconds += [float(row["seconds"]) for row in csv.DictReader(handle) if row.get("seconds")]
    return statistics.median(seconds) if seconds else None


def render(plan: Mapping[str, Any]) -> str:
    """The plan as plain text, one fact per line."""
    rows = [
        ("sweep", plan["name"]),
        ("question", plan["question"]),
        ("folder", plan["folder"]),
        ("data", ", ".join(plan["data"])),
        ("runs", f"{plan['runs']} ({plan['done']} done, {plan['to_do']} to do)"),
        *(("axis" if i == 0 else "", f"{name}: {_shown(v)}") for i, (name, v) in enumerate(plan["axes"].items())),
        ("models", ", ".join(f"{n} {stage}" for stage, n in plan["models_to_build"].items()) or "none to build"),
        ("cost", f"about {duration(plan['wall_seconds'])} on {plan['cores']} cores: {_stages(plan['seconds'])}"),
        ("", plan["cost_basis"]),
        *(("forecast" if i == 0 else "", text) for i, text in enumerate(_ahead(plan))),
        *(("detects" if i == 0 else "", text) for i, text in enumerate(detectable_lines(plan["detectable"]))),
        ("lm-eval", ", ".join(plan["lm_eval"])),
        ("first run", plan["first"]),
        ("last run", plan["last"]),
        *(("note", note) for note in plan["notes"]),
    ]
    return "\n".join(f"{head:<10}{text}" for head, text in rows if text)


def _ahead(plan: Mapping[str, Any]) -> list[str]:
    return forecast_lines(plan["forecast"]) if "forecast" in plan else []


def _settings(run: RunSpec) -> Iterable[tuple[str, Any]]:
    yield "objective", run.objective.name
    for name, value in run.objective.hyperparameters:
        yield ("beta" if name == "beta" else f"hp.{name}"), value
    yield "corruption", run.corruption.kind
    if run.corruption.rate is not None:
        yield "rate", run.corruption.rate
    for name, value in run.corruption.params:
        yield f"corruption.{name}", plain(value)
    for section in ("world", "data", "model", "training", "evaluation"):
        for name, value in (plain(getattr(run, section)) or {}).items():
            yield f"{section}.{name}", value
    yield "seed", run.seed
    yield "replica", run.replica


def _build_seconds(runs: Iterable[RunSpec]) -> tuple[dict[str, float], dict[str, int]]:
    """One-core seconds and number of the models to build, by stage; each distinct recipe once."""
    stages: dict[str, dict[str, float]] = {"pretraining": {}, "reference": {}}
    for run in runs:
        if run.world is not None:
            w, size = run.world, _size(run) / WORLD_WEIGHTS
            base = PRETRAIN_SECONDS * w.pretrain_steps * w.pretrain_batch / (450 * 96)
            tuned = SFT_SECONDS * w.sft_steps * w.sft_batch / (200 * 96)
            stages["pretraining"].setdefault(mythworld.pretraining_key(w, run.seed), base * size)
            stages["reference"].setdefault(mythworld.reference_key(w, run.seed), tuned * size)
        elif run.data is not None and run.model is not None and run.model.sft_steps:
            data = {name: value for name, value in without_later("data", plain(run.data)).items() if name != "path"}
            key = content_hash({"data": data, "model": plain(run.model), "seed": run.seed})
            tokens = run.model.sft_steps * run.model.sft_batch * run.data.max_length
            stages["reference"].setdefault(key, tokens / TEXT_TOKENS_PER_SECOND * _size(run) / TEXT_WEIGHTS)
    needed = {stage: costs for stage, costs in stages.items() if costs}
    return {s: math.fsum(c.values()) for s, c in needed.items()}, {s: len(c) for s, c in needed.items()}


def _run_seconds(run: RunSpec) -> float:
    """Assumed one-core seconds of one run, training and measuring."""
    training, own = budget(run.objective, run.training), dict(run.objective.hyperparameters)
    if family(run.objective) == "rl" and run.world is not None:
        asked = run.evaluation.heldout + run.evaluation.probe + run.evaluation.ood
        drawn = training.steps * training.batch_size * own.get("samples", 0) + asked * own.get("estimate", 0)
        passes = own.get("epochs", 1) if training.steps else 0
        return float(drawn * (ROLLOUT_SECONDS + PASS_SECONDS * passes) + MEASURE_SECONDS) * _size(run) / WORLD_WEIGHTS
    pairs = training.steps * training.batch_size
    if run.data is not None:
        tokens = (pairs + run.evaluation.checkpoints * run.evaluation.heldout / 3) * 2 * run.data.max_length
        return tokens / TEXT_TOKENS_PER_SECOND * _size(run) / TEXT_WEIGHTS
    return (TRAIN_SECONDS * pairs / (200 * 16) + MEASURE_SECONDS) * _size(run) / WORLD_WEIGHTS


def _size(run: RunSpec) -> float:
    """Weights in the matrix products of a model's layers: what the time of a step grows with."""
    assert run.world is not None or run.model is not None
    model = run.world or model_shape(run.model)  # type: ignore[arg-type]  # one of the two is set
    return float(model.layers * model.hidden_size * (8 * model.hidden_size + 3 * model.intermediate_size))


def _basis(measured: float | None) -> str:
    models = f"models: {PRETRAIN_SECONDS:g} s pretraining, {SFT_SECONDS:g} s reference at the default sizes (assumed)"
    if measured is not None:
        return f"run: {measured:.3g} s, the median of earlier runs here; {models}"
    run = f"run: {TRAIN_SECONDS + MEASURE_SECONDS:g} s at the embedded world's defaults (assumed)"
    return f"{run}; {models}; text: {TEXT_TOKENS_PER_SECOND:g} tokens per second (assumed)"


def _named(planned: PlannedRun) -> str:
    return f"{planned.key[:8]} {planned.name}"


def _shown(values: Sequence[Any], limit: int = 12) -> str:
    text = [f"{v:g}" if isinstance(v, float) else str(v) for v in values[:limit]]
    return ", ".join(text) + (f", ... ({len(values)} in all)" if len(values) > limit else "")


def _stages(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {duration(value)}" for stage, value in seconds.items()) + " of one core"
