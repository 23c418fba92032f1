"""What one finished run looks like in a tracking server: name, tags, parameters and points. Imports no mlflow.

Everything here is a pure function of the run's files, so a replay sends the same bytes: timestamps are the run's
`t0_ms` plus the step, never the clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.names import canonical_json, content_hash
from harness.tracking.journal import read_journal
from harness.tracking.store import load_result

# Okabe and Ito 2008, legible to colour-blind readers, in the order of the report's figures.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#7F7F7F")
# Recorded elsewhere or meaningless as a column: the content hash stands in the data set, paths name machines.
_LEFT_OUT = ("kind", "path", "sha256")
STATUS = {"done": "FINISHED", "diverged": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
PARAM_LIMIT = 500  # characters; a longer value would be cut by some stores without a word


@dataclass(frozen=True, slots=True)
class Point:
    """One metric value; `timestamp` in ms since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True, slots=True)
class Projection:
    """One run as a tracking server gets it. `digest` changes with anything that would have to be sent anew."""

    run_key: str
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: tuple[Point, ...]
    status: str  # FINISHED | FAILED | KILLED
    start_ms: int
    end_ms: int
    dataset: tuple[str, str] | None  # name, digest of at most 36 characters
    digest: str


def project(folder: Path, sweep: str) -> Projection | None:
    """The projection of a finished run's folder, None where its `result.json` is absent or damaged.

    Raises JournalDamaged where a record of the journal does not match its checksum.
    """
    result = load_result(folder)
    if result is None:
        return None
    # A run that failed before its first step has no start time: the epoch would sort it before everything.
    start = result["t0_ms"] or int((folder / "result.json").stat().st_mtime * 1000)
    points = journal_points(folder / "events.jsonl", start)
    provenance = _read(folder / "provenance.json")
    config, status = result["config"], result["status"]
    rate = _rate(config["corruption"], provenance.get("data", {}))
    tags = {
        "harness.sweep": sweep,
        "harness.kind": "run",
        "harness.run_key": result["run_key"],
        "harness.objective": config["objective"]["name"],
        "harness.corruption": config["corruption"]["kind"],
        "harness.rate": f"{rate:g}",
        "harness.seed": str(config["seed"]),
        "harness.state": status,
        "harness.attempt": str(result["costs"].get("attempt", 1)),
    }
    beta = dict(config["objective"]["hyperparameters"]).get("beta")
    if beta is not None:
        tags["harness.beta"] = f"{beta:g}"
    sha = str(provenance.get("data", {}).get("sha256", ""))
    return Projection(
        run_key=result["run_key"],
        name=result["name"],
        tags=tags,
        params=_params(config, rate),
        points=points,
        status=STATUS[status],
        start_ms=start,
        end_ms=start + int(1000 * (result["costs"].get("seconds") or 0)),
        dataset=(_dataset_name(config), sha[:36]) if sha else None,
        digest=content_hash([result["run_key"], result.get("files", {}), status, start])[:16],
    )


def journal_points(path: Path, start_ms: int) -> tuple[Point, ...]:
    """Every finite number of the journal's metrics records of its last attempt, in order; none without a journal."""
    if not path.exists():
        return ()
    points: list[Point] = []
    for record in read_journal(path):
        if record["kind"] == "start":
            points.clear()  # what an earlier attempt wrote is superseded
        if record["kind"] != "metrics":
            continue
        step = int(record["step"])
        points += [
            Point(key, float(value), start_ms + step, step)
            for key, value in record.items()
            if key not in ("kind", "step") and isinstance(value, int | float) and math.isfinite(value)
        ]
    return tuple(points)


def colours(objectives: Sequence[str]) -> dict[str, str]:
    """One colour an objective, by order of first appearance."""
    names = dict.fromkeys(objectives)
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of the run, empty where it has none (a run that failed early)."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return value


def _rate(corruption: Mapping[str, Any], data: Mapping[str, Any]) -> float:
    """The share of touched pairs: as asked for, or the realised one where the kind derives it; 0 for the clean set."""
    if corruption["rate"] is not None:
        return float(corruption["rate"])
    if corruption["kind"] == "none" or not data.get("pairs"):
        return 0.0
    return float(data["corrupted"]) / float(data["pairs"])


def _params(config: Mapping[str, Any], rate: float) -> dict[str, str]:
    """Dotted parameters: `objective.*`, `corruption.*`, `world.*` or `data.*` and `model.*`, `train.*`, `seed`."""
    objective, corruption = config["objective"], config["corruption"]
    out: dict[str, Any] = {"objective.name": objective["name"]}
    for name, value in objective["hyperparameters"]:
        out[f"objective.{name}"] = value
        if name == "beta" and value > 0:
            out["objective.log10_beta"] = round(math.log10(value), 6)
    out |= {"corruption.kind": corruption["kind"], "corruption.rate": round(rate, 6)}
    out |= {f"corruption.{name}": value for name, value in corruption["params"]}
    out["corruption.label"] = _corruption_label(corruption, rate)
    sections = {"world": "world", "data": "data", "model": "model", "training": "train", "evaluation": "evaluation"}
    for section, prefix in sections.items():
        for name, value in (config.get(section) or {}).items():
            if name not in _LEFT_OUT:
                out[f"{prefix}.{name}"] = value
    out["seed"] = config["seed"]
    return {name: _text(value) for name, value in out.items()}


def _corruption_label(corruption: Mapping[str, Any], rate: float) -> str:
    """Kind and rate as one word, to group and filter by: `clean`, `uniform_flip 0.2`."""
    return "clean" if corruption["kind"] == "none" else f"{corruption['kind']} {rate:.2g}"


def _dataset_name(config: Mapping[str, Any]) -> str:
    """What the run was trained on, without any path."""
    world = config.get("world")
    base = f"{world['kind']} phi={world['misaligned']:g}" if world else str((config.get("data") or {}).get("format"))
    return f"{base} {_corruption_label(config['corruption'], config['corruption']['rate'] or 0)} s{config['seed']}"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= PARAM_LIMIT else f"{text[: PARAM_LIMIT - 20]}... {content_hash(text)[:16]}"
