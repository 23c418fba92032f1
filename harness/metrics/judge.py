"""Win rates from a judge's pairwise verdicts, both orders of each prompt: raw, and at equal length.

The raw rate is the mean over comparisons (win 1, tie 1/2, loss 0). The length-controlled one follows AlpacaEval 2
(Dubois et al. 2024, arXiv 2404.04475, eq. 2), a logistic regression whose win rate is read at equal lengths:

    logit P(win) = theta + phi * tanh(d / sd(d)),   length-controlled win rate = logistic(theta),

d: length of the answer less its opponent's in characters, one value per prompt. Their third term, the difficulty of
each instruction, is left out: it is fitted over all models of a leaderboard, and one opponent cannot identify it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.statistics import Estimate
from harness.metrics.statistics.clustered import cluster_index, clustered_interval
from harness.metrics.statistics.intervals import Floats, t_quantile

FIRST, SECOND, TIE, UNREADABLE = "first", "second", "tie", "unreadable"
VALUES: Mapping[str, float] = {FIRST: 1.0, TIE: 0.5, SECOND: 0.0}  # what a verdict is worth to the answer shown first
RIDGE = 0.01  # weak penalty on theta and phi (a Gaussian prior of variance 100): without losses there is no maximum


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt: the verdict with the answer shown first, and with it shown second; None where there is none yet.

    `longer`: characters of the answer less those of its opponent. `same`: both answers are one text, a tie unasked.
    """

    prompt: str
    longer: int
    shown_first: str | None
    shown_second: str | None
    same: bool = False


@dataclass(frozen=True, slots=True)
class WinRate:
    """What a judge's verdicts say of one set of answers; intervals are for new prompts.

    `prompts` have readable verdicts in both orders, `same` of them equal answers. `unreadable` and `missing` count
    prompts that are left out. `wins`, `ties`, `losses` count comparisons, two per prompt. `first` is the share won by
    the answer shown first among asked comparisons, ties as halves; `position_bias` the side that it shows the judge to
    favour ("first", "second" or ""); `agree` the share of asked prompts with one verdict in both orders.
    """

    prompts: int
    same: int
    unreadable: int
    missing: int
    wins: int
    ties: int
    losses: int
    win_rate: Estimate
    length_controlled: Estimate | None
    longer: float
    first: Estimate
    position_bias: str
    agree: float


def win_rate(judged: Sequence[Judged]) -> WinRate:
    """The summary of all prompts. Those without a readable verdict in each order count only as such."""
    both = [(one.shown_first, one.shown_second) for one in judged]
    missing = sum(None in pair for pair in both)
    unreadable = sum(UNREADABLE in pair and None not in pair for pair in both)
    known = [one for one in judged if one.shown_first in VALUES and one.shown_second in VALUES]
    as_first = np.array([VALUES[str(one.shown_first)] for one in known])
    as_second = np.array([VALUES[str(one.shown_second)] for one in known])  # the opponent was shown first
    prompts = [one.prompt for one in known]
    won = np.concatenate([as_first, 1 - as_second])
    asked = np.array([not one.same for one in known], dtype=bool)
    asked_prompts = [one.prompt for one in known if not one.same] * 2
    first = clustered_interval(np.concatenate([as_first[asked], as_second[asked]]), asked_prompts, share=True)
    longer = np.array([one.longer for one in known], dtype=np.float64)
    return WinRate(
        prompts=len(known),
        same=sum(one.same for one in known),
        unreadable=unreadable,
        missing=missing,
        wins=int((won == 1).sum()),
        ties=int((won == 0.5).sum()),
        losses=int((won == 0).sum()),
        # Ties vary less than wins and losses of the same mean: an interval for shares is then rather wide.
        win_rate=clustered_interval(won, prompts * 2, share=True),
        length_controlled=length_controlled((as_first + 1 - as_second) / 2, longer, prompts),
        longer=float(longer.mean()) if known else math.nan,
        first=first,
        position_bias=(FIRST if first.low > 0.5 else SECOND if first.high < 0.5 else ""),
        agree=float((as_first == 1 - as_second)[asked].mean()) if asked.any() else math.nan,
    )


def plain(one: WinRate) -> dict[str, Any]:
    """A win rate as JSON: null where nothing is known."""
    return {name: _known(value) for name, value in asdict(one).items()}


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _known(child) for name, child in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def from_plain(value: Mapping[str, Any]) -> WinRate:
    """The win rate that `plain` gave. Raises TypeError for other fields."""
    found: dict[str, Any] = dict(value)
    for name, child in found.items():
        if isinstance(child, Mapping):
            known: dict[str, Any] = {key: math.nan if part is None else part for key, part in child.items()}
            found[name] = Estimate(**known)
        elif child is None and name != "length_controlled":
            found[name] = math.nan
    return WinRate(**found)


def bias_text(one: WinRate) -> str:
    """How far the judge goes by the order in which it sees the answers; empty where that is not shown."""
    if not one.position_bias:
        return ""
    share = one.first.mean if one.position_bias == FIRST else 1 - one.first.mean
    return (
        f"position bias: the judge prefers the {one.position_bias} answer in {100 * share:.0f} % of comparisons and"
        f" says the same in both orders for {100 * one.agree:.0f} % of prompts"
    )


def length_controlled(won: ArrayLike, longer: ArrayLike, prompts: Sequence[str]) -> Estimate | None:
    """The win rate at equal length from a score (n,) in [0, 1] and a length difference (n,) per prompt.

    The interval is the logistic of theta -+ t * its clustered (sandwich) standard error. None where the regression
    cannot tell length from quality: fewer than 3 prompts, one score everywhere, or one length difference everywhere.
    """
    y, d = np.asarray(won, dtype=np.float64), np.asarray(longer, dtype=np.float64)
    index, count = cluster_index(prompts)
    if count < 3 or y.min() == y.max() or d.min() == d.max():
        return None
    x = np.column_stack([np.ones_like(d), np.tanh(d / d.std())])
    beta = _fit(x, y)
    fitted = _logistic(x @ beta)
    bread = np.linalg.inv(_hessian(x, fitted))
    scores = x * (y - fitted)[:, None]
    totals = np.stack([np.bincount(index, weights=column, minlength=count) for column in scores.T])
    variance = count / (count - 1) * (bread @ totals @ totals.T @ bread)[0, 0]
    half = t_quantile(0.95, count - 1) * math.sqrt(variance)
    low, mean, high = (float(_logistic(np.array(v))) for v in (beta[0] - half, beta[0], beta[0] + half))
    return Estimate(count, mean, low, high)


def _logistic(z: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def _hessian(x: Floats, fitted: Floats) -> Floats:
    return np.asarray((x * (fitted * (1 - fitted))[:, None]).T @ x + RIDGE * np.eye(x.shape[1]))


def _fit(x: Floats, y: Floats) -> Floats:
    """Coefficients of the penalised logistic regression: Newton's method, steps halved while they do not improve."""

    def loss(beta: Floats) -> float:
        z = x @ beta
        return float((np.logaddexp(0, z) - y * z).sum() + RIDGE / 2 * beta @ beta)

    beta = np.zeros(x.shape[1])
    for _ in range(100):
        fitted = _logistic(x @ beta)
        step = np.linalg.solve(_hessian(x, fitted), x.T @ (y - fitted) - RIDGE * beta)
        while loss(beta + step) > loss(beta) and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    return beta
