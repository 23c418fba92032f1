"""The figures of a study: history, slices, contour of beta and learning rate, importance, front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.palette import COLOURS, looks
from harness.report.render.figures import Picture, panels, picture, shape_of
from harness.report.study.findings import CLEAN
from harness.report.study.study import Study, StudyTrial

BETA, RATE = "beta", "training.learning_rate"
SHORT = {RATE: "learning rate"}
MIN_CONTOUR = 6  # points, below which a surface through them is fiction


def pictures(study: Study) -> list[Picture]:
    """Every figure that the study has data for."""
    every = (history(study), contour(study), slices(study), importance(study), front(study))
    return [one for one in every if one is not None]


def _complete(study: Study, arm: str) -> list[StudyTrial]:
    return [trial for trial in study.of(arm) if trial.complete]


def _label(study: Study) -> str:
    where = "" if study.split == CLEAN else f" ({study.split})"
    return f"{study.measure.replace('_', ' ')}{where.replace('_', ' ')}"


def history(study: Study) -> Picture | None:
    """Each trial's score in the order asked, the best so far, and the winner's interval on fresh seeds."""
    arms = [arm for arm in study.arms if _complete(study, arm)]
    if not arms:
        return None
    better = np.maximum if study.maximize else np.minimum
    seen = looks(study.arms)

    def paint(_: Any, axes: Any) -> None:
        for panel, arm in zip(panels(axes, len(arms)), arms, strict=True):
            done = _complete(study, arm)
            colour = seen[arm].colour
            able, beyond = ([t for t in done if t.feasible is kept] for kept in (True, False))
            for trials, face, label in ((able, colour, "trial"), (beyond, "none", "beyond a bound")):
                panel.plot([t.number for t in trials], [t.values[0] for t in trials], seen[arm].marker, color=colour,
                           markerfacecolor=face, alpha=0.6, label=label if trials else None)  # fmt: skip
            if able:
                best = better.accumulate([t.values[0] for t in able])
                panel.step([t.number for t in able], best, where="post", color=colour, label="best so far")
            for lost in (trial for trial in study.of(arm) if not trial.complete):
                panel.axvline(lost.number, color="#999999", linewidth=0.7, linestyle=":")
            winner = study.winner(arm)
            fresh = None if winner is None else study.estimate(winner.fresh, study.measure, study.report_split)
            if fresh is not None and fresh.n > 1:
                panel.axhspan(fresh.low, fresh.high, color=colour, alpha=0.15, linewidth=0, label="winner, fresh seeds")
                panel.axhline(fresh.mean, color=colour, linewidth=0.8, linestyle="--")
            panel.set_title(study.called(arm))
            panel.set_xlabel("trial")
        axes.flat[0].set_ylabel(_label(study))
        axes.flat[0].legend(fontsize=7, loc="lower right")

    rows, columns = shape_of(len(arms), 3)
    return picture(
        "history",
        "The search, trial by trial",
        "Means over the search seeds. The band is the winner's interval on fresh seeds and pairs that steered "
        "nothing: how far it lies below the best so far is the winner's curse. Hollow: trials beyond a bound, "
        "which cannot win. Dotted: failed or pruned ones.",
        "Small multiples by objective: score of each trial in order, with the best so far as a step line.",
        (rows, columns), (3.4 * columns, 2.6 * rows), paint, sharey=True,
    )  # fmt: skip


def _numeric(study: Study, arm: str) -> dict[str, Mapping[str, Any]]:
    return {name: axis for name, axis in study.space(arm).items() if "low" in axis}


def slices(study: Study) -> Picture | None:
    """Score against each numeric setting, a row an objective."""
    arms = [arm for arm in study.arms if _complete(study, arm) and _numeric(study, arm)]
    if not arms:
        return None
    width = min(max(len(_numeric(study, arm)) for arm in arms), 4)
    seen = looks(study.arms)

    def paint(_: Any, axes: Any) -> None:
        for place, arm in enumerate(arms):
            done, winner = _complete(study, arm), study.winner(arm)
            spaces = list(_numeric(study, arm).items())[:width]
            for column, panel in enumerate(axes[place]):
                if column >= len(spaces):
                    panel.set_axis_off()
                    continue
                name, axis = spaces[column]
                panel.plot([t.params[name] for t in done], [t.values[0] for t in done], seen[arm].marker,
                           color=seen[arm].colour, alpha=0.6)  # fmt: skip
                if winner is not None:
                    panel.plot([winner.params[name]], [winner.values[0]], "o", mfc="none", mec="#000000", ms=10)
                if axis["log"]:
                    _log_scale(panel, axis)
                panel.set_xlabel(SHORT.get(name, name))
            axes[place][0].set_ylabel(study.called(arm))

    return picture(
        "slices",
        "Score against each setting",
        f"A dot is a trial, ringed the winner. Vertical: {_label(study)}, mean over the search seeds.",
        "Scatter plots of trial score against every searched setting, one row per objective.",
        (len(arms), width), (3.2 * width, 2.1 * len(arms)), paint, sharey=True,
    )  # fmt: skip


def _log_scale(panel: Any, axis: Mapping[str, Any]) -> None:
    """A log axis over the searched range, its decades as plain numbers."""
    low, high = float(axis["low"]), float(axis["high"])
    decades = [10.0**k for k in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
    ticks = decades if len(decades) > 1 else [low, high]
    panel.set_xscale("log")
    panel.set_xlim(low / 1.2, high * 1.2)
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_xticks([], minor=True)


def contour(study: Study) -> Picture | None:
    """Score over beta x learning rate, a panel an objective that searched both."""
    by_arm: dict[str, tuple[Any, Any, Any]] = {}
    for arm in study.arms:
        space, done = _numeric(study, arm), _complete(study, arm)
        if BETA in space and RATE in space and len(done) >= MIN_CONTOUR:
            x, y = (_scaled([t.params[n] for t in done], space[n]) for n in (BETA, RATE))
            if np.linalg.matrix_rank(np.stack([x - x.mean(), y - y.mean()]), tol=1e-6) == 2:
                by_arm[arm] = x, y, np.array([t.values[0] for t in done])
    if not by_arm:
        return None
    low = min(float(z.min()) for _, _, z in by_arm.values())
    high = max(float(z.max()) for _, _, z in by_arm.values())
    levels = np.linspace(low, high if high > low else low + 1e-9, 11)

    def paint(figure: Any, axes: Any) -> None:
        used = panels(axes, len(by_arm))
        for panel, (arm, (x, y, z)) in zip(used, by_arm.items(), strict=True):
            shades = panel.tricontourf(x, y, z, levels=levels, cmap="viridis")
            panel.plot(x, y, ".", color="#ffffff", markeredgecolor="#333333", markersize=6)
            winner, space = study.winner(arm), _numeric(study, arm)
            if winner is not None:
                at = [_scaled([winner.params[n]], space[n]) for n in (BETA, RATE)]
                panel.plot(*at, "*", color="#D55E00", markeredgecolor="#ffffff", markersize=14)
            panel.set_title(study.called(arm))
            panel.set_xlabel("log10 beta" if space[BETA]["log"] else "beta")
            panel.set_ylabel("log10 learning rate" if space[RATE]["log"] else "learning rate")
            panel.grid(False)
        figure.colorbar(shades, ax=used, label=_label(study), format="%.3f")

    rows, columns = shape_of(len(by_arm), 3)
    return picture(
        "contour",
        "Beta and learning rate together",
        "Interpolated between trials (dots); the star is the winner. Where the colour is flat, neither matters.",
        "Contour plots of score over log beta and log learning rate, a panel per objective.",
        (rows, columns), (3.4 * columns + 0.8, 2.8 * rows), paint,
    )  # fmt: skip


def _scaled(values: Sequence[float], axis: Mapping[str, Any]) -> Any:
    array = np.asarray(values, dtype=np.float64)
    return np.log10(array) if axis["log"] else array


def importance(study: Study) -> Picture | None:
    """Which setting the score depends on, per objective."""
    by_arm = {arm: values for arm in study.arms if (values := study.about["importance"].get(arm))}
    names = list(dict.fromkeys(name for values in by_arm.values() for name in values))
    if not by_arm or len(names) < 2:
        return None

    def paint(_: Any, axes: Any) -> None:
        panel, height = axes[0][0], 0.8 / len(names)
        for index, name in enumerate(names):
            place = np.arange(len(by_arm)) + (index - (len(names) - 1) / 2) * height
            shares = [values.get(name, 0.0) for values in by_arm.values()]
            panel.barh(place, shares, height, color=COLOURS[index % 8], label=SHORT.get(name, name))
        panel.set_yticks(range(len(by_arm)), list(map(study.called, by_arm)))
        panel.invert_yaxis()
        panel.set_xlabel("share of the explained variation")
        panel.grid(axis="x")
        panel.legend(fontsize=8)

    return picture(
        "importance",
        "Which setting matters",
        "Share of the variation between good trials and all trials that each setting explains (PED-ANOVA).",
        "Bars of the importance of every searched setting, grouped by objective.",
        (1, 1), (7.0, 0.8 + 0.55 * len(by_arm)), paint,
    )  # fmt: skip


def front(study: Study) -> Picture | None:
    """Trials in the plane of the first two targets; of a single target under bounds, none."""
    targets = study.about["targets"]
    arms = [arm for arm in study.arms if _complete(study, arm)]
    if len(targets) < 2 or not arms:
        return None
    seen = looks(study.arms)

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0][0]
        for arm in arms:
            able = [t for t in _complete(study, arm) if t.feasible]
            ahead = [t for t in able if not any(_beats(study, other, t) for other in able)]
            colour, marker = seen[arm].colour, seen[arm].marker
            panel.plot([t.values[0] for t in able], [t.values[1] for t in able], marker, color=colour, alpha=0.3)
            line = sorted((t.values[0], t.values[1]) for t in ahead)
            panel.plot([x for x, _ in line], [y for _, y in line], marker=marker, color=colour, label=arm)
        panel.set_xlabel(str(targets[0]["measure"]).replace("_", " "))
        panel.set_ylabel(str(targets[1]["measure"]).replace("_", " "))
        panel.legend(fontsize=8)

    return picture(
        "front",
        "What one target costs in the other",
        "Joined: trials that no other trial of their objective beats in one target without losing in another.",
        "Scatter plot of trials by their first two targets, the Pareto front of each objective joined.",
        (1, 1), (7.0, 4.2), paint,
    )  # fmt: skip


def _beats(study: Study, one: StudyTrial, other: StudyTrial) -> bool:
    signs = [1 if target["direction"] == "maximize" else -1 for target in study.about["targets"]]
    pairs = [(s * a, s * b) for s, a, b in zip(signs, one.values, other.values, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
