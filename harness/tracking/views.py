"""The comparison in MLflow's pages: saved views as experiment tags, and the experiment's note.

The format of a saved view is undocumented (`mlflow.sharedViewState.<slug>` = JSON whose `state` is
`deflate;` + base64 of zlib JSON; as read from mlflow 3.17): a page that ignores it still shows every run.
"""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from harness.identity import content_hash
from harness.text import slug
from harness.tracking.charts import AVERAGES, BY_OBJECTIVE, GEOMETRY, comparison
from harness.tracking.rows import Plan

TAG = "mlflow.sharedViewState."
FIRST = "comparison"  # the slug of the view to open
MAIN = {FIRST: "Sweep comparison", "objectives": "By objective", "geometry": "Geometry"}  # slug -> name
RUNS_ONLY = "tags.`harness.kind` = 'run'"
SWEEP_RUN = "tags.`harness.kind` = 'sweep'"  # the run of the whole sweep, which has the report
ALL_RUNS = 10_000  # charts leave out runs beyond this count
NAMESPACE = uuid.UUID("6f2f1a52-6a0e-5e0c-9a63-4d8f2b0c7e11")  # makes the ids of charts the same on every machine


@dataclass(frozen=True, slots=True)
class View:
    """A saved view: `groups` are params whose runs are averaged into one line or bar; none: a mark per run."""

    slug: str
    name: str
    runs: str  # MLflow's filter
    charts: tuple[Mapping[str, Any], ...]
    groups: tuple[str, ...] = ()


PAGE = 100  # runs that MLflow's page loads, and so draws, before "Load more"
MOST_CONDITIONS = 24  # views in the menu
# Sections that the page adds for every other metric: there, but folded.
FOLDED = ("Model metrics", "geometry", "final", "rewards", "logps", "eval_rewards", "eval_logps")
AXES = ("objective.log10_beta", "corruption.rate", "world.misaligned", "train.learning_rate", "train.steps")
# The runs' table: its columns and their widths in pixels.
COLUMNS = {
    "params.`objective.name`": 120,
    "params.`objective.beta`": 110,
    "params.`corruption.kind`": 120,
    "params.`corruption.rate`": 120,
    "params.`world.misaligned`": 130,
    "params.`seed`": 60,
    "metrics.`final/kl`": 120,
    "metrics.`final/ranking_accuracy`": 170,
    "metrics.`final/gold_reward`": 140,
    "metrics.`final/undesirable_zone`": 170,
    "attributes.`Dataset`": 240,
}


def views(plan: Plan) -> tuple[View, ...]:
    """The saved views of a sweep, the three main ones first.

    MLflow loads 100 runs, so in a larger sweep the main views show one condition (the most misaligned reference, or
    else the most corrupted labels), each other condition has a view, and runs are ordered by seed: what does not fit
    is whole replicates, never an objective.
    """
    runs = f"{RUNS_ONLY} and tags.`harness.current` = 'true'"
    if plan.tags:
        return study_views(plan, runs)
    conditions = sorted(dict.fromkeys(plan.conditions.values()), key=lambda name: _stress(plan, name), reverse=True)
    large = len(plan.names) > PAGE
    shown, suffix = (_within(runs, conditions[0]), f": {conditions[0]}") if large else (runs, "")
    axes = _axes(plan, conditions[0] if large else None)
    others = conditions[1:] if large else conditions if len(conditions) > 1 else []
    return (
        View(FIRST, f"{MAIN[FIRST]}{suffix}", shown, comparison(axes)),
        View("objectives", f"{MAIN['objectives']}{suffix}", shown, BY_OBJECTIVE),
        View("geometry", f"{MAIN['geometry']}{suffix}", shown, GEOMETRY),
        View("averages", f"Averages by objective{suffix}", shown, AVERAGES, ("objective.name",)),
        *(_of(plan, name, runs) for name in others[:MOST_CONDITIONS]),
        *([View("all", f"All conditions, first {PAGE} runs by seed", runs, comparison(_axes(plan)))] if large else []),
    )


def study_views(plan: Plan, runs: str) -> tuple[View, ...]:
    """The views of a study: its complete trials, the winners on fresh seeds, and each objective's own trials."""
    searched = ("objective.log10_beta", "train.learning_rate")
    axes = [name for name in searched if len({params.get(name) for params in plan.params.values()}) > 1]
    trials = f"{runs} and tags.`harness.role` = 'search' and tags.`optuna.state` = 'COMPLETE'"
    fresh = f"{runs} and tags.`harness.role` = 'fresh'"
    studies = dict.fromkeys(tags["optuna.study"] for tags in plan.tags.values())
    return (
        View(FIRST, f"{MAIN[FIRST]}: complete trials", trials, comparison(axes)),
        View("objectives", f"{MAIN['objectives']}: winners on fresh seeds", fresh, BY_OBJECTIVE),
        View("geometry", f"{MAIN['geometry']}: winners on fresh seeds", fresh, GEOMETRY),
        *(
            View(f"only-{slug(name)}", name, f"{trials} and tags.`optuna.study` = '{name}'", comparison(axes))
            for name in studies
        ),
    )


def _of(plan: Plan, condition: str, runs: str) -> View:
    name = slug(condition) if len(condition) <= 64 else f"{slug(condition, 48)}-{content_hash(condition)[:8]}"
    return View(f"only-{name}", condition, _within(runs, condition), comparison(_axes(plan, condition)))


def _within(runs: str, condition: str) -> str:
    return f"{runs} and tags.`harness.condition` = '{condition}'"


def _axes(plan: Plan, condition: str | None = None) -> list[str]:
    """Numeric params that vary, within one condition or the whole sweep: what outcomes are drawn against."""
    runs = [params for key, params in plan.params.items() if condition in (None, plan.conditions[key])]
    return [name for name in AXES if len({params.get(name) for params in runs}) > 1]


def _stress(plan: Plan, condition: str) -> tuple[float, float]:
    """How hard a condition is: by `misaligned` where that varies, then cleaner labels first; else by rate."""
    params = next(plan.params[key] for key, name in plan.conditions.items() if name == condition)
    rate, misaligned = float(params.get("corruption.rate", "0")), float(params.get("world.misaligned", "0"))
    varies = len({run.get("world.misaligned") for run in plan.params.values()}) > 1
    return (misaligned, -rate) if varies else (rate, 0.0)


def view_state(view: View) -> dict[str, Any]:
    """The page's state: filter, columns, sections and charts."""
    sections: dict[str, str] = {}
    for chart in view.charts:
        sections.setdefault(chart["section"], str(uuid.uuid5(NAMESPACE, f"{view.slug} {chart['section']}")))
    charts = [
        {
            **{key: value for key, value in chart.items() if key != "section"},
            "uuid": str(uuid.uuid5(NAMESPACE, f"{view.slug} chart {number}")),
            "metricSectionId": sections[chart["section"]],
            "deleted": False,
            "isGenerated": False,
            "runsCountToCompare": ALL_RUNS,
        }
        for number, chart in enumerate(view.charts)
    ]
    folded = {name: str(uuid.uuid5(NAMESPACE, f"{view.slug} folded {name}")) for name in FOLDED}
    columns = list(COLUMNS)
    group_keys = [{"mode": "param", "groupByData": name} for name in view.groups]
    return {
        "searchFilter": view.runs,
        "orderByKey": "params.`seed`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict(COLUMNS),
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "SHOWALL",
        "runsVisibilityMap": {},
        "viewMaximized": False,
        "runListHidden": True,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": group_keys} if group_keys else None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunSections": [
            {
                "uuid": key,
                "name": name,
                "display": name in sections,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
            }
            for name, key in (sections | folded).items()
        ],
        "compareRunCharts": charts,
    }


def encode_state(state: Mapping[str, Any]) -> str:
    """A state as MLflow's page stores it."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode("utf-8"))).decode("ascii")


def saved(view: View) -> str:
    """A view as the text of its experiment tag, the same at every replay."""
    moment = 0
    value = {"name": view.name, "createdAt": moment, "updatedAt": moment, "state": encode_state(view_state(view))}
    return json.dumps(value)


def view_url(base: str, experiment: str, slug: str = FIRST) -> str:
    """The address of a saved view; the page's bare address opens an empty overview."""
    return f"{base}/#/experiments/{experiment}/runs?{_query(slug)}"


def report_url(base: str, experiment: str, run_id: str) -> str:
    """The address of the report, an artifact of the run of the whole sweep."""
    return f"{base}/#/experiments/{experiment}/runs/{run_id}/artifacts/report/index.html"


def _query(slug: str) -> str:
    return f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={quote(slug)}"


def write_views(client: Any, experiment: str, plan: Plan, report_run: str | None = None) -> None:
    """Write the saved views and the experiment's note, links first. Raises what the client raises.

    `report_run` is the run whose artifact is the report; None where there is no report.
    """
    written = views(plan)
    tags = client.get_experiment(experiment).tags
    for view in written:
        _tag(client, experiment, tags, TAG + view.slug, saved(view))
    slugs = {view.slug for view in written}
    for name in tags:  # conditions that the sweep no longer has; views that a user saved have other slugs
        if name.startswith(f"{TAG}only-") and name.removeprefix(TAG) not in slugs:
            client.delete_experiment_tag(experiment, name)
    links = [f"[{view.name}](#/experiments/{experiment}/runs?{_query(view.slug)})" for view in written]
    first = [f"[{label}](#/experiments/{experiment}/runs?{_query(slug)})" for slug, label in MAIN.items()]
    if report_run:
        first.append(f"[Report]({report_url('', experiment, report_run).removeprefix('/')})")
    # The page shows the note's first line until it is opened.
    note = "\n\n".join((" | ".join(first), plan.question, *links[len(MAIN) :]))
    _tag(client, experiment, tags, "mlflow.note.content", note)
    _tag(client, experiment, tags, "mlflow.experimentKind", "custom_model_development")


def _tag(client: Any, experiment: str, held: Mapping[str, str], name: str, value: str) -> None:
    if held.get(name) != value:
        client.set_experiment_tag(experiment, name, value)
