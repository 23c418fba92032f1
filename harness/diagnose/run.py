"""`harness diagnose` as a function: scores or reads log-probs, then writes the four files of a diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.diagnose.asked import Asked
from harness.diagnose.diagnosis import Diagnosis, Point, PolicyDiagnosis, diagnose, plain
from harness.diagnose.logps_file import LogpsTable, read_logps, write_logps
from harness.diagnose.page import write_page
from harness.storage.atomic import write_json
from harness.tracking.diagnoses import DiagnosedRun, send_diagnosis
from harness.types import InputError

PAIRS, JSON = "pairs.parquet", "diagnosis.json"
EXPERIMENT = "diagnosis"  # in MLflow


def run(asked: Asked, say: Callable[[str], None]) -> Diagnosis:
    """Write `diagnosis.json`, `pairs.parquet`, `index.html` and `report.md` into `asked.out`; `say` shows progress.

    Raises InputError for what cannot be used, before anything is scored where that can be told.
    """
    if (asked.logps is None) == (not asked.data):
        raise InputError("give --data with --policy, or --logps: one of the two")
    if asked.logps is not None:
        if asked.policies or asked.train_data or asked.reference:
            raise InputError("--logps holds policy and reference; leave --policy, --reference and --train-data out")
        table, name = read_logps(asked.logps), asked.logps.name
    else:
        from harness.diagnose.scoring import scored_table  # needs torch

        table, name = scored_table(asked, say)
    found = diagnose(table, asked.beta, asked.slices, _ledger(asked.ledger))
    asked.out.mkdir(parents=True, exist_ok=True)
    _write(table, asked.out / PAIRS, found.beta)
    write_json(asked.out / JSON, plain(found))
    write_page(found, asked.out, name)
    if asked.track:
        files = [asked.out / file for file in (JSON, "index.html", "report.md")]
        runs = [_tracked(one, found) for one in found.policies]
        say(f"tracked in {send_diagnosis(asked.out, EXPERIMENT, runs, files)}")
    return found


def _tracked(one: PolicyDiagnosis, found: Diagnosis) -> DiagnosedRun:
    """A policy as an MLflow run: our measures under `geometry/`, the trainer's charts as of an evaluation set."""
    last = Point(one.step or 0, one.estimates, one.charts)
    points = {
        point.step: {f"geometry/{name}": value.mean for name, value in point.estimates.items()}
        | {f"eval_{name}": value for name, value in point.charts.items()}
        for point in one.trajectory or (last,)
    }
    tags = {
        "harness.kind": "diagnosis",
        "harness.verdict": one.verdict.kind,
        "mlflow.note.content": one.verdict.text,
    }
    params = {} if found.beta is None else {"objective.beta": f"{found.beta:g}"}
    return DiagnosedRun(one.name, tags, params, points)


def _write(table: LogpsTable, path: Path, beta: float | None) -> None:
    meta = {name: value for name, value in table.meta.items() if name != "version"}
    write_logps(path, table.columns, meta | ({} if beta is None else {"beta": beta}))


def _ledger(path: Path | None) -> Mapping[str, int] | None:
    """-1 for a wrong label, 0 for other damage, by the id of a pair and by the hash of its changed texts, which is the
    id of the row as a trainer read it."""
    if path is None:
        return None
    from harness.corruptions.ledger import read_ledger

    try:
        ledger = read_ledger(path)
    except OSError as error:
        raise InputError(f"--ledger {path}: cannot be read ({error})") from None
    columns = (ledger[name] for name in ("id", "new_id", "after_hash", "action", "observed_label"))
    found: dict[str, int] = {}
    for name, new, after, action, label in zip(*columns, strict=True):  # a later step of a sequence speaks last
        if action != "relabel_same":
            for known in (new if action == "append" else name, after):
                if isinstance(known, str):
                    found[known] = -1 if label < 0 else 0
    return found
