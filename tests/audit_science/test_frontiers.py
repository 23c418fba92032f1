"""Is the comparison fair? Leads at the edge of a grid, matched KL, claims at both ends: stored and simulated runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.metrics.frontier import Comparison, Frontier, Point, at_best, matched, middle
from harness.metrics.statistics import Verdict, judge
from harness.report.data.report_data import read_report_data
from harness.report.sections.claims import CLAIMS, FAILS, HOLDS, OPEN, SENSITIVE, judged
from tests.report.fixture import grid, write_sweep

STORED = Path(__file__).parent / "first_world_beta.csv"  # nine betas of three objectives in MythWorld 1
WHOLE = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20)
MARGIN = 0.01


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    table = pd.read_csv(STORED).query("status == 'done' and labels == 'hard' and misaligned == 0.75")
    assert {"dpo", "cpo_smooth"} <= set(table["objective"]) and table["seed"].nunique() >= 6
    return table


def frontier(runs: pd.DataFrame, objective: str, betas: Iterable[float]) -> Frontier:
    own = runs[(runs["objective"] == objective) & runs["beta"].isin(list(betas))]
    return Frontier(
        {
            int(seed): {(("beta", row.beta),): Point(row.ranking_accuracy, row.kl) for row in some.itertuples()}
            for seed, some in own.groupby("seed")
        }
    )


def verdict(one: Comparison | None, family: int = 1) -> Verdict:
    assert one is not None
    return judge(one.differences, family=family * one.among, planned=one.seeds, margin=MARGIN)


def test_a_lead_over_a_grids_edge_is_refused_and_most_of_it_goes_with_a_wider_grid(runs: pd.DataFrame) -> None:
    """dpo at 2, 5, 20 is best at its lowest beta, so its rival's lead there is no lead at the best of both."""
    narrow, wide = (2, 5, 20), WHOLE
    edge = frontier(runs, "dpo", narrow).edge(MARGIN)
    assert edge is not None and (edge.side, edge.beta) == ("below", 2)
    assert frontier(runs, "dpo", wide).edge(MARGIN) is None
    rival = frontier(runs, "cpo_smooth", wide)
    at_edge = verdict(at_best(rival, frontier(runs, "dpo", narrow))).plain
    at_optimum = verdict(at_best(rival, frontier(runs, "dpo", wide))).plain
    assert at_optimum.mean < 0.5 * at_edge.mean and not at_optimum.low <= at_edge.mean <= at_optimum.high


@pytest.mark.parametrize("left_out", [0.05, 10, 20])
def test_a_lead_that_is_given_stays_within_its_interval_when_the_grid_grows(
    runs: pd.DataFrame, left_out: float
) -> None:
    smaller = [beta for beta in WHOLE if beta != left_out]
    sides = [frontier(runs, name, smaller) for name in ("cpo_smooth", "dpo")]
    assert all(side.edge(MARGIN) is None for side in sides), "a best is given"
    given = verdict(at_best(*sides)).plain
    extended = verdict(at_best(*(frontier(runs, name, WHOLE) for name in ("cpo_smooth", "dpo")))).plain
    assert given.low <= extended.mean <= given.high


def test_a_difference_at_matched_kl_does_not_depend_on_which_betas_were_swept(runs: pd.DataFrame) -> None:
    """dpo against hinge, which overlap widely: with two betas less the difference is the same within its interval."""
    whole = {c.at: c for c in matched(*(frontier(runs, name, WHOLE) for name in ("hinge", "dpo")))}
    for less in ((0.1, 0.5), (0.1, 1)):
        some = [beta for beta in WHOLE if beta not in less]
        fewer = [c for c in matched(*(frontier(runs, name, some) for name in ("hinge", "dpo"))) if len(c.a) >= 5]
        assert len(fewer) >= 4
        for c in fewer:
            interval = judge(c.differences, family=len(fewer)).corrected
            mean = np.mean([whole[c.at].differences[seed] for seed in c.a])
            assert interval.low - MARGIN <= mean <= interval.high + MARGIN, f"at KL {c.at}"


def test_equal_betas_rank_movement_and_matched_kl_does_not(runs: pd.DataFrame) -> None:
    """At equal betas the difference is mostly one of KL: where the rival moved further it also ranks better."""
    mean = runs.groupby(["objective", "beta"])[["kl", "ranking_accuracy"]].mean()
    gaps = mean.loc["cpo_smooth"] - mean.loc["dpo"]
    assert gaps["kl"].corr(gaps["ranking_accuracy"], method="spearman") > 0.8
    found = matched(frontier(runs, "cpo_smooth", WHOLE), frontier(runs, "dpo", WHOLE))
    for one in found:
        assert one.at is not None
        for seed in one.a:
            for side in ("cpo_smooth", "dpo"):
                own = runs[(runs["objective"] == side) & (runs["seed"] == seed)]["kl"]
                assert own.min() <= one.at <= own.max(), "nobody is read beyond what it reached"


def simulated(rng: np.random.Generator, world: np.ndarray, lines: int) -> Frontier:
    points = {}
    for seed, common in enumerate(world):
        own = {}
        for rate in range(lines):
            for beta in (0.5, 1, 2, 5):
                kl = 2 / beta * math.exp(0.6 * rate + rng.normal(0, 0.1))
                quality = 1 - 0.4 * math.exp(-kl / 1.2) + common + rng.normal(0, 0.02)
                own[(("beta", beta), ("learning_rate", rate))] = Point(float(quality), kl)
        points[seed] = own
    return Frontier(points)


@pytest.mark.parametrize("seeds", [6, 10])
def test_identical_objectives_differ_at_matched_kl_as_often_as_stated(seeds: int) -> None:
    """Between 2 and 6 %: fewer would mean that the comparison has no power."""
    rng, draws, alarms = np.random.default_rng(seeds), 1200, 0
    for _ in range(draws):
        world = rng.normal(0, 0.03, seeds)
        one = middle(matched(simulated(rng, world, 1), simulated(rng, world, 1)))
        assert one is not None
        interval = judge(one.differences, family=one.among).corrected
        alarms += interval.excludes(0.0)
    assert 0.02 <= alarms / draws <= 0.06 + 2 * math.sqrt(0.05 * 0.95 / draws)


def test_claims_at_the_lowest_and_the_highest_beta_agree_or_say_sensitive(tmp_path: Path) -> None:
    """Each claim's word recomputed at each of its ends with a plain t interval at the corrected level."""
    names = ("dpo", "robust_dpo", "cpo_smooth")
    runs = grid(names, betas=3, dials=(0.0, 0.75), rates=(0.0, 0.2, 0.4), seeds=8)
    data = read_report_data(write_sweep(tmp_path / "claims", runs))
    found = [(claim, evidence) for claim in CLAIMS if (evidence := claim.test(data)) is not None and evidence.ends]
    family, words = sum(len(evidence.ends) for _, evidence in found), []
    assert len(found) >= 6
    for claim, evidence in found:
        ends = []
        for end in evidence.ends:
            values = np.array(list(end.values.values()))
            interval = judge(end.values, family=family * end.among).corrected
            half = interval.high - interval.mean
            assert interval.mean == pytest.approx(values.mean())
            ends.append(
                HOLDS
                if values.mean() > max(half, evidence.margin - 1e-12)
                else FAILS
                if values.mean() < min(-half, 1e-12 - evidence.margin)
                else OPEN
            )
        word = judged(evidence, family)[1]
        words.append(word)
        assert word == (ends[0] if len(set(ends)) == 1 else SENSITIVE), (claim.name, ends)
    assert SENSITIVE in words and HOLDS in words
