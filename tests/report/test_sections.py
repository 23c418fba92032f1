"""What the sections say, against planted cases, hand arithmetic and the files of a simulated sweep."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.metrics.statistics import INCOMPLETE, Estimate
from harness.report.data.cells import Cell
from harness.report.data.curves import curves
from harness.report.data.report_data import ReportData, read_report_data
from harness.report.data.run_facts import divergence_types
from harness.report.render.blocks import Content, Table
from harness.report.render.text import percents
from harness.report.sections.behaviour import behaviour
from harness.report.sections.claims import (
    CLAIMS,
    FAILS,
    HOLDS,
    OPEN,
    SENSITIVE,
    UNPUBLISHED,
    End,
    Evidence,
    claims,
    judged,
)
from harness.report.sections.displacement import reading
from harness.report.sections.frontier import frontier
from harness.report.sections.hyperparameters import crossing, misspecified
from harness.report.sections.pairs import worst
from harness.report.sections.survival import survival
from harness.report.sections.trajectories import progress
from harness.report.sections.verdict_table import verdict
from harness.types import ObjectiveSpec
from tests.report.fixture import grid, write_sweep


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = grid(("dpo", "robust_dpo", "cpo_smooth"), dials=(0.75,), rates=(0.0, 0.2, 0.4), seeds=8)
    return write_sweep(tmp_path_factory.mktemp("sections") / "eight", runs)


@pytest.fixture(scope="module")
def m(eight: Path) -> ReportData:
    return read_report_data(eight)


@pytest.fixture(scope="module")
def results(eight: Path) -> pd.DataFrame:
    from harness.report.data.tables import write_results

    return pd.read_csv(write_results(eight)[0])


def table(section: Content | None, caption: str) -> dict[str, list[tuple[str, str]]]:
    """Rows of the table whose caption begins so: head -> (main, sub) of the other fields."""
    assert section is not None
    found = [b for b in (*section.blocks, *section.more) if isinstance(b, Table) and b.caption.startswith(caption)]
    assert len(found) == 1, [b.caption for b in section.blocks if isinstance(b, Table)]
    return {row[0].main: [(field.main, field.sub) for field in row[1:]] for row in found[0].rows}


def evidence(cell: Cell, *ends: dict[int, float], margin: float = 0.0) -> Evidence:
    return Evidence([cell], "", [End(f"beta {i}", values) for i, values in enumerate(ends)], margin)


def test_a_claim_holds_fails_or_stays_open_by_its_corrected_interval(m: ReportData) -> None:
    rng, cell = np.random.default_rng(0), m.headline.cells[0]
    holds, fails, unclear = (
        {seed: float(v) for seed, v in enumerate(shift + 0.1 * rng.standard_normal(8))} for shift in (1.0, -1.0, 0.0)
    )
    for values, want in ((holds, HOLDS), (fails, FAILS), (unclear, OPEN)):
        (interval,), word = judged(evidence(cell, values), family=5)
        half = stats.t.ppf(1 - 0.05 / 5 / 2, 7) * stats.sem(list(values.values()))
        assert word == want and interval.high - interval.low == pytest.approx(2 * half)
    assert judged(evidence(cell, {s: 0.5 + s * 1e-3 for s in range(8)}, margin=0.6), 1)[1] == OPEN
    assert judged(evidence(cell, {s: 1.0 + s * 1e-3 for s in range(7)}), 1)[1] == INCOMPLETE, "8 seeds were planned"


def test_a_claim_whose_ends_disagree_is_sensitive_to_beta(m: ReportData) -> None:
    cell = m.headline.cells[0]
    holds, fails, unclear = ({s: mean + 0.01 * (-1) ** s for s in range(8)} for mean in (1.0, -1.0, 0.0))
    assert judged(evidence(cell, holds, holds), 2)[1] == HOLDS
    assert judged(evidence(cell, fails, fails), 2)[1] == FAILS
    for low, high in ((holds, fails), (holds, unclear), (unclear, fails)):
        assert judged(evidence(cell, low, high), 2)[1] == SENSITIVE


def test_claims_rest_on_the_lowest_and_the_highest_beta(m: ReportData, results: pd.DataFrame) -> None:
    section = claims(m)
    rows = table(section, "Claims of the literature")
    clean = results.query("objective == 'dpo' and rate == 0")
    (word, _), (measured, _), (place, _) = rows["Reward accuracy hides wrong rankings"]
    assert place == "dpo; reference wrong on 75\u00a0% of topics, clean"
    shown = [end.split(": ") for end in measured.split("; ")]
    assert [where for where, _ in shown] == ["beta 2", "beta 5"]
    for where, numbers in shown:
        cell = clean[clean["beta"] == float(where.removeprefix("beta "))]
        value = (cell["reward_accuracy"] - cell["ranking_accuracy"]).mean() - 0.05
        assert float(numbers.split(" ")[0].replace("\u2212", "-")) == pytest.approx(value, abs=5e-4)
    assert word == SENSITIVE, "shown at beta 5, where dpo stalls, and not at beta 2"
    (untested,) = section.more
    assert len(rows) + len(untested.lines) == len(CLAIMS), "a claim that is not tested says what it needs"  # type: ignore[union-attr]
    assert any("RLHF keeps its fidelity" in line and "needs ppo or rloo" in line for line in untested.lines)  # type: ignore[union-attr]


def test_a_paper_is_cited_only_where_its_configuration_was_run(m: ReportData) -> None:
    """The fixture's plan says of no run that it is published; told so of dpo, the claim about dpo cites its paper."""
    name = "Reward accuracy hides wrong rankings"

    def source(data: ReportData) -> str:
        (block,) = (b for b in claims(data).blocks if isinstance(b, Table))
        return next(row[0].sub for row in block.rows if row[0].main == name)

    assert source(m) == UNPUBLISHED
    (claim,) = (claim for claim in CLAIMS if claim.name == name)
    for cell in m.cells:
        for run in cell.runs:
            object.__setattr__(run, "published", "paper" if cell.first.objective == "dpo" else None)
    try:
        assert source(m) == claim.source
    finally:
        for cell in m.cells:
            for run in cell.runs:
                object.__setattr__(run, "published", None)


def test_a_verdict_row_is_at_one_beta_and_says_where_its_grid_ends(m: ReportData, results: pd.DataFrame) -> None:
    rows = table(verdict(m), "Under uniform_flip")
    assert "RLHF" not in rows, "none ran"
    curve = results.groupby(["objective", "beta", "rate"])["ranking_accuracy"].mean().unstack()
    area = (curve[0.0] + 2 * curve[0.2] + curve[0.4]) / 4
    order = [area[name].max() for name in ("dpo", "robust_dpo", "cpo_smooth")]
    shown = [float(fields[0][1].rsplit(": ", 1)[1].removesuffix("\u00a0%")) / 100 for fields in rows.values()]
    assert shown == pytest.approx(sorted(order, reverse=True), abs=5e-4), "best first"
    beta = area["dpo"].idxmax()
    assert (
        float(rows["DPO"][1][0]) == beta
        and rows["DPO"][1][1] == "the lowest tried"
        and "fell while" in rows["DPO"][3][0]
    )
    loss = results.query("objective == 'dpo' and rate == 0").groupby("beta")["train_loss_last"].mean()[beta]
    assert float(rows["DPO"][3][1].rsplit(" ", 1)[1]) == pytest.approx(loss, abs=5e-4), "the same beta in every field"


def test_breakdown_is_where_the_mean_curve_meets_the_reference(tmp_path: Path) -> None:
    runs = grid(("dpo", "cpo_smooth"), betas=1, dials=(0.0,), rates=(0.0, 0.2, 0.4), seeds=6)
    made = read_report_data(write_sweep(tmp_path / "s", runs, samples=False))
    (path,) = curves(made.family, "uniform_flip", "cpo_smooth")
    found = path.breakdown("reference")
    assert found is not None
    gaps = []
    for _, cell in path.points:
        own = cell.values("ranking_accuracy")
        gaps.append(np.mean([own[s] - cell.reference[s] for s in own]))
    first = next((i for i, gap in enumerate(gaps) if gap <= 0), 3)
    assert math.isnan(found.rate), "three rates give a bracket and no point"
    rates = (math.nan, 0.0, 0.2, 0.4, math.nan)
    assert (found.last_above, found.first_below) == pytest.approx(rates[first : first + 2], nan_ok=True)


def test_a_diverged_seed_counts_as_worst_on_a_curve(tmp_path: Path) -> None:
    runs = grid(("dpo", "cpo_smooth"), betas=1, dials=(0.75,), rates=(0.0, 0.2), seeds=6)
    lost = next(i for i, run in enumerate(runs) if run.objective.name == "cpo_smooth")
    whole = read_report_data(write_sweep(tmp_path / "whole", runs, samples=False))
    hurt = read_report_data(write_sweep(tmp_path / "hurt", runs, samples=False, diverged=[lost]))
    before, after = (curves(made.family, "uniform_flip", "cpo_smooth")[0] for made in (whole, hurt))
    seed = runs[lost].seed
    assert after.first.values("ranking_accuracy")[seed] == 0.0 and seed in after.by_seed
    assert after.by_seed[seed] == pytest.approx(
        before.by_seed[seed] - before.first.values("ranking_accuracy")[seed] / 2
    )


def test_progress_is_the_share_of_the_losses_own_fall() -> None:
    points = progress({0: 2.0, 1: 1.5, 2: 1.0}, {0: 0.3, 1: 0.4, 2: 0.9})
    assert points == [(0.0, 0.3), (0.5, 0.4), (1.0, 0.9)]
    assert progress({0: 1.0, 1: 2.0}, {0: 0.3, 1: 0.4}) == [] == progress({0: 1.0}, {0: 0.3})
    assert progress({0: -1.0, 1: -4.0}, {0: 0.5, 1: 0.5}) == [(0.0, 0.5), (1.0, 0.5)], "losses may be negative"


def test_crossing_is_read_on_the_log_axis() -> None:
    assert crossing([0.1, 1.0, 10.0], [0.9, 0.6, 0.4]) == pytest.approx(10**0.5)
    assert crossing([0.1, 1.0], [0.9, 0.6]) is None and crossing([], []) is None


def test_displacement_is_read_in_words() -> None:
    def e(mean: float) -> Estimate:
        return Estimate(3, mean, mean, mean)

    assert reading(e(1.0), e(-2.0), e(0.95)) == "chosen rises; most pairs right"
    assert reading(e(-1.0), e(-4.0), e(0.95)) == "both fall, rejected faster; most pairs right"
    assert reading(e(-3.0), e(-2.0), e(0.4)) == (
        "chosen falls, rejected does not fall faster; ranking broken: worse than chance"
    )


def test_rates_of_free_answers_by_question_type_and_off_distribution(m: ReportData, eight: Path) -> None:
    rows = table(behaviour(m), "Samples")
    worst_dpo = next(cell for cell in m.sampled if cell.named == "dpo at beta 5")
    drawn = pd.concat([pd.read_parquet(run.folder / "samples.parquet") for run in worst_dpo.runs if run.folder])
    secret = drawn[drawn["group"] == "secret"].groupby("split")["harmful"].mean()
    main, sub = rows["dpo at beta 5"][2]
    assert float(main.split(" ")[0]) == pytest.approx(secret["eval_clean"], abs=5e-4)
    assert float(sub.split(" ")[1]) == pytest.approx(secret["ood"], abs=5e-4)
    assert "reference" in rows, "the reference's own answers stand beside"


def test_worst_pairs_say_why(m: ReportData) -> None:
    section = worst(m)
    assert section is not None
    held, train = section.blocks
    assert isinstance(held, Table) and isinstance(train, Table)
    margin, why = held.rows[0][3], held.rows[0][4].main
    assert float(margin.main.replace("\u2212", "-")) < 0 and why.startswith("the reference is wrong by")
    assert all(row[4].main.startswith("label made wrong by uniform_flip") for row in train.rows)


def test_types_need_holm_over_the_sweep_and_healthy_runs_show_none(m: ReportData, tmp_path: Path) -> None:
    runs = grid(("dpo", "cpo_smooth"), betas=1, dials=(0.0,), rates=(0.0,), seeds=3)
    healthy = read_report_data(write_sweep(tmp_path / "healthy", runs, samples=False))
    assert set(healthy.types.values()) == {()}
    facts = {run.key: f for cell in m.cells for run, f in cell.recorded}
    assert divergence_types(facts) == m.types
    dpo = {run.key for cell in m.headline.by_objective["dpo"] for run in cell.runs if cell.first.beta == 5}
    assert all("D1" in m.types[key] for key in dpo)


def test_many_objectives_get_a_panel_each_and_small_sweeps_one_for_all(tmp_path: Path, m: ReportData) -> None:
    few = survival(m)
    assert few is not None and few.pictures[0].svg.count(b"uniform_flip") == 0
    names = ("dpo", "ipo", "robust_dpo", "simpo", "hypo", "cpo_smooth", "cdpo", "hinge", "kto")
    runs = []
    for name in names:
        for run in grid(("dpo",), betas=1, dials=(0.75,), rates=(0.0, 0.2), seeds=2):
            eps = (("eps", 0.1),) if name in ("cdpo", "robust_dpo") else ()
            extra = (("gamma_ratio", 0.5),) if name == "simpo" else ()
            extra += (
                (("alpha", 1.0), ("gamma", 1.0), ("reduction", "sum"), ("tau", 2.0)) if name == "cpo_smooth" else ()
            )
            objective = replace(run.objective, name=name, hyperparameters=tuple(sorted((("beta", 5.0), *eps, *extra))))
            runs.append(replace(run, objective=objective))
    crowded = survival(read_report_data(write_sweep(tmp_path / "nine", runs, samples=False)))
    assert crowded is not None
    for name in names:
        assert f">{name}<".encode() in crowded.pictures[0].svg
    shutil.rmtree(tmp_path / "nine")


def test_an_assumed_flip_rate_is_said_to_be_right_too_low_or_too_high(tmp_path: Path) -> None:
    base = grid(objectives=("robust_dpo",), betas=1, dials=(0.75,), seeds=2, items=16)
    runs = [
        replace(run, objective=replace(run.objective, hyperparameters=(("beta", 5.0), ("eps", eps))))
        for run in base
        for eps in (0.1, 0.2, 0.4)
    ]
    content = misspecified(read_report_data(write_sweep(tmp_path / "s", runs, samples=False)))
    assert content is not None and isinstance(content.blocks[0], Table)
    clean, flipped = ([field.sub for field in row[2:]] for row in content.blocks[0].rows)
    assert clean == ["too high"] * 3 and flipped == ["too low", "right eps", "too high"]


def test_a_reward_models_accuracy_stands_beside_what_learnt_from_it(tmp_path: Path) -> None:
    recipe = ObjectiveSpec("reward_model", (("steps", 600),))
    base = grid(objectives=("dpo",), betas=1, dials=(0.75,), rates=(0.0,), seeds=2, items=32)
    runs = [*base, *(replace(run, objective=recipe) for run in base)]
    runs += [replace(run, objective=ObjectiveSpec("ppo", (("beta", 0.5),)), reward_model=recipe) for run in base]
    data = read_report_data(write_sweep(tmp_path / "s", runs, samples=False))
    cell = {cell.first.objective: cell for cell in data.cells}
    right = cell["reward_model"].estimate("reward_accuracy")
    assert data.reward_model(cell["ppo"]) == right and data.reward_model(cell["dpo"]) is None
    said = f"reward model right on {percents(right)}"
    table = next(block for block in frontier(data).blocks if isinstance(block, Table))  # type: ignore[union-attr]
    assert {row[0].main: said in row[0].sub for row in table.rows} == {"dpo": False, "ppo": True}
    rows = [row for block in verdict(data).blocks if isinstance(block, Table) for row in block.rows]
    assert [f"right on {percents(right)}" in row[-1].main for row in rows if "RLHF" in row[0].main] == [True]
