"""Statistics of an audit, on labels and evidence drawn with a known share of errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.metrics.records import Bools, Floats
from harness.metrics.statistics import Estimate
from harness.metrics.suspicion import Noise, _measured, advice, auroc, combined, cuts, fit_share, planted_errors


def drawn(share: float, skill: float, n: int = 4000, seed: int = 0) -> tuple[Floats, Bools]:
    """Margins of n labels and which are wrong: evidence of strength |u| points to the truth with log-odds skill |u|."""
    rng = np.random.default_rng(seed)
    strength = np.abs(rng.normal(size=n))
    right = rng.random(n) < 1 / (1 + np.exp(-skill * strength))
    wrong = rng.random(n) < share
    return strength * np.where(right, 1, -1) * np.where(wrong, -1, 1), wrong


def places(margin: Floats) -> np.ndarray:
    return np.arange(len(margin))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.35])
@pytest.mark.parametrize("skill", [4.0, 8.0])
def test_share_and_precision_are_those_that_were_drawn(share: float, skill: float) -> None:
    margin, wrong = drawn(share, skill)
    fit = fit_share(margin, places(margin))
    assert fit.share.low - 0.01 <= wrong.mean() <= fit.share.high + 0.01
    assert abs(fit.share.mean - wrong.mean()) < 0.04
    order = np.argsort(margin)
    for cut in cuts(margin, fit):
        truth = wrong[order[: cut.rows]].mean()
        assert abs(cut.precision.mean - truth) < 0.08 or cut.precision.low - 0.02 <= truth <= cut.precision.high + 0.02


def test_interval_of_the_share_covers() -> None:
    shares = [fit_share(drawn(0.2, 5.0, 1500, seed)[0], np.arange(1500)).share for seed in range(60)]
    covered = sum(one.low - 0.0025 <= 0.2 <= one.high + 0.0025 for one in shares)
    assert covered >= 52  # of 60 at 95 %; fewer than one in ten thousand by chance


def test_one_step_of_the_model_by_hand() -> None:
    """pi .2, e(u) = sigmoid(-u): at margin -log 3 the evidence is wrong with 1/4, so .2 * .75 against .8 * .25."""
    model = Noise(0.2, 1.0, 1.0, 1.0)
    assert model.wrong(np.array([-np.log(3), np.log(3)])) == pytest.approx([0.15 / 0.35, 0.05 / 0.65])


def test_repeated_pairs_of_a_prompt_are_no_new_evidence() -> None:
    margin, _ = drawn(0.2, 5.0, 600)
    alone = fit_share(margin, np.arange(600)).share
    often = fit_share(np.repeat(margin, 4), np.repeat(np.arange(600), 4)).share
    assert abs((often.high - often.low) - (alone.high - alone.low)) <= 0.02


def test_weights_ignore_evidence_without_meaning() -> None:
    rng = np.random.default_rng(1)
    good, _ = drawn(0.2, 6.0, 2000)
    noise = rng.normal(size=2000)
    folds = rng.integers(0, 5, 2000)
    joined = combined(np.stack([good, noise]), folds)
    assert np.corrcoef(joined, np.sign(good) * np.log1p(np.abs(good)))[0, 1] > 0.98


def test_auroc_by_hand() -> None:
    assert auroc(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False])) == 0.75
    assert np.isnan(auroc(np.zeros(3), np.zeros(3, dtype=bool)))


def planted_set(share: float, skill: float, n: int = 3000) -> tuple[Floats, Bools, Floats, Bools]:
    """Margins and truth of a set, and the same with a tenth of the labels turned round."""
    margin, wrong = drawn(share, skill, n)
    planted = np.random.default_rng(9).random(n) < 0.1
    return margin, wrong, margin * np.where(planted, -1, 1), planted


def test_planted_errors_measure_what_labels_are_worth() -> None:
    margin, wrong, after, planted = planted_set(0.2, 5.0)
    found = planted_errors(after, planted, fit_share(margin, places(margin)), places(margin))
    assert abs(found.auroc.mean - auroc(-margin, wrong)) < 0.05  # uncorrected: .19 too low
    assert abs(found.share - planted.mean()) < 0.03
    now_wrong, order = wrong ^ planted, np.argsort(after)
    for share, measured, predicted, _ in found.cuts:
        truth = now_wrong[order[: round(share * len(after))]].mean()
        assert measured.low - 0.05 <= truth <= measured.high + 0.05
        assert abs(predicted.mean - truth) < 0.08


@pytest.mark.parametrize("precision", [1.0, 0.9, 0.5, 0.0])
def test_what_planted_errors_measure_is_covered_and_never_certain(precision: float) -> None:
    """Of 100 rows so many are wrong. 4 in 13 wrong and 1 in 37 right labels are planted: a tenth, .2 wrong before."""
    rng, inside = np.random.default_rng(0), 0
    wrong = round(100 * precision)
    for _ in range(400):
        hits = int(rng.binomial(wrong, 4 / 13) + rng.binomial(100 - wrong, 1 / 37))
        found = _measured(hits, 100, 0.1, Estimate(9, 0.2, 0.2, 0.2))
        assert found.low <= found.mean <= found.high and found.high - found.low > 0.05, hits
        inside += found.low <= precision <= found.high
    assert inside >= 0.93 * 400


def test_more_planted_rows_than_can_be_leave_the_interval_a_width() -> None:
    found = _measured(60, 100, 0.1, Estimate(9, 0.2, 0.2, 0.2))  # at most 31 were to be expected
    assert found.mean == found.high == 1.0 and 0.8 < found.low < 0.98
    wide = _measured(20, 100, 0.1, Estimate(9, 0.2, 0.1, 0.3))
    known = _measured(20, 100, 0.1, Estimate(9, 0.2, 0.2, 0.2))
    assert wide.low < known.low and wide.high > known.high and wide.mean == known.mean


@pytest.mark.parametrize(
    ("share", "skill", "action"), [(0.2, 6.0, "act"), (0.0, 6.0, "none"), (0.2, 0.0, "cannot_audit")]
)
def test_advice(share: float, skill: float, action: str) -> None:
    margin, wrong, after, planted = planted_set(share, skill)
    fit = fit_share(margin, places(margin))
    errors = planted_errors(after, planted, fit, places(margin))
    found = advice(margin, fit, errors)
    if action == "none":  # a share that may be nothing or a lot supports no advice
        wide = replace(fit, share=Estimate(9, 0.1, 0.0, 0.2))
        assert advice(margin, wide, errors).action == "cannot_audit"
    if action != "act":
        assert (found.action, found.rows) == (action, 0)
        return
    assert found.action in ("drop", "relabel") and 0.1 * len(margin) < found.rows < 0.3 * len(margin)
    assert wrong[np.argsort(margin)[: found.rows]].mean() > 0.6
