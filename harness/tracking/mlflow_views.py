"""The comparison in MLflow's own pages: saved views as experiment tags, and the experiment's note.

The format of a saved view is MLflow's own and undocumented (`mlflow.sharedViewState.<slug>` = JSON whose `state` is
`deflate;` + base64 of zlib JSON; as read from mlflow 3.17): a page that ignores it still shows every run.
"""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from harness.names import content_hash, slug
from harness.tracking.mlflow_rows import Plan

TAG = "mlflow.sharedViewState."
FIRST = "comparison"  # the slug of the view to open
RUNS_ONLY = "tags.`harness.kind` = 'run'"
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


def _line(metric: str, section: str) -> dict[str, Any]:
    keys = {"metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step", "selectedXAxisMetricKey": ""}
    look = {"lineSmoothness": 0, "scaleType": "linear", "xAxisScaleType": "linear", "ignoreOutliers": False}
    return {"type": "LINE", "section": section, **keys, **look, "useGlobalLineChartConfig": False, "yAxisKey": "metric"}


def _bar(metric: str, section: str) -> dict[str, Any]:
    return {"type": "BAR", "section": section, "metricKey": metric}


def _scatter(param: str, metric: str, section: str) -> dict[str, Any]:
    x, y = {"key": param, "type": "PARAM"}, {"key": metric, "type": "METRIC"}
    return {"type": "SCATTER", "section": section, "xaxis": x, "yaxis": y}


def _parallel(params: Iterable[str], metrics: Iterable[str], section: str) -> dict[str, Any]:
    chosen = {"selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": True}
    return {"type": "PARALLEL", "section": section, **chosen}


OUTCOME, COURSE, COURSE_MEAN = "At the end", "Over training steps", "Over training steps, averages"
PAGE = 100  # runs that MLflow's page loads, and so draws, before "Load more"
MOST_CONDITIONS = 24  # views in the menu
# Sections that the page adds for every other metric: there, but folded.
FOLDED = ("Model metrics", "geometry", "final", "rewards", "logps", "eval_rewards", "eval_logps")
AXES = ("objective.log10_beta", "corruption.rate", "world.misaligned", "train.learning_rate", "train.steps")


def comparison(axes: Iterable[str]) -> tuple[Mapping[str, Any], ...]:
    """The charts of one set of runs, a mark or line per run in its objective's colour; `axes`: params that vary."""
    return (
        _line("loss", COURSE),
        _line("geometry/ranking_accuracy", COURSE),
        _line("geometry/undesirable_zone", COURSE),
        _scatter("objective.log10_beta", "final/ranking_accuracy", OUTCOME),
        _scatter("objective.log10_beta", "final/undesirable_zone", OUTCOME),
        _parallel(tuple(axes)[:3], ("final/ranking_accuracy",), OUTCOME),
    )


AVERAGES = (
    _bar("final/ranking_accuracy", OUTCOME),
    _bar("final/undesirable_zone", OUTCOME),
    _bar("final/train_loss_last", OUTCOME),
    _line("loss", COURSE_MEAN),
    _line("geometry/ranking_accuracy", COURSE_MEAN),
    _line("geometry/undesirable_zone", COURSE_MEAN),
)


def views(plan: Plan) -> tuple[View, ...]:
    """The saved views of a sweep, the one to open first in front.

    The page draws the first 100 runs it finds, so a larger sweep opens with one condition (the most misaligned
    reference, or else the most corrupted labels), has a view for every other one, and orders runs by seed: what does
    not fit is whole replicates, never an objective.
    """
    runs = f"{RUNS_ONLY} and tags.`harness.current` = 'true'"
    if plan.tags:
        return study_views(plan, runs)
    varying = [name for name in AXES if len({own.get(name) for own in plan.params.values()}) > 1]
    whole = View("comparison", "All runs", runs, comparison(varying or ["seed"]))
    by_objective = ("objective.name",)
    conditions = sorted(dict.fromkeys(plan.conditions.values()), key=lambda name: _stress(plan, name), reverse=True)
    if len(plan.names) <= PAGE:
        averages = View("averages", "Averages by objective", runs, AVERAGES, by_objective)
        return (
            whole,
            averages,
            *(_of(plan, name, runs) for name in conditions[:MOST_CONDITIONS] if len(conditions) > 1),
        )
    first, *others = conditions
    filtered = _within(runs, first)
    return (
        View("comparison", first, filtered, comparison(_axes(plan, first))),
        View("averages", f"{first}: averages by objective", filtered, AVERAGES, by_objective),
        *(_of(plan, name, runs) for name in others[:MOST_CONDITIONS]),
        View("all", f"All conditions, first {PAGE} runs by seed", runs, whole.charts),
    )


def study_views(plan: Plan, runs: str) -> tuple[View, ...]:
    """The views of a study: all complete trials, each objective's own, and the winners on fresh seeds."""
    searched = ("objective.log10_beta", "train.learning_rate")
    axes = [name for name in searched if len({own.get(name) for own in plan.params.values()}) > 1] or ["seed"]
    charts = (
        *(_scatter(name, "final/ranking_accuracy", OUTCOME) for name in axes),
        _parallel(axes, ("final/ranking_accuracy",), OUTCOME),
        _line("geometry/ranking_accuracy", COURSE),
    )
    trials = f"{runs} and tags.`harness.role` = 'search' and tags.`optuna.state` = 'COMPLETE'"
    studies = dict.fromkeys(tags["optuna.study"] for tags in plan.tags.values())
    return (
        View("comparison", "Complete trials", trials, charts),
        View("averages", "Winners on fresh seeds", f"{runs} and tags.`harness.role` = 'fresh'", AVERAGES,
             ("objective.name",)),
        *(View(f"only-{slug(name)}", name, f"{trials} and tags.`optuna.study` = '{name}'", charts) for name in studies),
    )  # fmt: skip


def _of(plan: Plan, condition: str, runs: str) -> View:
    name = slug(condition) if len(condition) <= 64 else f"{slug(condition, 48)}-{content_hash(condition)[:8]}"
    return View(f"only-{name}", condition, _within(runs, condition), comparison(_axes(plan, condition)))


def _within(runs: str, condition: str) -> str:
    return f"{runs} and tags.`harness.condition` = '{condition}'"


def _axes(plan: Plan, condition: str) -> list[str]:
    """Params to draw against each other within a condition: beta and the objectives' own that vary there."""
    own = [plan.params[key] for key, name in plan.conditions.items() if name == condition]
    names = dict.fromkeys(name for params in own for name in params if name.startswith("objective."))
    usual = ("objective.log10_beta", "objective.name", "seed")
    return [name for name in usual if name in names or name == "seed"]


def _stress(plan: Plan, condition: str) -> tuple[float, float]:
    """How hard a condition is: the dial of misalignment where the sweep has one, among equals the cleaner labels."""
    own = next(plan.params[key] for key, name in plan.conditions.items() if name == condition)
    rate, dial = float(own.get("corruption.rate", "0")), float(own.get("world.misaligned", "0"))
    dials = {params.get("world.misaligned") for params in plan.params.values()}
    return (dial, -rate) if len(dials) > 1 else (rate, 0.0)


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
    shown = ("objective.name", "objective.beta", "corruption.kind", "corruption.rate")
    columns = [*(f"params.`{name}`" for name in shown), "metrics.`final/ranking_accuracy`"]
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
        "columnWidths": {},
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


def decode_state(text: str) -> dict[str, Any]:
    """The inverse of `encode_state`. Raises ValueError or zlib.error for anything else."""
    head, _, body = text.partition(";")
    if head != "deflate":
        raise ValueError(f"unknown encoding {head!r} of a saved view")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(body, validate=True)))
    return state


def view_url(base: str, experiment: str, slug: str = FIRST) -> str:
    """The address of a saved view; the page's bare address opens an empty overview."""
    return f"{base}/#/experiments/{experiment}/runs?{_query(slug)}"


def _query(slug: str) -> str:
    return f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={quote(slug)}"


def write_views(client: Any, experiment: str, plan: Plan) -> None:
    """Write the saved views and the experiment's note, view links first. Raises what the client raises."""
    moment = 0  # the same tags at every replay
    written = views(plan)
    tags = client.get_experiment(experiment).tags
    for view in written:
        value = {"name": view.name, "createdAt": moment, "updatedAt": moment, "state": encode_state(view_state(view))}
        _tag(client, experiment, tags, TAG + view.slug, json.dumps(value))
    slugs = {view.slug for view in written}
    for name in tags:  # conditions that the sweep no longer has; views that a user saved have other slugs
        if name.startswith(f"{TAG}only-") and name.removeprefix(TAG) not in slugs:
            client.delete_experiment_tag(experiment, name)
    links = [f"[{view.name}](#/experiments/{experiment}/runs?{_query(view.slug)})" for view in written]
    # The page shows the note's first line until it is opened.
    note = "\n\n".join((" | ".join(links[:2]), plan.question, *links[2:]))
    _tag(client, experiment, tags, "mlflow.note.content", note)
    _tag(client, experiment, tags, "mlflow.experimentKind", "custom_model_development")


def _tag(client: Any, experiment: str, held: Mapping[str, str], name: str, value: str) -> None:
    if held.get(name) != value:
        client.set_experiment_tag(experiment, name, value)
