"""The charts of the saved views, as MLflow's page stores them: what is drawn against what, in which section.

The page titles a chart by its metric and shows no other name: a section's name has to say the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

RANKING, ZONE, KL, GOLD = "final/ranking_accuracy", "final/undesirable_zone", "final/kl", "final/gold_reward"
FRONTIER = "Quality against the KL paid for it, a point per run: compare heights at one KL, not at one beta"


def _line(metric: str, section: str) -> dict[str, Any]:
    keys = {"metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step", "selectedXAxisMetricKey": ""}
    look = {"lineSmoothness": 0, "scaleType": "linear", "xAxisScaleType": "linear", "ignoreOutliers": False}
    return {"type": "LINE", "section": section, **keys, **look, "useGlobalLineChartConfig": False, "yAxisKey": "metric"}


def _bar(metric: str, section: str) -> dict[str, Any]:
    return {"type": "BAR", "section": section, "metricKey": metric}


def _scatter(x: str, y: str, section: str) -> dict[str, Any]:
    """Two columns of the runs' table against each other: a name with a slash is a metric, else a param."""
    axes = [{"key": key, "type": "METRIC" if "/" in key else "PARAM"} for key in (x, y)]
    return {"type": "SCATTER", "section": section, "xaxis": axes[0], "yaxis": axes[1]}


def _parallel(params: Iterable[str], metrics: Iterable[str], section: str) -> dict[str, Any]:
    chosen = {"selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": True}
    return {"type": "PARALLEL", "section": section, **chosen}


def _course(section: str) -> tuple[Mapping[str, Any], ...]:
    """What the loss says beside what it is worth on held-out pairs."""
    return (_line("loss", section), *_lines(section, "ranking_accuracy", "undesirable_zone"))


def _lines(section: str, *names: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(_line(f"geometry/{name}", section) for name in names)


def _by_objective(section: str, *names: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(_scatter("objective.name", f"final/{name}", section) for name in names)


def comparison(axes: Iterable[str]) -> tuple[Mapping[str, Any], ...]:
    """The charts of one set of runs, a mark or line per run in its objective's colour; `axes`: params that vary."""
    end, against = "At the end, a point per run", list(axes)
    return (
        _scatter(KL, RANKING, FRONTIER),
        _scatter(KL, GOLD, FRONTIER),
        *_course("Over training steps: does accuracy follow the loss?"),
        *(_scatter(name, RANKING, end) for name in ("objective.name", *against[:2])),
        *(_scatter(name, ZONE, end) for name in ("objective.name", *against[:2])),
        *([_parallel(against[:3], (RANKING,), end)] if len(against) > 1 else []),
    )


PAIRS, SAMPLES = "Held-out pairs at the end, a point per run", "Samples and loss at the end, a point per run"
BY_OBJECTIVE = (
    *_by_objective(PAIRS, "ranking_accuracy", "undesirable_zone", "ood_ranking_accuracy"),
    *_by_objective(SAMPLES, "gold_reward", "kl", "train_loss_last"),
)

# The page colours groups from fewer colours than there are objectives: the other views use the colour of the run.
AVERAGES = (
    *(_bar(metric, "At the end, averages over runs") for metric in (RANKING, ZONE, "final/train_loss_last")),
    *_course("Over training steps, averages with ranges"),
)

BOUGHT = "At the end: what the distance paid bought"
MOVED = "Log-probs moved from the reference, nats"
GEOMETRY = (
    *_lines("Margins, nats: policy, reference, gain", "delta", "delta_ref", "gain"),
    *_lines("Zones: right and up, wrong and up, wrong and down", "zone_z1", "undesirable_zone", "zone_z4"),
    *_lines(MOVED, "chosen_displacement", "rejected_displacement", "both_down"),
    *_lines("Accuracies: by reward, by ranking", "reward_accuracy", "ranking_accuracy", "ood_ranking_accuracy"),
    _scatter(KL, GOLD, BOUGHT),
    _scatter(KL, RANKING, BOUGHT),
    _scatter(RANKING, GOLD, BOUGHT),
)

BESIDE = "A point per cell, means over seeds"


def beside(sized: bool) -> tuple[Mapping[str, Any], ...]:
    """The charts of sweeps side by side; `sized`: their models differ in size."""
    against = ("harness.sweep", *(("model.log10_parameters",) if sized else ()))
    return (
        *(_scatter(name, metric, BESIDE) for name in against for metric in (RANKING, ZONE)),
        _parallel(("harness.sweep", "objective.name"), (RANKING, ZONE), BESIDE),
    )
