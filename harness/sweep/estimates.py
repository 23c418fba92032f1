"""What a sweep should take on given machines: hours, load of the tracking store, bytes. Pure arithmetic, no torch.

Seconds, points and bytes of a run are those of earlier runs under `--out` where there are any (one seed of the same
spec is a rehearsal), else assumed. Packs are placed as engines place them: the longest first, each where it is free.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.storage.journal import JournalDamaged, read_journal
from harness.sweep.packing import plan_packs
from harness.text import bytes_text
from harness.types import PlannedRun, RunSpec

# Seconds before a worker's first step, by engine: imports, and for Ray and Slurm what starts the process (assumed).
START_SECONDS = {"inline": 3.0, "process": 4.0, "ray": 6.0, "slurm": 15.0}
POINTS_A_CHECKPOINT, FINAL_POINTS = 45, 17  # of one run's journal
ROW_BYTES, RUN_BYTES = 55, 40_000  # of one example at one checkpoint, and of the rest of a run's folder
STORED_BYTES = 390  # of a metric point in MLflow's database with all its indices (measured in SQLite)
STEADY = 500.0  # points a second that one MLflow server over PostgreSQL is asked to take
SAMPLE = 20  # earlier runs that are looked at


@dataclass(frozen=True, slots=True)
class Machines:
    """What to plan for: packs trained at a time, one a GPU (or a part of one), else one a core."""

    engine: str
    places: int


def makespan(seconds: Sequence[float], places: int) -> float:
    """Seconds until the last of these jobs ends on `places`, each begun where it is free first, in this order.

    >>> makespan([3, 2, 2], 2)
    4.0
    """
    busy = [0.0] * max(places, 1)
    for job in seconds:
        heapq.heappush(busy, heapq.heappop(busy) + job)
    return max(busy)


def forecast(
    todo: Sequence[PlannedRun],
    per_run: Sequence[float],
    builds: Mapping[str, tuple[float, int]],
    out: Path,
    machines: Machines,
) -> dict[str, Any]:
    """The forecast of the runs `todo`, whose seconds are `per_run`, after the models `builds`: seconds and count by
    stage. Plain data: `hours`, `points`, `points_a_second`, `database_bytes`, `bytes`, `packs`, `basis`.
    """
    seconds = {planned.key: value for planned, value in zip(todo, per_run, strict=True)}
    packs = [sum(seconds[planned.key] for planned in pack.runs) for pack in plan_packs(todo, machines.places)]
    start = START_SECONDS[machines.engine]
    if machines.engine == "slurm":  # every pack is a process of its own
        packs, first = [pack + start for pack in packs], 0.0
    else:
        first = start if packs else 0.0
    stages = [start + total / count * math.ceil(count / machines.places) for total, count in builds.values() if count]
    wall = math.fsum(stages) + first + makespan(sorted(packs, reverse=True), machines.places)
    points, size, basis = _of_a_run([planned.run for planned in todo], out)
    count = len(todo) * points
    return {
        "engine": machines.engine,
        "places": machines.places,
        "packs": len(packs),
        "hours": round(wall / 3600, 4),
        "points": round(count),
        "points_a_second": round(count / wall, 1) if wall else 0.0,
        "database_bytes": round(count * STORED_BYTES),
        "bytes": round(len(todo) * size),
        "basis": basis,
    }


def forecast_lines(found: Mapping[str, Any]) -> list[str]:
    """The forecast for a reader."""
    rate = found["points_a_second"]
    lines = [
        f"{found['hours']:.2g} hours for {found['packs']} packs, {found['places']} at a time, on {found['engine']}",
        f"{bytes_text(found['bytes'])} of files; {found['points']:,} points to MLflow, {rate:g} per second, "
        f"{bytes_text(found['database_bytes'])} in its database",
        found["basis"],
    ]
    if rate > STEADY:
        lines.append(f"above the {STEADY:g} points per second that one server can take: they wait, nothing is lost")
    return lines


def _of_a_run(todo: Sequence[RunSpec], out: Path) -> tuple[float, float, str]:
    """Points and bytes of one run, and where they come from."""
    earlier = [path.parent for path in sorted(out.glob("*/*/result.json"))[:SAMPLE]]
    counts = [points for points in map(_points, earlier) if points]
    if counts:
        sizes = [sum(file.stat().st_size for file in run.iterdir() if file.is_file()) for run in earlier]
        return statistics.mean(counts), statistics.mean(sizes), f"points and bytes: as in {len(counts)} runs here"
    checks = [run.evaluation for run in todo]
    points = statistics.mean([e.checkpoints * POINTS_A_CHECKPOINT + FINAL_POINTS for e in checks] or [0])
    size = statistics.mean(
        [RUN_BYTES + ROW_BYTES * e.checkpoints * (e.heldout + e.probe + e.ood) for e in checks] or [0]
    )
    return points, size, "points and bytes: assumed"


def _points(run: Path) -> int:
    """Metric points in a run's journal; 0 where it cannot be read, which `harness verify` reports."""
    try:
        records = read_journal(run / "events.jsonl")
    except (OSError, JournalDamaged):
        return 0
    return sum(len(record) - 2 for record in records if record["kind"] == "metrics")
