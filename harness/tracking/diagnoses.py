"""Diagnoses in MLflow: one run per policy, its points by step, and the page's files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.text import without_credentials
from harness.tracking.connection import down_errors, first_line, init_store, patience, tracking_uri
from harness.types import InputError


@dataclass(frozen=True, slots=True)
class DiagnosedRun:
    """A policy as a run: its name, tags and params, and metric points by step and name."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Mapping[int, Mapping[str, float]]


def send_diagnosis(out: Path, experiment: str, runs: Sequence[DiagnosedRun], files: Sequence[Path]) -> str:
    """New runs in an experiment of the store under `out`, or of `MLFLOW_TRACKING_URI`; returns its address.

    `files` become artifacts of the first run. The address has no credentials in it. Raises InputError where the store
    cannot be reached.
    """
    from mlflow.entities import Metric, Param

    uri = tracking_uri(out)
    now = time.time_ns() // 1_000_000
    try:
        with patience():
            to = init_store(out, experiment)
            for number, one in enumerate(runs):
                run = to.client.create_run(to.experiment, tags=dict(one.tags), run_name=one.name).info.run_id
                metrics = [Metric(k, v, now, step) for step, part in one.points.items() for k, v in part.items()]
                to.client.log_batch(run, metrics, [Param(k, v) for k, v in one.params.items()])
                for path in () if number else files:
                    to.client.log_artifact(run, str(path), "diagnosis")
                to.client.set_terminated(run, status="FINISHED")
    except down_errors() as error:
        raise InputError(f"--track: {first_line(error, uri)}; everything else of the diagnosis is written") from None
    return without_credentials(uri)
