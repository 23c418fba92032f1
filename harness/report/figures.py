"""The report's figures: pure functions from the cells of a sweep to byte-stable SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.measure.statistics import t_interval
from harness.report.cells import Cell
from harness.report.conditions import Condition, find
from harness.report.style import RIGHT, SHADE, WRONG, Picture, draw, key
from harness.report.text import ascii_visible, plain
from harness.tracking.journal import read_journal

POINTS = 100  # per panel of the plane; more overplots without telling more


def picture(
    name: str, title: str, caption: str, alt: str, shape: tuple[int, int], size: tuple[float, float],
    paint: Callable[[Any, Any], None], **axes: Any,
) -> Picture:  # fmt: skip
    """A figure of `shape` panels and `size` inches with its texts."""
    svg = draw(*shape, size, paint, **axes)
    return Picture(name, title, caption, alt, svg, round(size[0] * 96), round(size[1] * 96))


def curves(condition: Condition) -> Picture | None:
    """Training loss and held-out ranking accuracy over steps: a column per objective, a line per beta.

    Losses have a scale of their own per objective and are never compared across columns.
    """
    lines = {
        name: [(cell, _series(cell, "loss"), _series(cell, "geometry/ranking_accuracy")) for cell in cells]
        for name, cells in condition.by_objective.items()
    }
    if not any(loss for series in lines.values() for _, loss, _ in series):
        return None

    def paint(_: Any, axes: Any) -> None:
        for column, (name, series) in enumerate(lines.items()):
            for i, (cell, loss, ranking) in enumerate(series):
                label = f"beta {plain(cell.first.beta)}"
                axes[0, column].plot(list(loss), list(loss.values()), label=label, **key(i))
                axes[1, column].plot(list(ranking), list(ranking.values()), **key(i))
            _steps_axis(axes[:, column], sorted({step for _, loss, _ in series for step in loss}))
            axes[0, column].set_title(ascii_visible(name))
            _legend(axes[0, column])
            axes[1, column].set_ylim(-0.03, 1.03)
            axes[1, column].set_yticks([0, 0.5, 1])
            axes[1, column].axhline(0.5, color="#888888", linewidth=0.8)
            axes[1, column].set_xlabel("step")
        axes[0, 0].set_ylabel("training loss\n(own scale per column)")
        axes[1, 0].set_ylabel("ranking accuracy\n(held out)")

    width = max(2.1 * len(lines), 5.0)
    return picture(
        "curves",
        "While the loss falls, does the ranking follow?",
        f"Condition: {condition.title}. Top: loss on the fixed training probe set; bottom: share of clean held-out"
        " pairs that the policy ranks right (grey line: chance). Means over seeds.",
        "Small multiples by objective: training loss over steps above, held-out ranking accuracy over steps below.",
        (2, len(lines)),
        (width, 4.2),
        paint,
        sharex="col",
    )


def _series(cell: Cell, metric: str) -> dict[int, float]:
    """Mean over finished seeds of one metric by step, at the steps that every one of them has."""
    found: list[dict[int, float]] = []
    for run in cell.runs:
        path = None if run.folder is None else run.folder / "events.jsonl"
        if run.status == "done" and path is not None and path.is_file():
            rows = [row for row in read_journal(path) if row.get("kind") == "metrics" and metric in row]
            found.append({int(row["step"]): float(row[metric]) for row in rows})
    steps = set.intersection(*map(set, found)) if found else set()
    return {step: math.fsum(series[step] for series in found) / len(found) for step in sorted(steps)}


def _legend(panel: Any, **place: Any) -> None:
    """A legend where the panel holds any line: an objective without a finished run leaves its panel empty."""
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=8, **place)


def _steps_axis(axes: Sequence[Any], steps: Sequence[int]) -> None:
    """Checkpoints are log-spaced and include step 0: a symmetric log axis with few, plain ticks."""
    positive = [step for step in steps if step > 0]
    if not positive:
        return
    for one in axes:
        one.set_xscale("symlog", linthresh=positive[0])
        ticks = sorted({0, positive[0], positive[len(positive) // 2], positive[-1]})
        one.set_xticks(ticks, [str(tick) for tick in ticks])
        one.set_xticks([], minor=True)


def plane(condition: Condition) -> Picture | None:
    """Every held-out pair in the plane (delta_ref, delta), a panel per objective and beta, undesirable zone shaded."""
    rows = {name: [cell for cell in cells if _points(cell) is not None] for name, cells in _one_setting(condition)}
    rows = {name: cells for name, cells in rows.items() if cells}
    if not rows:
        return None
    found = np.concatenate([p for cells in rows.values() for cell in cells if (p := _points(cell)) is not None], axis=1)
    limit = float(np.ceil(np.quantile(np.abs(found), 0.995)))
    width = max(len(cells) for cells in rows.values())

    def paint(_: Any, axes: Any) -> None:
        for column, (name, cells) in enumerate(rows.items()):
            for i in range(width):
                panel = axes[i, column]
                if i >= len(cells):
                    panel.set_axis_off()
                    continue
                _plane_panel(panel, cells[i], limit)
                panel.set_title(f"{ascii_visible(name)}\nbeta {plain(cells[i].first.beta)}", fontsize=8.5)
                panel.set_aspect("equal")
            axes[len(cells) - 1, column].set_xlabel("reference margin (nats)")
        for i in range(width):
            axes[i, 0].set_ylabel("policy margin (nats)")

    return picture(
        "plane",
        "Where the pairs sit",
        f"Condition: {condition.title}. Each dot is a held-out pair: the reference's margin against the policy's, in"
        f" nats (at most {POINTS} pairs a panel). Shaded: the undesirable zone, better than the reference and still"
        " ranked wrong (orange crosses). Above the horizontal line the pair is ranked right.",
        "Scatter panels by objective and beta: policy margin against reference margin, undesirable zone shaded.",
        (width, len(rows)),
        (max(1.95 * len(rows), 4.0), 2.1 * width + 0.3),
        paint,
        sharex=True,
        sharey=True,
    )


def _one_setting(condition: Condition) -> list[tuple[str, list[Cell]]]:
    """Cells by objective with one cell per beta: the first, where further hyperparameters are an axis."""
    return [
        (name, list({cell.first.beta: cell for cell in reversed(cells)}.values())[::-1])
        for name, cells in condition.by_objective.items()
    ]


def _points(cell: Cell) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """(2, n) reference and policy margins, spread evenly over seeds and over the order of the ids."""
    facts = [cell.facts[run.key] for run in cell.runs if run.key in cell.facts]
    if not facts:
        return None
    share = -(-POINTS // len(facts))
    return np.concatenate([np.stack([f.delta_ref[:share], f.delta[:share]]) for f in facts], axis=1)


def _plane_panel(panel: Any, cell: Cell, limit: float) -> None:
    points = _points(cell)
    assert points is not None
    reference, policy = points
    zone = (policy < 0) & (policy > reference)
    panel.fill([-limit, 0, -limit], [-limit, 0, 0], color=SHADE, linewidth=0)
    panel.axhline(0, color="#555555", linewidth=0.7)
    panel.plot([-limit, limit], [-limit, limit], color="#555555", linewidth=0.7, linestyle=":")
    # As one image a panel: hundreds of vector marks would make the page heavy and say no more.
    style = {"linestyle": "none", "rasterized": True}
    panel.plot(reference[~zone], policy[~zone], marker=".", markersize=3, color=RIGHT, **style)
    panel.plot(reference[zone], policy[zone], marker="x", markersize=3, color=WRONG, markeredgewidth=0.8, **style)
    panel.set_xlim(-limit, limit)
    panel.set_ylim(-limit, limit)


def noise(conditions: Sequence[Condition], rates: int = 2) -> list[Picture]:
    """Ranking accuracy with its intervals against the corruption rate: a column per objective, a row per dial.

    One picture for every kind with at least `rates` different rates, the clean set counted.
    """
    pictures = []
    for kind in sorted({c.corruption for c in conditions if not c.clean}):
        settings = sorted({(c.labels, c.misaligned) for c in conditions if c.corruption == kind}, key=repr)
        rows = [(setting, find(conditions, *setting, kind)) for setting in settings]
        rows = [(setting, found) for setting, found in rows if len({c.rate for c in found}) >= rates]
        if any(cell.values("ranking_accuracy") for _, found in rows for c in found for cell in c.cells):
            pictures.append(_noise_picture(kind, rows))
    return pictures


def _noise_picture(kind: str, rows: Sequence[tuple[tuple[str | None, float | None], list[Condition]]]) -> Picture:
    names = list(dict.fromkeys(name for _, found in rows for c in found for name in c.by_objective))

    def paint(_: Any, axes: Any) -> None:
        for row, ((_, misaligned), found) in enumerate(rows):
            for column, name in enumerate(names):
                _noise_panel(axes[row, column], found, name)
                axes[0, column].set_title(ascii_visible(name))
                axes[-1, column].set_xlabel("share corrupted")
                _legend(axes[0, column], loc="lower left")
            dial = "" if misaligned is None else f"misaligned {plain(misaligned)}\n"
            axes[row, 0].set_ylabel(f"{dial}ranking accuracy")

    return picture(
        "noise-" + "".join(c if c.isalnum() else "-" for c in kind.lower())[:40],
        f"How much {ascii_visible(kind)} each objective survives",
        "Share of clean held-out pairs ranked right, with 95 % intervals over seeds, against the share of corrupted"
        " training pairs. Grey line: chance.",
        f"Ranking accuracy against the rate of {ascii_visible(kind)}, a panel per objective and world setting.",
        (len(rows), len(names)),
        (max(2.1 * len(names), 5.0), 2.1 * len(rows) + 0.4),
        paint,
        sharex=True,
        sharey=True,
    )


def _noise_panel(panel: Any, found: Sequence[Condition], name: str) -> None:
    lines: dict[tuple[float, str], list[tuple[float, float, float, float]]] = {}
    for condition in found:
        for cell in condition.by_objective.get(name, ()):
            mean = cell.estimate("ranking_accuracy")
            if mean.n:
                low, high = (mean.low, mean.high) if math.isfinite(mean.low) else (mean.mean, mean.mean)
                beta = -math.inf if cell.first.beta is None else cell.first.beta
                point = (condition.rate, mean.mean, mean.mean - low, high - mean.mean)
                lines.setdefault((beta, repr(cell.first.hyperparameters)), []).append(point)
    for i, (line, points) in enumerate(sorted(lines.items())):
        x, y, below, above = zip(*sorted(points), strict=True)
        label = f"beta {plain(line[0])}" if math.isfinite(line[0]) else "no beta"
        # A small side step keeps the intervals of neighbouring betas apart.
        shifted = [value + (i - (len(lines) - 1) / 2) * 0.006 for value in x]
        panel.errorbar(shifted, y, yerr=(below, above), capsize=2, elinewidth=0.9, label=label, **key(i))
    panel.axhline(0.5, color="#888888", linewidth=0.8)
    panel.set_ylim(-0.03, 1.05)
    panel.set_yticks([0, 0.5, 1])


def quality(condition: Condition) -> Picture | None:
    """Ranking accuracy against gold reward of free-running samples and against KL: one mark per objective and beta."""
    titles = {"gold_reward": "gold reward of samples", "kl": "KL to the reference (nats)"}
    means = {cell: {m: cell.estimate(m).mean for m in ("ranking_accuracy", *titles)} for cell in condition.cells}
    shown = [m for m in titles if any(math.isfinite(mean[m]) for mean in means.values())]
    if not shown:
        return None
    names = list(condition.by_objective)

    def paint(figure: Any, axes: Any) -> None:
        for panel, measure in zip(axes[0], shown, strict=True):
            for i, name in enumerate(names):
                own = [
                    (cell, means[cell]["ranking_accuracy"], means[cell][measure])
                    for cell in condition.by_objective[name]
                    if math.isfinite(means[cell][measure])
                ]
                style = key(i) | {"linestyle": "none", "markersize": 6.5}
                panel.plot([x for _, x, _ in own], [y for _, _, y in own], label=ascii_visible(name), **style)
                for cell, x, y in own:
                    place = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 7, "color": "#444444"}
                    panel.annotate(plain(cell.first.beta), (x, y), **place)
            panel.set_xlabel("ranking accuracy (held out)")
            panel.set_ylabel(titles[measure])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)

    return picture(
        "quality",
        "Ranking accuracy beside gold reward and KL",
        f"Condition: {condition.title}. One mark per objective and beta (its number), means over seeds. Marks far right"
        " and low rank well but sample badly; the right panel shows what they paid in KL.",
        "Scatter of ranking accuracy against gold reward of samples and against KL, by objective and beta.",
        (1, len(shown)),
        (3.9 * len(shown) + 1.2, 3.5),
        paint,
    )


def predicted(conditions: Sequence[Condition]) -> Picture | None:
    """Bradley-Terry labels: share of held-out pairs that the optimum ranks wrong, predicted and measured, by beta."""
    panels: Mapping[str, list[Cell]] = {
        f"{name}, {condition.title}": [cell for cell in cells if cell.fact_values("predicted")]
        for condition in conditions
        if condition.labels == "bradley_terry"
        for name, cells in condition.by_objective.items()
    }
    panels = {title: cells for title, cells in panels.items() if cells}
    if not panels:
        return None

    def paint(_: Any, axes: Any) -> None:
        for panel, (title, cells) in zip(axes[0], panels.items(), strict=True):
            places = range(len(cells))
            for i, (fact, label) in enumerate((("predicted", "predicted"), ("violated", "measured"))):
                found = [t_interval(list(cell.fact_values(fact).values())) for cell in cells]
                errors = [[0.0 if math.isnan(e.low) else e.mean - e.low for e in found]] * 2
                style = key(i) | {"markersize": 6}
                panel.errorbar(places, [e.mean for e in found], yerr=errors, capsize=3, label=label, **style)
            panel.set_xticks(list(places), [plain(cell.first.beta) for cell in cells])
            panel.set_xlabel("beta")
            panel.set_title(ascii_visible(title.split(",")[0]))
            panel.set_ylim(-0.03, 1.03)
            panel.legend()
        axes[0, 0].set_ylabel("share ranked wrong")

    return picture(
        "predicted",
        "Bradley-Terry labels: predicted and measured share ranked wrong",
        "Share of clean held-out pairs ranked wrong: predicted from reference and gold reward alone,"
        " P(delta_ref + gap / beta < 0), and measured after training, by beta, with 95 % intervals over seeds.",
        "Predicted and measured share of wrongly ranked pairs by beta.",
        (1, len(panels)),
        (max(4.2 * len(panels), 4.2), 3.2),
        paint,
        sharey=True,
    )
