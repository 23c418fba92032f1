"""Statistics of an audit: evidence on labels to suspicion, the share of wrong labels, and what planted errors show.

Evidence is a margin per pair, above 0 where it speaks for the label as given. One model joins them: a pair's label is
wrong with probability pi, whatever the pair, and the evidence points away from the truth with probability
e(u) = sigmoid(-a u^b) at strength u. Label and evidence then disagree with probability pi + (1 - 2 pi) e(u), which
falls towards pi as the evidence grows strong. What a strong model still disagrees with is noise; what a weak one
disagrees with may be either, and the interval of pi says so. numpy, scipy on first use, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.metrics.records import Array, Bools, Floats
from harness.metrics.statistics import Estimate
from harness.metrics.statistics.intervals import wilson_ends

BINS = 80  # of evidence strength, equally full
CHI2 = 3.841  # .95 quantile of chi-square with one degree of freedom
CUTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)  # shares of the pairs, the most suspect first
_SHARES = np.arange(0, 0.4975, 0.005)  # the grid of pi
_SCALES = np.geomspace(0.02, 60, 60)  # of a, at strength 1 = the median
_POWERS = np.array([1.0, 1.5, 2.0, 3.0])  # of b: log-odds grow at least in proportion to strength
RIDGE = 1e-3

FINDS = 0.6  # AUROC on planted errors that must surely be passed
KNOWN = 0.25  # width of the interval of the share above which it is not known
NOISE = 0.01  # share of wrong labels that must surely be passed before rows are worth touching
FEW = 0.05  # share that must surely not be passed before nothing is done
CERTAIN = 0.9  # precision from which labels are turned round rather than dropped


# --- evidence ---


def combined(evidence: Floats, folds: Array) -> Floats:
    """Several kinds of evidence `(m, n)` as one margin `(n,)`: a logistic regression of the labels, without intercept.

    Weights for a fold come from the other folds. Each kind is scaled to its median size and bounded by a logarithm, so
    that a few extreme margins weigh no more than they should.
    """
    size = np.median(np.abs(evidence), axis=1, keepdims=True)
    features = evidence / np.where(size > 0, size, 1.0)
    features = (np.sign(features) * np.log1p(np.abs(features))).T
    margin = np.empty(len(folds))
    for fold in np.unique(folds):
        margin[folds == fold] = features[folds == fold] @ _weights(features[folds != fold])
    return margin


def _weights(features: Floats) -> Floats:
    """The weights `(m,)` that maximise the likelihood of every label of `features` `(n, m)`, slightly shrunk."""
    weights = np.zeros(features.shape[1])
    for _ in range(50):
        right = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        gradient = features.T @ (1 - right) / len(features) - RIDGE * weights
        curvature = (features.T * (right * (1 - right))) @ features / len(features) + RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, 2.0 / (float(np.abs(step).max()) + 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return weights


def linear(features: Floats, ridge: float) -> Floats:
    """Weights `(d,)` of a logistic regression whose every label is 1 on `features` `(n, d)`, without intercept."""
    from scipy.optimize import minimize

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = features @ weights
        slope = 1 / (1 + np.exp(np.clip(margin, -500, 500)))
        value = float(np.logaddexp(0, -margin).mean() + ridge / 2 * weights @ weights)
        return value, ridge * weights - features.T @ slope / len(margin)

    found = minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 100})
    return np.asarray(found.x, dtype=np.float64)


# --- share of wrong labels ---


@dataclass(frozen=True, slots=True)
class Noise:
    """The model of labels and evidence at one share `pi` of wrong labels: its e(u) = sigmoid(-scale u^power), where
    strength u is the margin over `unit`."""

    pi: float
    scale: float
    power: float
    unit: float

    def wrong(self, margin: Floats) -> Floats:
        """The probability that a label is wrong `(n,)`, given the evidence `margin` `(n,)` on it."""
        strength = np.abs(margin) / self.unit
        missed = 1 / (1 + np.exp(np.clip(self.scale * strength**self.power, 0, 700)))
        right = np.where(margin > 0, 1 - missed, missed)  # that the label's direction is true, by the evidence alone
        false, true = self.pi * (1 - right), (1 - self.pi) * right
        return np.where(false + true > 0, false / np.where(false + true > 0, false + true, 1), 0.0)


@dataclass(frozen=True, slots=True)
class ShareFit:
    """The most likely model, those at the ends of the 95 % interval of its share, and that interval."""

    best: Noise
    low: Noise
    high: Noise
    share: Estimate


def fit_share(margin: Floats, clusters: Array) -> ShareFit:
    """The share of wrong labels by maximum likelihood, with a profile-likelihood interval.

    Pairs of one cluster (a prompt) are not independent: the likelihood counts as many pairs as the clusters are worth,
    by the design effect of the disagreement.
    """
    against = margin < 0
    strength = np.abs(margin)
    unit = float(np.median(strength)) or 1.0
    order = np.argsort(strength, kind="stable")
    parts = np.array_split(order, min(BINS, len(order)))
    middle = np.array([strength[part].mean() for part in parts]) / unit
    count = np.array([len(part) for part in parts], dtype=np.float64)
    disagree = np.array([against[part].sum() for part in parts], dtype=np.float64)
    # (pi, shape, bin): how probable disagreement is.
    shapes = _missed(tuple(middle.tolist()))
    profile, places = np.empty(len(_SHARES)), np.empty(len(_SHARES), dtype=np.int64)
    for at, pi in enumerate(_SHARES):
        p = np.clip(pi + (1 - 2 * pi) * shapes, 1e-9, 1 - 1e-9)
        likelihood = np.log(p) @ disagree + np.log1p(-p) @ (count - disagree)
        places[at] = int(np.argmax(likelihood))
        profile[at] = likelihood[places[at]]
    profile /= _design_effect(against.astype(np.float64), clusters)
    inside = np.flatnonzero(2 * (profile.max() - profile) <= CHI2)

    def model(at: int) -> Noise:
        scale, power = np.unravel_index(places[at], (len(_SCALES), len(_POWERS)))
        return Noise(float(_SHARES[at]), float(_SCALES[scale]), float(_POWERS[power]), unit)

    best, low, high = int(np.argmax(profile)), int(inside[0]), int(inside[-1])
    ends = [float(_SHARES[at]) for at in (best, low, high)]
    return ShareFit(model(best), model(low), model(high), Estimate(len(np.unique(clusters)), *ends))


@lru_cache(maxsize=4)
def _missed(middle: tuple[float, ...]) -> Floats:
    """e(u) of every shape `(scales x powers, bins)` at the strengths `middle`."""
    raised = np.asarray(middle)[None, :] ** _POWERS[:, None]
    exponent = np.clip(_SCALES[:, None, None] * raised[None], 0, 700)
    return np.asarray(1 / (1 + np.exp(exponent))).reshape(-1, len(middle))


def _design_effect(values: Floats, clusters: Array) -> float:
    """By how much the variance of a mean over clustered items exceeds that over independent ones, at least 1."""
    _, index = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    residuals = values - values.mean()
    spread = float((residuals**2).sum())
    groups = int(index.max()) + 1
    if spread == 0 or groups < 2:
        return 1.0
    totals = np.bincount(index, weights=residuals)
    return max(1.0, float((totals**2).sum()) / spread * groups / (groups - 1))


# --- cuts ---


@dataclass(frozen=True, slots=True)
class Cut:
    """The `rows` most suspect pairs: the share of them that is wrong, and the share of all wrong labels among them."""

    share: float
    rows: int
    precision: Estimate
    recall: Estimate


def cuts(margin: Floats, fit: ShareFit, shares: Sequence[float] = CUTS) -> tuple[Cut, ...]:
    """What is expected at each cut; intervals over the share of wrong labels, and over which rows happen to be."""
    order = np.argsort(margin, kind="stable")
    probabilities = {name: getattr(fit, name).wrong(margin)[order] for name in ("best", "low", "high")}
    found = []
    for share in shares:
        rows = max(1, math.floor(share * len(margin) + 0.5))
        precision = {name: float(p[:rows].mean()) for name, p in probabilities.items()}
        recall = {
            name: float(p[:rows].sum() / p.sum()) if p.sum() > 0 else math.nan for name, p in probabilities.items()
        }
        found.append(
            Cut(share, rows, _between(precision, rows), _between(recall, max(1, round(fit.share.mean * len(margin)))))
        )
    return tuple(found)


def expected(margin: Floats, fit: ShareFit) -> Estimate:
    """The share of these pairs that is wrong, between what the ends of the interval of the whole set's share say."""
    means = [float(model.wrong(margin).mean()) for model in (fit.best, fit.low, fit.high)]
    return Estimate(len(margin), means[0], min(means), max(means))


def _between(values: dict[str, float], count: int) -> Estimate:
    """An estimate whose interval joins that of the share with the binomial one of `count` rows."""
    mean = values["best"]
    if not math.isfinite(mean):
        return Estimate(count, math.nan, math.nan, math.nan)
    ends = [value for value in values.values() if math.isfinite(value)]
    drawn = wilson_ends(mean, float(count))
    low = mean - math.hypot(mean - min(ends), mean - drawn[0])
    high = mean + math.hypot(max(ends) - mean, drawn[1] - mean)
    return Estimate(count, mean, max(0.0, low), min(1.0, high))


# --- planted errors ---


@dataclass(frozen=True, slots=True)
class Planted:
    """What became of labels that were turned round on purpose, `planted` of them.

    `auroc`: how well wrong labels are told from right ones, by the planted ones and corrected for those that were wrong
    before. `share`: of labels planted, as the audit estimates it from the set without and with them (`rate`: the true
    one). `cuts`: share cut, its precision by how many planted labels are in it, the predicted one, planted ones found.
    """

    planted: int
    rate: float
    auroc: Estimate
    share: float
    cuts: tuple[tuple[float, Estimate, Estimate, float], ...]


def auroc(suspicion: Floats, wrong: Bools) -> float:
    """The probability that a wrong label is more suspect than a right one; NaN where there is only one kind."""
    from scipy.stats import rankdata

    ranks, count = rankdata(suspicion), int(wrong.sum())
    if not 0 < count < len(wrong):
        return math.nan
    return float((ranks[wrong].sum() - count * (count + 1) / 2) / (count * (len(wrong) - count)))


def planted_errors(margin: Floats, planted: Bools, before: ShareFit, clusters: Array) -> Planted:
    """What the audit finds of planted errors in the set that holds them. `before` is the fit without them.

    A planted label is right where it was wrong before: with share pi of those, planted and other labels differ in how
    many are wrong by 1 - 2 pi, by which AUROC and precision are corrected; the ends of their intervals by pi's ends.
    """
    rate, pi = float(planted.mean()), before.share.mean
    after = fit_share(margin, clusters)
    raw, contrast = auroc(-margin, planted), max(1 - 2 * pi, 0.05)
    error = _auroc_error(raw, int(planted.sum()), int((~planted).sum())) * math.sqrt(
        _design_effect((margin < 0).astype(np.float64), clusters)
    )
    known = before.share
    corrected = [
        min(1.0, max(0.0, 0.5 + (value - 0.5) / max(1 - 2 * wrong_before, 0.05)))
        for value, wrong_before in (
            (raw, known.mean),
            (raw - 1.96 * error, known.low),
            (raw + 1.96 * error, known.high),
        )
    ]
    order = np.argsort(margin, kind="stable")
    table = []
    for cut in cuts(margin, after):
        among = planted[order[: cut.rows]]
        measured = _measured(int(among.sum()), cut.rows, rate, known)
        table.append((cut.share, measured, cut.precision, float(among.sum() / planted.sum())))
    return Planted(
        int(planted.sum()), rate, Estimate(int(planted.sum()), *corrected),
        (after.share.mean - pi) / contrast, tuple(table),
    )  # fmt: skip


def _measured(hits: int, rows: int, rate: float, before: Estimate) -> Estimate:
    """The share of `rows` labels that is wrong, by how many of them were planted: `hits`.

    More of the wrong labels are planted than of the right ones; by how much depends on `before`, the share of labels
    that was wrong before. The estimate is the likeliest share. Its interval has 95 % of the likelihood over the shares
    from 0 to 1, and joins those at the ends of `before`: it has a width even where all rows seem wrong.
    """

    def planted_if(pi: float) -> tuple[float, float]:
        """The share that was planted of wrong and of right labels."""
        wrong = rate * (1 - pi) + (1 - rate) * pi
        return rate * (1 - pi) / wrong if wrong else 0.0, rate * pi / (1 - wrong)

    grid = np.linspace(0.0, 1.0, 1001)
    inside = []
    for pi in (before.low, before.mean, before.high):
        if_wrong, if_right = planted_if(pi)
        planted = np.clip(if_right + grid * (if_wrong - if_right), 1e-12, 1 - 1e-12)
        weight = hits * np.log(planted) + (rows - hits) * np.log1p(-planted)
        weight = np.exp(weight - weight.max())
        order = np.argsort(-weight, kind="stable")
        last = int(np.searchsorted(np.cumsum(weight[order]), 0.95 * weight.sum()))
        inside.append(grid[order[: last + 1]])
    if_wrong, if_right = planted_if(before.mean)
    likeliest = min(1.0, max(0.0, (hits / rows - if_right) / (if_wrong - if_right)))
    return Estimate(rows, likeliest, float(np.concatenate(inside).min()), float(np.concatenate(inside).max()))


def _auroc_error(value: float, wrong: int, right: int) -> float:
    """The standard error of an AUROC (Hanley and McNeil 1982)."""
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (wrong - 1) * (q1 - value**2) + (right - 1) * (q2 - value**2)
    return math.sqrt(max(variance, 0.0) / (wrong * right))


# --- advice ---


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do with the set: `action` none | drop | relabel | cannot_audit, and with how many rows."""

    action: str
    rows: int


def advice(margin: Floats, fit: ShareFit, planted: Planted) -> Advice:
    """What the evidence supports.

    Rows are those whose label is more likely wrong than right; so few of them that it would still hold on average if
    as few labels were wrong as the interval of their share allows.
    """
    share = fit.share
    if not planted.auroc.low > FINDS or share.high - share.low > KNOWN or (share.low < NOISE and share.high > FEW):
        return Advice("cannot_audit", 0)
    order = np.argsort(margin, kind="stable")
    likely, careful = fit.best.wrong(margin)[order], np.cumsum(fit.low.wrong(margin)[order])
    holds = np.flatnonzero((likely > 0.5) & (careful > 0.5 * np.arange(1, len(order) + 1)))
    if share.low < NOISE or not len(holds):
        return Advice("none", 0)
    rows = int(holds[-1]) + 1
    return Advice("relabel" if careful[rows - 1] >= CERTAIN * rows else "drop", rows)
