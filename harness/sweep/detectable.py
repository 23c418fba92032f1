"""The minimum detectable effect of a sweep's comparisons, before it runs. Imports no torch.

The family is the report's: every other objective against the baseline (dpo, or the first objective of the spec) in one
world under one corruption, at the same KL and each at its best setting. It may prove smaller, where no KL is shared or
a best lies at the end of its grid, and intervals widen by the settings that a best was chosen among. Only the sd of a
paired difference is unknown beforehand: the effect is in units of it, and in points of ranking accuracy where earlier
runs show what it was.
"""

from __future__ import annotations

import csv
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.identity import canonical_json, plain
from harness.metrics.statistics import MIN_SEEDS, item_detectable_effect, minimum_detectable_effect, practical_margin
from harness.types import RunSpec, RunStatus

POWER, ALPHA = 0.8, 0.05
BASELINE = "dpo"
MEASURE = "ranking_accuracy"
REWARD_MODEL = "reward_model"  # scores responses and is compared with nothing
OF_A_SETTING = (
    "objective",
    "seed",
    "device",
    "reward_model",
    "training",
    "replica",
)  # all else makes the comparison's place
LEAST = 3  # common seeds from which a spread is taken
SECTIONS = ("corruption.", "world.", "data.", "model.", "training.", "evaluation.")
CONDITION = ("corruption", "rate", "misaligned", "labels", "steps", "replica")


def detectable(runs: Sequence[RunSpec], out: Path, name: str) -> dict[str, Any]:
    """The plan's entry: `comparisons` in the family, `rows` of {seeds, contrasts, sd_units, points} by number of seeds.

    `sd_units`: smallest true difference found with `power` at `alpha` by the report's test, a paired t interval
    corrected for the family, in sd of the paired difference. `points`: the same in points of ranking accuracy at `sd`
    (a share; from earlier results under `out`, this sweep's where it has any), with the report's practical margin;
    None without. `item_points`: what held-out pairs that seeds may share need by themselves, None where every seed has
    a world of its own. `margin`: the practical margin, in points. `basis`: where the sd comes from.
    """
    seeds = contrast_seeds(runs)
    comparisons = len(seeds)
    sd, basis = earlier_spread(out, name)
    items = min((run.evaluation.heldout for run in runs if run.world is None), default=0)
    rows = []
    for n, count in sorted(Counter(seeds).items()):
        units = minimum_detectable_effect(1.0, n, comparisons, POWER, ALPHA) if n > 1 else None
        effect = minimum_detectable_effect(sd or 0.0, n, comparisons, POWER, ALPHA, practical_margin(True))
        points = None if units is None or sd is None else round(100 * effect, 2)
        rows.append({"seeds": n, "contrasts": count, "sd_units": units and round(units, 3), "points": points})
    least = item_detectable_effect(0.0, items, comparisons, POWER, ALPHA) if comparisons and items else None
    return {
        "comparisons": comparisons,
        "baseline": baseline_of(runs) if comparisons else None,
        "power": POWER,
        "alpha": ALPHA,
        "rows": rows,
        "sd": sd,
        "basis": basis,
        "items": items,
        "item_points": least and round(100 * least, 2),
        "margin": 100 * practical_margin(True),
    }


def detectable_lines(effect: Mapping[str, Any]) -> list[str]:
    """`detectable` as lines of text."""
    if not effect["comparisons"]:
        return ["nothing: no two objectives share a condition"]
    lines = []
    for row in effect["rows"]:
        seeds = f"{row['seeds']} seed" + ("s" if row["seeds"] > 1 else "")
        if row["sd_units"] is None:
            lines.append(f"{seeds}: nothing, one seed gives no interval")
            continue
        text = f"{seeds}: {row['sd_units']:.2f} sd of the paired difference"
        text += "" if row["points"] is None else f", {row['points']:.1f} points of ranking accuracy"
        lines.append(text + ("" if row["seeds"] >= MIN_SEEDS else f" (below {MIN_SEEDS} seeds: intervals, no verdict)"))
    least = (
        f"; shared held-out pairs ({effect['items']}) need {effect['item_points']:.1f} points"
        if effect["items"]
        else ""
    )
    lines.append(
        f"power {effect['power']:g}, alpha {effect['alpha']:g} over {effect['comparisons']} comparisons with "
        f"{effect['baseline']}{least}"
    )
    return [*lines, effect["basis"]]


def baseline_of(runs: Iterable[RunSpec]) -> str:
    """dpo, or the first objective where the sweep has no dpo: the report's rule."""
    names = [run.objective.name for run in runs]
    return BASELINE if BASELINE in names or not names else names[0]


def contrast_seeds(runs: Sequence[RunSpec]) -> list[int]:
    """For each comparison of the family the seeds planned on both sides, the most of any setting: two comparisons for
    each rival, or one (at the best of each) where no samples are drawn, so that no KL is known."""
    base = baseline_of(runs)
    arenas: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    samples: dict[str, int] = defaultdict(int)
    for run in runs:
        if run.objective.name != REWARD_MODEL:
            arena = canonical_json({k: v for k, v in plain(run).items() if k not in OF_A_SETTING})
            arenas[arena][run.objective.name].add(run.seed)
            samples[arena] = max(samples[arena], run.evaluation.samples)
    counts = [
        len(seeds & objectives[base])
        for arena, objectives in arenas.items()
        for name, seeds in objectives.items()
        if name != base and base in objectives
        for _ in range(2 if samples[arena] else 1)
    ]
    return [count for count in counts if count]


def earlier_spread(out: Path, name: str) -> tuple[float | None, str]:
    """Median sd over seeds of the difference in ranking accuracy between two objectives, and where it comes from.

    From `results.csv` of the sweep `name` under `out`, else of every other sweep there; None without any.
    """
    this = out / name / "results.csv"
    others = [path for path in sorted(out.glob("*/results.csv")) if path != this]
    for paths, where in (([this], "this sweep's earlier runs"), (others, "earlier sweeps here")):
        spreads = [sd for path in paths if path.is_file() for sd in _spreads(path)]
        if spreads:
            sd = statistics.median(spreads)
            return sd, f"sd {100 * sd:.2g} points, the median over {len(spreads)} pairs of cells of {where}"
    return None, "points of accuracy need the sd of earlier runs under --out"


def _spreads(path: Path) -> list[float]:
    """The sd of the paired difference for every two cells of different objectives under one condition."""
    conditions: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if row.get("status") == RunStatus.DONE and row.get(MEASURE):
                shared = {k: v for k, v in row.items() if k in CONDITION or str(k).startswith(SECTIONS)}
                setting = {k: v for k, v in row.items() if k in ("objective", "beta") or str(k).startswith("hp.")}
                conditions[canonical_json(shared)][canonical_json(setting)][row["seed"]] = float(row[MEASURE])
    out = []
    for cells in conditions.values():
        base = next((key for key in cells if f'"objective":"{BASELINE}"' in key), next(iter(cells)))
        for key, values in cells.items():
            common = sorted(values.keys() & cells[base].keys())
            if key != base and len(common) >= LEAST:
                out.append(statistics.stdev(values[seed] - cells[base][seed] for seed in common))
    return out
