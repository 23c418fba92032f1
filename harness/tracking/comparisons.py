"""Comparisons in MLflow: an experiment with a run per sweep and matching cell, the page, and a saved view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.text import without_credentials
from harness.tracking.charts import beside
from harness.tracking.connection import down_errors, first_line, init_store, patience, tracking_uri
from harness.tracking.diagnoses import TrackedRun, send_runs
from harness.tracking.views import FIRST, TAG, View, saved
from harness.types import InputError

KIND = {"harness.kind": "comparison"}
RUNS = "tags.`harness.kind` = 'comparison'"


def send_comparison(out: Path, name: str, runs: Sequence[TrackedRun], files: Sequence[Path]) -> str:
    """Runs in the experiment `name` of the store under `out`, or of `MLFLOW_TRACKING_URI`; returns its address.

    They replace the runs of an earlier comparison of that name. Raises InputError where the store cannot be reached.
    """
    uri = tracking_uri(out)
    sized = len({run.params.get("model.log10_parameters") for run in runs}) > 1
    view = View(FIRST, "Side by side", RUNS, beside(sized))
    try:
        with patience():
            to = init_store(out, name)
            for old in to.client.search_runs([to.experiment], RUNS, max_results=5000):
                to.client.delete_run(old.info.run_id)
            send_runs(to, runs, files, "comparison")
            to.client.set_experiment_tag(to.experiment, TAG + view.slug, saved(view))
    except down_errors() as error:
        raise InputError(f"--track: {first_line(error, uri)}; everything else of the comparison is written") from None
    return without_credentials(uri)
