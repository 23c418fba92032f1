"""`harness compare`: right on planted differences, silent on planted nulls, the same from published folders."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from harness import InputError, compare, publish
from harness.identity import canonical_json, plain, run_key
from harness.metrics.statistics import independent_contrast
from harness.report.compare.differences import Differences, compare_levels
from harness.report.compare.levels import Level, align, size_text
from harness.report.compare.page import build_page
from harness.report.compare.page import plain as as_json
from harness.report.compare.sentences import answer
from harness.report.data.sweep import Run, Sweep
from harness.types import LoraSpec, PathModelSpec, RunSpec
from tests.commands import harness
from tests.report.fixture import grid, write_sweep

Means = Callable[[RunSpec], Mapping[str, float]]
SPREAD = 0.03  # between seeds
SIMULATED = 200


def runs_of(seeds: Sequence[int] = range(8), hidden: int = 64, dials: Sequence[float] = (0.75,)) -> list[RunSpec]:
    """Two objectives at one beta, clean and 20 % flipped labels."""
    specs = grid(("dpo", "cpo_smooth"), betas=1, dials=dials, seeds=1)
    specs = [replace(run, world=replace(run.world, hidden_size=hidden)) for run in specs if run.world is not None]
    return [replace(run, seed=seed) for run in specs for seed in seeds]


def level(
    name: str, runs: Sequence[RunSpec], means: Means, rng: np.random.Generator, parameters: int = 50_000
) -> Level:
    """A level whose measures are drawn around `means`, with an effect of the seed on all cells of a condition."""
    shared = {seed: rng.normal(0, SPREAD) for seed in {run.seed for run in runs}}
    made = []
    for run in runs:
        drawn = {name: mean + shared[run.seed] + rng.normal(0, SPREAD) for name, mean in means(run).items()}
        results = {name: float(np.clip(value, 0, 1)) for name, value in drawn.items()}
        stated = {"reference": {"parameters": parameters, "sha256": name}, "data": {"sha256": f"{name}{run.seed}"}}
        result = {"status": "done", "steps": 200, "results": results, "costs": {}}
        made.append(Run(run_key(run), plain(run), result, None, stated=stated))
    return Level(name, Sweep(Path(), name, "?", (), tuple(made)), parameters)


def compared(*levels: Level) -> Differences:
    return compare_levels(align(levels), "dpo")


def flat(run: RunSpec) -> dict[str, float]:
    """Objectives differ, sweeps do not."""
    up = 0.1 if run.objective.name == "cpo_smooth" else 0.0
    return {"ranking_accuracy": 0.7 + up, "undesirable_zone": 0.25 - up, "reward_accuracy": 0.9, "gold_reward": 0.3}


def planted(run: RunSpec) -> dict[str, float]:
    """dpo's zone shrinks by 20 points on clean labels; under flips cpo_smooth ranks 10 points fewer right than dpo."""
    out = flat(run)
    dirty = run.corruption.kind != "none"
    if run.objective.name == "dpo" and not dirty:
        out["undesirable_zone"] -= 0.2
    if run.objective.name == "cpo_smooth" and dirty:
        out["ranking_accuracy"] -= 0.2
    return out


def test_planted_differences_are_found_and_named() -> None:
    rng = np.random.default_rng(0)
    found = compared(level("small", runs_of(), flat, rng), level("large", runs_of(hidden=128), planted, rng, 500_000))
    shown = {(d.match.first.named, d.match.first.first.corruption, d.measure): d.verdict.word for d in found.shown}
    assert shown == {
        ("dpo at beta 5", "none", "undesirable_zone"): "better",
        ("cpo_smooth at beta 5", "uniform_flip", "ranking_accuracy"): "worse",
    }
    orders = {order.cell.first.first.corruption: order.word for order in found.orders}
    assert orders == {"none": "holds", "uniform_flip": "reversed"}
    first, second = answer(found)
    assert "as small shows it, holds at large in 1 of 2 cells; it is reversed in 1" in first
    assert "(small) to" in second and "(large)" in second and "8 seeds, paired" in second
    assert second.startswith("cpo_smooth at beta 5 (reference wrong on 75\u00a0% of topics, 20\u00a0% flips): ")
    many = "2 of 16 comparisons show one (1 better and 1 worse)."
    assert second.endswith(f": the largest shown difference in ranking accuracy; {many}")
    assert all(d.paired for d in found.cells) and found.alignment.differing == ("world.hidden_size",)


@pytest.mark.parametrize("seeds", [range(8), range(20, 28)], ids=["paired", "other seeds"])
def test_planted_nulls_are_silent(seeds: range) -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(SIMULATED):
        found = compared(level("a", runs_of(), flat, rng), level("b", runs_of(seeds, hidden=128), flat, rng, 500_000))
        words = {order.word for order in found.orders} & {"reversed", "changed"}
        slopes = [slope for slope in found.slopes if slope.verdict.word in ("better", "worse")]
        alarms += bool(found.shown or words or slopes)
    assert alarms <= 0.06 * SIMULATED, f"{alarms} of {SIMULATED}"


def test_three_sizes_give_the_planted_slope() -> None:
    rng = np.random.default_rng(2)
    sizes = {"s": 10_000, "m": 100_000, "l": 1_000_000}

    def rising(decades: int) -> Means:
        return lambda run: flat(run) | {"undesirable_zone": 0.45 - 0.1 * decades}

    found = compared(
        *(level(n, runs_of(hidden=2 ** (4 + i)), rising(i), rng, size) for i, (n, size) in enumerate(sizes.items()))
    )
    zone = [one for one in found.slopes if one.measure == "undesirable_zone"]
    assert len(zone) == 4 and all(one.verdict.word == "better" for one in zone)
    assert all(one.verdict.plain.low < -0.1 < one.verdict.plain.high for one in zone)
    flatly = [one for one in found.slopes if one.measure == "ranking_accuracy"]
    assert all(one.verdict.word == "no difference shown" for one in flatly)
    page = build_page(found)
    assert [row.name for row, _ in page.sections] == ["order", "cells", "size", "axes", "settings", "methods"]
    assert json.loads(json.dumps(as_json(found), allow_nan=False))["slopes"][0]["n"] == 8


def test_only_cells_that_agree_on_every_axis_match() -> None:
    rng = np.random.default_rng(3)
    wide = runs_of(dials=(0.0, 0.75))
    narrow = [replace(run, training=replace(run.training, steps=400)) for run in runs_of(range(4, 10))]
    found = compared(level("wide", wide, flat, rng), level("narrow", narrow, flat, rng))
    alignment = found.alignment
    assert len(alignment.levels[0].cells) == 8 and len(alignment.matches) == 4
    assert {match.first.first.misaligned for match in alignment.matches} == {0.75}
    assert alignment.differing == ("training.steps",) and "world.misaligned" in alignment.axes
    assert alignment.values("world.misaligned") == (("0.0", "0.75"), ("0.75",))
    assert not any(one.paired for one in found.cells), "4 of 6 seeds in common: too few to drop the others"
    assert not found.slopes, "one size"


def test_a_constant_setting_is_compared_across_and_named() -> None:
    """One sweep on clean labels beside one on flipped labels: that is the difference, and nothing is left out."""
    rng = np.random.default_rng(4)
    clean = [run for run in runs_of() if run.corruption.kind == "none"]
    dirty = [run for run in runs_of() if run.corruption.kind != "none"]
    alignment = align((level("clean", clean, flat, rng), level("dirty", dirty, flat, rng)))
    assert len(alignment.matches) == 2 and {"corruption", "rate"} <= set(alignment.differing)


def test_what_cannot_be_compared_is_refused(pristine: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    other = [replace(run, world=replace(run.world, misaligned=m)) for m in (0.1, 0.2) for run in runs_of() if run.world]
    with pytest.raises(InputError, match=r"no value in common on world.misaligned"):
        align((level("a", runs_of(dials=(0.0, 0.75)), flat, rng), level("b", other, flat, rng)))
    with pytest.raises(InputError, match="nothing to compare it with"):
        compare(pristine, out=tmp_path / "out")
    with pytest.raises(InputError, match=r"no plan.json and no published.json here"):
        compare(pristine, tmp_path, out=tmp_path / "out")
    assert harness("compare", pristine, tmp_path / "nothing").returncode == 2
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(InputError, match=r"index.html is there and no comparison.json"):
        compare(pristine, pristine, out=tmp_path)
    assert (tmp_path / "index.html").read_text() == "mine"


def test_welch_by_hand() -> None:
    """Means 2 and 6, variances of the means 1/3 and 4/3: half-width t(2.94 df) sqrt(5/3)."""
    one = independent_contrast([-1, 1], [[1, 2, 3], [4, 6, 8]])
    assert one.mean == 4 and one.n == 3
    freedom = (5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    assert freedom == pytest.approx(2.941, abs=1e-3)
    assert one.high - 4 == pytest.approx(3.2187 * (5 / 3) ** 0.5, rel=1e-3)  # t quantile between those of 2 and 3 df
    assert [size_text(n) for n in (None, 950, 57_664, 134_515_008)] == ["unknown size", "950", "57.7k", "135M"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sweeps on disk, the second on a model twice as wide."""
    root = tmp_path_factory.mktemp("sweeps")
    specs = grid(("dpo", "cpo_smooth"), betas=1, dials=(0.75,), seeds=6, items=32)
    small = write_sweep(root / "small", specs)
    wide = [replace(run, world=replace(run.world, hidden_size=128)) for run in specs if run.world is not None]
    large = write_sweep(root / "large", wide, diverged=[1])
    for folder, size in ((small, 57_664), (large, 201_000)):
        for path in folder.glob("*/result.json"):
            value: dict[str, Any] = json.loads(path.read_text("utf-8"))
            del value["sha256"]
            value["costs"]["parameters"] = size
            value["sha256"] = hashlib.sha256(canonical_json(value).encode()).hexdigest()
            path.write_text(json.dumps(value), encoding="utf-8")
    return small, large


def test_published_folders_compare_like_the_sweeps_they_are_of(folders: tuple[Path, Path], tmp_path: Path) -> None:
    direct = compare(*folders, out=tmp_path / "direct")
    shared = [publish(folder, tmp_path / folder.name).folder for folder in folders]
    mixed = compare(shared[0], folders[1], out=tmp_path / "mixed")
    for file in ("index.html", "report.md", "comparison.json", "differences.csv", "order.csv", "slopes.csv"):
        assert (tmp_path / "direct" / file).read_bytes() == (tmp_path / "mixed" / file).read_bytes(), file
    assert direct.answer == mixed.answer and repr(direct).endswith(f"page     {tmp_path / 'direct' / 'index.html'}")
    assert {"side-by-side", "size"} <= set(direct.report.figures) and direct.answer[0] in direct._repr_html_()
    table = direct.differences
    assert isinstance(table, pd.DataFrame) and set(table.verdict) <= {"better", "worse", "no difference shown"}
    assert set(direct.order.sweep) == {"small", "large"} and len(direct.slopes)


def test_the_command_writes_and_tracks(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):  # the second replaces the runs of the first
        done = harness("compare", *folders, "--out", tmp_path / "out", "--track", "--json")
        assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["matching_cells"] == 4 and [one["parameters"] for one in facts["sweeps"]] == [57_664, 201_000]
    assert facts == json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8"))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("compare small, large")
    assert experiment is not None and "mlflow.sharedViewState.comparison" in experiment.tags
    runs = client.search_runs([experiment.experiment_id], "tags.`harness.kind` = 'comparison'")
    assert len(runs) == 8 and {run.data.params["model.parameters"] for run in runs} == {"57664", "201000"}
    assert all("final/ranking_accuracy" in run.data.metrics for run in runs)
    assert {file.path for run in runs for file in client.list_artifacts(run.info.run_id, "comparison")} >= {
        "comparison/index.html", "comparison/differences.csv",
    }  # fmt: skip


def test_a_sweep_over_models_is_compared_with_itself(folders: tuple[Path, Path], tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(folders[0], both)
    plans = [json.loads((folder / "plan.json").read_text("utf-8")) for folder in folders]
    for run in folders[1].glob("*-*/result.json"):
        shutil.copytree(run.parent, both / run.parent.name)
    plan = {**plans[0], "name": "both", "runs": plans[0]["runs"] + plans[1]["runs"]}
    (both / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    found = compare(both, out=tmp_path / "out")
    assert [one["name"] for one in found.facts["sweeps"]] == ["both at 57.7k", "both at 201k"]
    assert len(found.slopes)


def test_sweeps_on_real_pairs_are_compared_without_their_paths(tmp_path: Path) -> None:
    """Two models from paths; seeds may share held-out pairs there, so intervals are at least those of one seed's."""
    folders = []
    for name in ("base", "tuned"):
        specs = grid(("dpo", "ipo"), betas=1, dials=None, seeds=6, items=32)
        model = PathModelSpec(path=f"/home/jqplanted/{name}", sha256=name[0] * 64, lora=LoraSpec())
        folders.append(write_sweep(tmp_path / name, [replace(run, model=model) for run in specs]))
    found = compare(*folders, out=tmp_path / "out")
    facts = found.facts
    assert facts["matching_cells"] == 4 and facts["differing"] == {"model.sha256": ["b" * 64, "t" * 64]}
    assert [one["parameters"] for one in facts["sweeps"]] == [None, None] and facts["slopes"] == []
    ranked = [one for one in facts["differences"] if one["measure"] == "ranking_accuracy"]
    assert all(one["verdict"] == "no difference shown" and one["high"] - one["low"] > 0.1 for one in ranked)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not any("jqplanted" in path.read_text("utf-8") for path in written)
