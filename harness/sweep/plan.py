"""What a sweep would do, before it does it: runs, axes, what is done, what must be built, and what it should cost.

Imports no torch: a plan is there in a second, on any machine.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config.load import SweepSpec
from harness.data.splits import Reading, data_facts
from harness.identity import plain
from harness.objectives.budget import family
from harness.run_names import planned_runs
from harness.storage.runs import final_keys
from harness.sweep.detectable import detectable, detectable_lines
from harness.sweep.engines import CLUSTERS
from harness.sweep.estimates import (
    Machines,
    Measured,
    basis,
    build_seconds,
    forecast,
    forecast_lines,
    measured_under,
    run_seconds,
    scoring_seconds,
    step_weights,
    train_flops,
)
from harness.sweep.evaluate import check_asked
from harness.sweep.gold import check_gold
from harness.sweep.grid_range import grid_notes
from harness.sweep.packing import Source, by_source, counts_of, plan_packs, scored_first, source_of
from harness.sweep.resources import check_shards
from harness.sweep.rounds import rounds
from harness.sweep.token_counts import TokenCounts
from harness.text import duration
from harness.types import CorruptionSpec, PathModelSpec, PlannedRun, RunSpec

SHOWN = 240  # characters of each text of the first pair
SIDES = ("chosen", "rejected")


def describe(
    sweep: SweepSpec,
    out: Path,
    machines: Machines | None = None,
    reading: Callable[[PathModelSpec], Reading] | None = None,
) -> dict[str, Any]:
    """The plan of `sweep` under the folder `out`, as plain data: what `harness plan --json` prints.

    `seconds` holds one-core seconds per stage of what is still to do; `cost_basis` says whether the seconds of a run
    are assumed or measured (by earlier `costs.csv` under `out`, or by a preflight). `cores` divides them into
    `wall_seconds`.
    `forecast` is there where `machines` are given (`sweep/estimates.py`). `reading` opens a model's tokenizer.
    """
    check_asked(sweep)
    check_gold(sweep)
    if machines is None or machines.engine not in CLUSTERS:
        check_shards(sweep.runs)
    folder = out / sweep.name
    runs = planned_runs(sweep.runs)
    done = final_keys(folder, [planned.key for planned in runs])
    missing = [planned for planned in runs if planned.key not in done]
    todo = [planned.run for planned in missing]
    seconds, models = build_seconds(todo)
    built = {stage: (total, models[stage]) for stage, total in seconds.items()}
    counts = counts_of(todo, out / "cache")
    measured = measured_under(out)
    per_run, earlier, rate = _run_seconds(todo, counts, measured)
    scoring = math.fsum(
        scoring_seconds(members, counts[source], measured.rate(step_weights(members[0])))
        for source, members in by_source(todo).items()
        if scored_first(members[0])
    )
    ahead = None
    if machines is not None:
        cost = {planned.key: value for planned, value in zip(missing, per_run, strict=True)}
        packs = [
            sum(cost[planned.key] / planned.run.training.shards for planned in pack.runs)
            for pack in plan_packs(missing, machines.places)
        ]
        ahead = forecast(todo, packs, built, out, machines)
    if scoring:
        seconds["scoring"] = scoring
    seconds["runs"] = math.fsum(per_run)
    cores = os.cpu_count() or 1
    notes, first_pair = data_facts(sweep.runs, reading)
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
        "cost_basis": basis(earlier, rate, any(isinstance(run.model, PathModelSpec) for run in todo)),
        **({"forecast": ahead} if ahead is not None else {}),
        "device": sorted({run.device for run in sweep.runs}),
        "processes": sorted({run.training.shards for run in sweep.runs}),
        "data": sorted({run.data.path or run.data.hub for run in sweep.runs if run.data is not None}),
        "first": _named(runs[0]),
        "last": _named(runs[-1]),
        **({"rounds": _rounds(sweep, out, per_run, done, seconds)} if sweep.rounds is not None else {}),
        "run_keys": [planned.key for planned in runs],
        "lm_eval": list(sweep.lm_eval.tasks) if sweep.lm_eval is not None else [],
        "gold": list(sweep.gold.reward_model) if sweep.gold is not None else [],
        "detectable": detectable(sweep.runs, out, sweep.name),
        "notes": [*sweep.notes, *notes, *grid_notes(sweep.runs)],
        **({"first_pair": plain(first_pair)} if first_pair is not None else {}),
    }


def _run_seconds(
    runs: Sequence[RunSpec], counts: Mapping[Source, TokenCounts | None], measured: Measured
) -> tuple[list[float], float | None, float | None]:
    """One-core seconds of each run; the median of those that earlier runs say, and the rate that a preflight measured,
    where there are any."""
    found, said, rate = [], [], None
    by_run: dict[RunSpec, tuple[float, float | None, float | None]] = {}
    for run in runs:
        alike = replace(run, seed=0, replica=0, corruption=CorruptionSpec())
        if alike not in by_run:
            own = counts.get(source_of(run))
            # Runs that sample cost very different times: the median of others says little.
            earlier = None if family(run.objective) == "rl" else measured.seconds(train_flops(run, own))
            known = measured.rate(step_weights(run))
            by_run[alike] = (earlier or run_seconds(run, own, known).total, earlier, known)
        total, earlier, known = by_run[alike]
        found.append(total)
        said += [] if earlier is None else [earlier]
        rate = rate or known
    return found, statistics.median(said) if said else None, rate


def _rounds(
    sweep: SweepSpec, out: Path, per_run: Sequence[float], done: set[str], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What the first round takes and what all rounds would: `runs` and `wall_seconds` still to do, each [least, most].

    The models that references start from are built for each seed: their share is taken as the runs'.
    """
    assert sweep.rounds is not None
    first = {planned.key for planned in next(rounds(sweep, out / sweep.name))}
    todo = [planned.key for planned in planned_runs(sweep.runs) if planned.key not in done]
    cost = math.fsum(per_run)
    least = math.fsum(one for key, one in zip(todo, per_run, strict=True) if key in first)
    wall = math.fsum(seconds.values()) / (os.cpu_count() or 1)
    return {
        "looks": list(sweep.rounds.looks),
        "runs": [len(first), len(sweep.runs)],
        "wall_seconds": [round(wall * least / cost, 1) if cost else 0.0, round(wall, 1)],
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
        ("processes", _processes_line(plan["processes"])),
        ("seeds", _rounds_line(plan["rounds"]) if "rounds" in plan else ""),
        *(("forecast" if i == 0 else "", text) for i, text in enumerate(_ahead(plan))),
        *(("detects" if i == 0 else "", text) for i, text in enumerate(detectable_lines(plan["detectable"]))),
        ("lm-eval", ", ".join(plan["lm_eval"])),
        ("gold", ", ".join(plan["gold"])),
        ("first run", plan["first"]),
        ("last run", plan["last"]),
        *(("note", note) for note in plan["notes"]),
        *(("pair" if i == 0 else "", text) for i, text in enumerate(_pair_lines(plan.get("first_pair")))),
    ]
    return "\n".join(f"{head:<10}{text}" for head, text in rows if text)


def _processes_line(counts: Sequence[int]) -> str:
    if counts == [1]:
        return ""
    return f"{' or '.join(map(str, counts))} per run (training.shards), each with its part of the parameters"


def _rounds_line(planned: Mapping[str, Any]) -> str:
    looks, (least, most), (soon, late) = planned["looks"], planned["runs"], planned["wall_seconds"]
    return (
        f"in rounds of up to {', '.join(map(str, looks))}: {least} to {most} runs, about {duration(soon)} to"
        f" {duration(late)}; an objective stops in a world under a corruption once its comparisons are settled"
    )


def _pair_lines(pair: Mapping[str, Any] | None) -> list[str]:
    """The first pair, a line for each text; of long ones the part where prompt and answer meet."""
    if pair is None:
        return []
    end = f"... {pair['prompt'][-SHOWN:]}" if len(pair["prompt"]) > SHOWN else pair["prompt"]
    sides = ((side, f"{pair[side][:SHOWN]} ..." if len(pair[side]) > SHOWN else pair[side]) for side in SIDES)
    texts = [("prompt", end), *sides]
    return [f"row {pair['row']}, {pair['how']}", *(f"{name:<9}{text!r}" for name, text in texts)]


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


def _named(planned: PlannedRun) -> str:
    return f"{planned.key[:8]} {planned.name}"


def _shown(values: Sequence[Any], limit: int = 12) -> str:
    text = [f"{v:g}" if isinstance(v, float) else str(v) for v in values[:limit]]
    return ", ".join(text) + (f", ... ({len(values)} in all)" if len(values) > limit else "")


def _stages(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {duration(value)}" for stage, value in seconds.items()) + " of one core"
