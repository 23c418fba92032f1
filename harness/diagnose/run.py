"""`harness diagnose` as a function: scores or reads log-probs, then writes the four files of a diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.diagnose.asked import Asked
from harness.diagnose.cards import facts
from harness.diagnose.diagnosis import Diagnosis, Labels, Point, PolicyDiagnosis, diagnose
from harness.diagnose.earlier import JSON, PAIRS, check_earlier, holds_rows
from harness.diagnose.page import build_page
from harness.report.sections.row import write_page
from harness.storage.atomic import write_json
from harness.storage.logps_file import LogpsTable, read_logps, write_logps
from harness.text import slug
from harness.tracking.diagnoses import TrackedRun, send_diagnosis
from harness.types import InputError

EXPERIMENT = "diagnosis"  # in MLflow


def run(asked: Asked, say: Callable[[str], None]) -> Diagnosis:
    """Write `diagnosis.json`, `pairs.parquet`, `index.html` and `report.md` into `asked.out`; `say` shows progress.

    Raises InputError for what cannot be used, and for another diagnosis in `asked.out` that would be lost, before
    anything is scored where that can be told.
    """
    if (asked.logps is None) == (not asked.data):
        raise InputError("give --data with --policy, or --logps: one of the two")
    if asked.logps is not None:
        if asked.policies or asked.train_data or asked.reference:
            raise InputError("--logps holds policy and reference; leave --policy, --reference and --train-data out")
        table, name = read_logps(asked.logps), asked.logps.name
        check_earlier(asked.out, asked.force, holds_rows(table.columns))
    else:
        from harness.diagnose.scoring import scored_table  # needs torch

        table, name = scored_table(asked, say)
    found = diagnose(table, asked.beta, asked.slices, _ledger(asked.ledger))
    asked.out.mkdir(parents=True, exist_ok=True)
    _write(table, asked.out / PAIRS, found.beta)
    write_json(asked.out / JSON, facts(found))
    write_page(asked.out, build_page(found, name))
    if asked.track:
        files = [asked.out / file for file in (JSON, "index.html", "report.md")]
        runs = [_tracked(one, found) for one in found.policies]
        say(f"tracked in {send_diagnosis(asked.out, EXPERIMENT, runs, files)}")
    return found


def _tracked(one: PolicyDiagnosis, found: Diagnosis) -> TrackedRun:
    """A policy as an MLflow run: our measures under `geometry/`, the trainer's charts as of an evaluation set."""
    last = Point(one.step or 0, one.estimates, one.charts)
    bench = {
        f"rewardbench/{slug(name)}/{slug(part)}": value
        for name, score in one.rewardbench.items()
        for part, value in {"total": score.total, **score.sections, **score.subsets}.items()
    }
    points = {
        point.step: {f"geometry/{name}": value.mean for name, value in point.estimates.items()}
        | {f"eval_{name}": value for name, value in point.charts.items()}
        for point in one.trajectory or (last,)
    }
    points[one.step or 0] = points.get(one.step or 0, {}) | bench
    tags = {
        "harness.kind": "diagnosis",
        "harness.verdict": one.verdict.kind,
        "mlflow.note.content": one.verdict.text,
    }
    params = {} if found.beta is None else {"objective.beta": f"{found.beta:g}"}
    return TrackedRun(one.name, tags, params, points)


def _write(table: LogpsTable, path: Path, beta: float | None) -> None:
    meta = {name: value for name, value in table.meta.items() if name != "version"}
    write_logps(path, table.columns, meta | ({} if beta is None else {"beta": beta}))


def _ledger(path: Path | None) -> Labels | None:
    """The labels that a ledger of a sweep or of `harness corrupt` tells of."""
    if path is None:
        return None
    from harness.corruptions.ledger import read_ledger

    try:
        ledger = read_ledger(path)
        places = pq.read_table(path, columns=["out_row"]).column(0).to_pylist()
    except OSError as error:
        raise InputError(f"--ledger {path}: cannot be read ({error})") from None
    except pa.ArrowInvalid:  # a sweep's, whose pairs have the ids of its records
        places = [None] * len(ledger)
    by_id: dict[str, int] = {}
    by_row: dict[int, int] = {}
    columns = (ledger[name] for name in ("id", "new_id", "action", "observed_label"))
    for name, new, action, label, place in zip(*columns, places, strict=True):  # a later step speaks last
        if action != "relabel_same":
            by_id[new if action == "append" else name] = by_row[place or 0] = -1 if label < 0 else 0
    by_row.pop(0, None)
    return Labels(by_id, by_row)
