"""Tables recomputed from results.csv alone, with pandas and scipy instead of the report's own code."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.metrics.statistics import INCOMPLETE, INTERVAL_ONLY, SHARE_MARGIN
from harness.report.data.cells import Cell, baseline, build_cells, cells_csv
from harness.report.data.conditions import build_conditions
from harness.report.data.contrasts import NO_BEST, NO_SHARED_KL, Contrast, build_contrasts, contrasts_csv
from harness.report.data.frontier import Arena, build_arenas
from harness.report.data.report_data import PER_EXAMPLE_RUNS
from harness.report.data.run_facts import read_all, read_facts
from harness.report.data.sweep import Run, read_sweep
from harness.report.data.tables import MEASURES, write_results
from harness.types import InputError
from tests.report.fixture import grid, write_sweep

AXES = ["objective", "beta", "corruption", "rate", "misaligned"]
FURTHER = ["labels", "steps", "training.batch_size", "training.learning_rate", "world.pairs"]
SHARES = {name for name, share in MEASURES.items() if share}


def write_report_tables(folder: Path) -> Path:
    """`cells.csv` and `contrasts.csv` as the report writes them, without its page; the path of the latter."""
    sweep = read_sweep(folder)
    facts, _ = read_all(sweep.runs, PER_EXAMPLE_RUNS)
    cells = build_cells(sweep, facts)
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "cells.csv").write_bytes(cells_csv(cells, sweep.axes))
    arenas = arenas_of(cells, sweep.axes)
    (folder / "report" / "contrasts.csv").write_bytes(contrasts_csv(arenas, baseline(sweep), sweep.axes))
    return folder / "report" / "contrasts.csv"


def arenas_of(cells: Sequence[Cell], axes: tuple[str, ...]) -> tuple[Arena, ...]:
    return build_arenas(build_conditions(cells, axes), axes)


def contrasts_of(cells: Sequence[Cell], axes: tuple[str, ...]) -> list[Contrast]:
    return build_contrasts(arenas_of(cells, axes), "dpo", "ranking_accuracy")


@pytest.fixture(scope="module")
def folder(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("tables") / "pristine"
    shutil.copytree(pristine, copy)
    write_results(copy)
    write_report_tables(copy)
    return copy


@pytest.fixture(scope="module")
def results(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv", float_precision="round_trip")


def test_results_keep_spec_order_and_every_planned_run(folder: Path, results: pd.DataFrame) -> None:
    assert list(results["run_key"]) == [run.key for run in read_sweep(folder).runs]
    assert results["status"].value_counts().to_dict() == {"done": len(results) - 2, "pending": 1, "diverged": 1}
    assert results.loc[results["status"] == "pending", list(MEASURES)].isna().all(axis=None)


def test_results_have_the_contracts_columns_in_its_order(results: pd.DataFrame) -> None:
    fixed = ["run_key", "status", *AXES, "seed", "steps", *MEASURES]
    assert list(results.columns[: len(fixed)]) == fixed
    assert "labels" in results and "hp.tau" in results and "hp.beta" not in results
    assert set(results["labels"]) == {"hard", "bradley_terry"}
    assert (results.loc[results["corruption"] == "none", "rate"] == 0).all()


def test_floats_are_written_in_full(folder: Path, results: pd.DataFrame) -> None:
    sweep = read_sweep(folder)
    for run, value in zip(sweep.runs, results["train_loss_last"], strict=True):
        assert run.measured("train_loss_last") == (None if np.isnan(value) else value)


def test_costs_have_one_row_a_run(folder: Path, results: pd.DataFrame) -> None:
    costs = pd.read_csv(folder / "costs.csv")
    assert list(costs["run_key"]) == list(results["run_key"])
    assert costs.loc[results["status"] == "done", "seconds"].eq(1.5).all()


def test_cells_are_means_over_seeds_with_t_intervals(folder: Path, results: pd.DataFrame) -> None:
    cells = pd.read_csv(folder / "report" / "cells.csv")
    assert list(cells.columns) == [*AXES, "measure", "n", "mean", "low", "high", *FURTHER, "planned"]
    ended, checked = results[results["status"] != "pending"], 0
    for key, group in ended.groupby([*AXES, "labels"]):
        rows = cells[(cells[[*AXES, "labels"]] == list(key)).all(axis=1)].set_index("measure")
        for measure in MEASURES:
            row = rows.loc[measure]
            assert row["n"] == len(group), "a diverged run counts"
            checked += 1
            worst = {"undesirable_zone": 1.0}.get(measure, 0.0) if measure in SHARES else np.nan
            values = group[measure].where(group["status"] == "done", worst).to_numpy()
            if np.isnan(values).any():
                assert np.isnan(row["mean"]), "there is no worst loss, reward or KL"
                continue
            assert row["mean"] == pytest.approx(values.mean(), rel=1e-12)
            half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
            low, high = values.mean() - half, values.mean() + half
            if measure in SHARES:
                assert row["low"] <= max(low, 0) + 1e-12 and row["high"] >= min(high, 1) - 1e-12
                assert row["high"] > row["low"], "a share over few pairs is never certain"
            else:
                assert (row["low"], row["high"]) == pytest.approx((low, high), rel=1e-9, abs=1e-12)
    assert checked == len(cells[cells["n"] > 0])


def test_incomplete_cells_say_how_many_seeds_were_planned(folder: Path) -> None:
    cells = pd.read_csv(folder / "report" / "cells.csv").query("measure == 'ranking_accuracy'")
    assert list(cells.loc[cells["n"] < cells["planned"], "n"]) == [2], "the pending seed; the diverged one counts"


def test_contrasts_recomputed_and_no_verdict_on_three_seeds(folder: Path, results: pd.DataFrame) -> None:
    contrasts = pd.read_csv(folder / "report" / "contrasts.csv")
    assert set(contrasts["verdict"]) <= {INTERVAL_ONLY, NO_BEST, NO_SHARED_KL} and contrasts["p_corrected"].isna().all()
    assert not contrasts["measure"].str.startswith("train_loss").any(), "losses have different scales"
    ended = results[(results["status"] != "pending") & (results["labels"] == "hard")].copy()
    lost = ended["status"] == "diverged"
    for name, share in MEASURES.items():
        ended.loc[lost, name] = (1.0 if name == "undesirable_zone" else 0.0) if share else np.nan
    made = contrasts[contrasts["verdict"] == INTERVAL_ONLY]
    assert set(made["matched_on"]) == {"kl", "best"}
    for row in made.itertuples():
        same = ended[(ended["misaligned"] == row.misaligned) & (ended["rate"] == row.rate)]
        sides = [same[same["objective"] == name] for name in (row.objective, "dpo")]
        if row.matched_on == "best":
            assert [best_beta(side) for side in sides] == [row.beta, row.baseline_beta]
            own, base = (side[side["beta"] == best_beta(side)].set_index("seed")[row.measure] for side in sides)
        else:
            own, base = (at_kl(side, row.measure, row.matched_at) for side in sides)
        differences = own - base
        if differences.isna().sum() > (own.index.symmetric_difference(base.index)).size:  # no worst value, no estimate
            assert row.n == len(own.index.intersection(base.index)) and pd.isna(row.difference) and pd.isna(row.low)
            continue
        differences = differences.dropna()
        assert row.n == len(differences)
        assert row.difference == pytest.approx(differences.mean(), rel=1e-9, abs=1e-12)
        if row.n < 2:
            assert np.isnan([row.low, row.high]).all()
            continue
        half = stats.t.ppf(1 - 0.025 / row.family, row.n - 1) * stats.sem(differences)
        share = MEASURES[row.measure]
        assert row.high - row.low == pytest.approx(2 * half, rel=1e-6, abs=1e-9) or (
            share and row.high - row.low > 2 * half
        )
        assert row.low <= row.low_plain <= row.high_plain <= row.high


def best_beta(runs: pd.DataFrame) -> float:
    """The beta with the highest mean ranking accuracy, among those that most seeds ended."""
    by_beta = runs.groupby("beta")["ranking_accuracy"].agg(["count", "mean"])
    return float(by_beta[by_beta["count"] == by_beta["count"].max()]["mean"].idxmax())


def at_kl(runs: pd.DataFrame, measure: str, kl: float) -> pd.Series:
    """By seed, the measure at a KL: straight in log KL between the seed's betas, nothing beyond them."""
    found = {}
    for seed, own in runs.dropna(subset=["kl"]).sort_values("kl").groupby("seed"):
        if own["kl"].min() <= kl <= own["kl"].max():
            found[seed] = np.interp(np.log(kl), np.log(own["kl"]), own[measure])
    return pd.Series(found, dtype=float)


def test_a_grid_that_ends_at_its_best_beta_gives_no_best(folder: Path, results: pd.DataFrame) -> None:
    """With two betas the best is an end, unless the other one is less than a point behind: then the curve is flat."""
    contrasts = pd.read_csv(folder / "report" / "contrasts.csv").query("measure == 'ranking_accuracy'")
    rows = contrasts[contrasts["verdict"] == NO_BEST]
    assert len(rows) and rows[["difference", "low", "high", "beta", "baseline_beta", "family"]].isna().all(axis=None)
    for row in rows.itertuples():
        sides = results[(results["misaligned"] == row.misaligned) & (results["rate"] == row.rate)]
        sides = sides[(sides["status"] == "done") & (sides["labels"] == "hard")]
        for part in row.note.split("; "):
            _, name, side, _, beta = part.split()
            betas = sides[sides["objective"] == name].groupby("beta")["ranking_accuracy"].mean()
            assert float(beta) == (betas.index.min() if side == "below" else betas.index.max())


def test_eight_seeds_give_verdicts_that_the_corrected_interval_backs(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo", "hypo", "cpo_smooth"), dials=(0.75,), rates=(0.0,), seeds=8, betas=1)
    folder = write_sweep(tmp_path / "eight", runs, samples=False)
    table = pd.read_csv(write_report_tables(folder)).query("measure == 'ranking_accuracy'")
    assert "better" in set(table["verdict"])
    for row in table.itertuples():
        excluded = row.low > 0 or row.high < 0
        assert (row.verdict in ("better", "worse")) == (excluded and abs(row.difference) >= SHARE_MARGIN)
        assert 0 < row.p_corrected <= 1


def test_a_missing_seed_blocks_the_verdict(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo", "cpo_smooth"), dials=(0.75,), rates=(0.0,), seeds=8, betas=1)
    folder = write_sweep(tmp_path / "missing", runs, samples=False, skip=[len(runs) - 1])
    table = pd.read_csv(write_report_tables(folder)).query("measure == 'ranking_accuracy'")
    assert list(table["n"]) == [7] and list(table["verdict"]) == [INCOMPLETE]


def test_a_diverged_seed_counts_as_worst_and_keeps_its_place(tmp_path: Path) -> None:
    """Seven seeds at their measure, one at 0 (zone: 1); nats have no worst: their rows count, and estimate nothing."""
    runs = grid(objectives=("dpo", "cpo_smooth"), dials=(0.75,), rates=(0.0,), seeds=8, betas=1)
    lost = len(runs) - 1
    folder = write_sweep(tmp_path / "lost", runs, samples=False, diverged=[lost])
    table = pd.read_csv(write_report_tables(folder)).set_index("measure")
    assert set(table["n"]) == {8}
    results = pd.read_csv(write_results(folder)[0])
    own, base = (results[results["objective"] == name].set_index("seed") for name in ("cpo_smooth", "dpo"))
    for measure, worst in (("ranking_accuracy", 0.0), ("undesirable_zone", 1.0)):
        expected = own[measure].where(own["status"] == "done", worst) - base[measure]
        assert table.loc[measure, "difference"] == pytest.approx(expected.mean(), rel=1e-12)
    assert pd.isna(table.loc["chosen_displacement", "difference"])
    assert table.loc["chosen_displacement", "verdict"] == INCOMPLETE


def test_two_saturated_cells_have_an_interval(tmp_path: Path) -> None:
    """Equal shares on every seed: the seeds agree, and 8 x 64 pairs still leave room."""
    runs = grid(objectives=("dpo", "hypo"), dials=(0.0,), rates=(0.0,), seeds=8, betas=1)
    folder = write_sweep(tmp_path / "saturated", runs, samples=False)
    sweep = read_sweep(folder)
    flat = [replace(run, result={**run.result, "results": {"ranking_accuracy": 1.0}}) for run in sweep.runs]
    cells = build_cells(
        replace(sweep, runs=tuple(flat)),
        {run.key: found for run in sweep.runs if (found := read_facts(run)) is not None},
    )
    (found,) = contrasts_of(cells, sweep.axes)
    assert found.plain.mean == 0.0 and found.plain.high == pytest.approx(0.00745, abs=1e-5)  # z^2 / (512 + z^2)
    assert found.mde is not None and found.mde >= found.corrected.high


def test_facts_against_the_records(folder: Path) -> None:
    runs = [run for run in read_sweep(folder).runs if run.status == "done"]
    for run in (runs[0], runs[-1]):
        facts = read_facts(run)
        assert facts is not None and run.folder is not None
        table = pd.read_parquet(run.folder / "examples.parquet").query("split == 'eval_clean'")
        last, first = table[table["step"] == 200].set_index("id"), table[table["step"] == 0].set_index("id")
        delta = last["policy_chosen"] - last["policy_rejected"]
        wrong = ((last["base_loss"] < first["base_loss"].loc[last.index]) & (delta <= 0)).mean()
        reference = last["reference_chosen"] - last["reference_rejected"]
        assert facts.fell_while_wrong == pytest.approx(wrong)
        assert facts.theory is not None and facts.theory.achieved == pytest.approx(run.measured("ranking_accuracy"))
        gap = last["gold_margin"] / run.beta
        wrong_at_best = (reference + gap < 0).mean() if run.labels == "bradley_terry" else 0.0
        assert facts.theory.violated == pytest.approx(wrong_at_best)
        for step, accuracy in zip(facts.heldout.steps, facts.heldout.means["ranking_accuracy"], strict=True):
            then = table[table["step"] == step]
            assert accuracy == pytest.approx((then["policy_chosen"] > then["policy_rejected"]).mean())


def test_derived_rates_come_from_the_result() -> None:
    config = {"corruption": {"kind": "length_biased", "rate": None}}
    assert Run("k", config, {"results": {"rate": 0.23}}, None).rate == 0.23
    assert Run("k", config, None, None).rate is None


def test_a_folder_without_a_plan_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plan\.json"):
        write_results(tmp_path)
    (tmp_path / "plan.json").write_text('{"runs": [{"run_key": 1}]}')
    with pytest.raises(InputError, match="not a plan"):
        write_results(tmp_path)
