"""Diagnoses in MLflow: one run per policy, its points by step, and the page's files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.text import without_credentials
from harness.tracking.connection import Connection, down_errors, first_line, init_store, patience, tracking_uri
from harness.types import InputError


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A policy, or a cell of a comparison, as a run: name, tags, params, and metric points by step and name."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Mapping[int, Mapping[str, float]]


def send_diagnosis(out: Path, experiment: str, runs: Sequence[TrackedRun], files: Sequence[Path]) -> str:
    """New runs in an experiment of the store under `out`, or of `MLFLOW_TRACKING_URI`; returns its address.

    `files` become artifacts of the first run. The address has no credentials in it. Raises InputError where the store
    cannot be reached.
    """
    uri = tracking_uri(out)
    try:
        with patience():
            send_runs(init_store(out, experiment), runs, files, "diagnosis")
    except down_errors() as error:
        raise InputError(f"--track: {first_line(error, uri)}; everything else of the diagnosis is written") from None
    return without_credentials(uri)


def send_runs(to: Connection, runs: Sequence[TrackedRun], files: Sequence[Path], place: str) -> None:
    """New runs of an open experiment; `files` become artifacts of the first, in the folder `place`."""
    from mlflow.entities import Metric, Param

    now = time.time_ns() // 1_000_000
    for number, one in enumerate(runs):
        run = to.client.create_run(to.experiment, tags=dict(one.tags), run_name=one.name).info.run_id
        metrics = [Metric(k, v, now, step) for step, part in one.points.items() for k, v in part.items()]
        to.client.log_batch(run, metrics, [Param(k, v) for k, v in one.params.items()])
        for path in () if number else files:
            to.client.log_artifact(run, str(path), place)
        to.client.set_terminated(run, status="FINISHED")
