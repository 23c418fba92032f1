"""Did the loss improve while ranking got worse? Two checkpoints fixed in advance, one fixed set of pairs, one run.

Types: D1 premature convergence (a rule), D2 true reversal (loss and accuracy on the same labels), D3 noise
memorisation (observed labels rise, clean ones fall). Losses are `base_loss`, may be negative, and are compared within
one run only. A statement about a cell is made over seeds (`statistics`), a family of runs is corrected by `confirmed`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from harness.metrics.margin_columns import TIE_TOL, delta
from harness.metrics.records import Array, Columns, Floats, by_id, column, numbers
from harness.metrics.registry import METRICS
from harness.metrics.statistics import holm, wilson
from harness.metrics.statistics.tails import fair_coin, fair_coin_tail, student_tail
from harness.types import InputError

EPSILON_LOSS = 1e-3
EPSILON_ACCURACY = 0.01
ALPHA = 0.05

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Divergence:
    """One comparison of checkpoint s (first) with t (last). Accuracies are ranking accuracies, a tie is wrong.

    `event`: the rule held. `p` = max(p_loss, p_accuracy): both parts must be significant (intersection-union).
    `broken`, `mended`: pairs that went right to wrong and back, on the set `p_accuracy` speaks of.
    """

    kind: str  # D2 | D3
    event: bool
    loss_first: float
    loss_last: float
    accuracy_first: float
    accuracy_last: float
    broken: int
    mended: int
    p_loss: float
    p_accuracy: float

    @property
    def p(self) -> float:
        """p of "loss fell and accuracy fell", against "at least one of them did not"."""
        return max(self.p_loss, self.p_accuracy)

    def fires(self, alpha: float = ALPHA) -> bool:
        """Whether the rule held and the test rejects at `alpha`, for a single run looked at on its own."""
        return self.event and self.p <= alpha


def mcnemar_p(broken: int, mended: int) -> float:
    """Exact one-sided McNemar: P[Bin(broken + mended, 1/2) >= broken]; 1 where nothing changed."""
    return fair_coin_tail(broken, broken + mended)


def clustered_sign_p(losses: Sequence[int]) -> float:
    """Exact one-sided p that the total net loss of right answers is this large when each cluster's sign is a coin.

    `losses` holds one integer a prompt, right-to-wrong minus wrong-to-right. With one pair a prompt it is McNemar.
    The distribution of the signed total is built by convolution, so no sampling at any number of prompts.
    """
    weights = np.ones(1)
    for size, count in Counter(abs(int(loss)) for loss in losses if loss).items():
        steps = np.zeros(2 * size * count + 1)  # from -size * count to size * count
        steps[:: 2 * size] = fair_coin(count)
        weights = np.convolve(weights, steps)
    return float(min(1.0, weights[len(weights) // 2 + int(sum(losses)) :].sum()))


def paired_fall_p(first: Floats, last: Floats) -> float:
    """One-sided paired t: p of "mean(first - last) is not above 0". Equal differences have p 0 above 0, else 1."""
    fall = first - last
    if fall.size < 2:
        return math.nan if not fall.size else 1.0
    mean, sd = float(fall.mean()), float(fall.std(ddof=1))
    if sd == 0.0:
        return 0.0 if mean > 0 else 1.0
    return student_tail(mean / (sd / math.sqrt(fall.size)), fall.size - 1)


def _per_prompt(values: Floats, prompts: Array | None) -> Floats:
    if prompts is None:
        return values
    _, index = np.unique(np.asarray(prompts).astype(str), return_inverse=True)
    return np.asarray(np.bincount(index, weights=values), dtype=np.float64)


def matched(first: Columns, last: Columns, what: str) -> tuple[Columns, Columns]:
    """Two checkpoints row by row. Raises InputError where they do not hold the same ids."""
    before, after = by_id(first, last)
    if len(column(before, "id")) != len(column(first, "id")) or len(column(after, "id")) != len(column(last, "id")):
        raise InputError(f"{what}: the two checkpoints hold different ids; compare one fixed set of pairs")
    return before, after


def _compare(
    kind: str,
    losses: tuple[Columns, Columns],
    ranks: tuple[Columns, Columns],
    rule: bool,
    prompt_column: str | None,
    epsilons: tuple[float, float],
) -> Divergence:
    loss_first, loss_last = (numbers(c, "base_loss") for c in losses)
    right_first, right_last = (delta(c) > 0 for c in ranks)
    for values in (loss_first, loss_last, delta(ranks[0]), delta(ranks[1])):
        if not np.isfinite(values).all():
            raise InputError(
                "non-finite loss or log-prob in a checkpoint: a diverged run has no loss/accuracy comparison"
            )
    net = right_first.astype(np.float64) - right_last
    broken, mended = int((net > 0).sum()), int((net < 0).sum())
    if prompt_column is None:
        p_accuracy = mcnemar_p(broken, mended)
        p_loss = paired_fall_p(loss_first, loss_last)
    else:
        lost = _per_prompt(net, column(ranks[0], prompt_column))
        p_accuracy = clustered_sign_p([round(value) for value in lost])
        prompts = column(losses[0], prompt_column)
        p_loss = paired_fall_p(_per_prompt(loss_first, prompts), _per_prompt(loss_last, prompts))
    fell = loss_last.mean() <= loss_first.mean() - epsilons[0]
    # Counts, so that a fall of exactly epsilon is one whatever the rounding of the two shares.
    dropped = broken - mended >= epsilons[1] * net.size - 1e-9
    return Divergence(
        kind, bool(fell and dropped and rule), float(loss_first.mean()), float(loss_last.mean()),
        float(right_first.mean()), float(right_last.mean()), broken, mended, p_loss, p_accuracy,
    )  # fmt: skip


def true_reversal(
    first: Columns,
    last: Columns,
    prompt_column: str | None = None,
    epsilon_loss: float = EPSILON_LOSS,
    epsilon_accuracy: float = EPSILON_ACCURACY,
) -> Divergence:
    """D2: loss fell and ranking accuracy fell on the same pairs and labels (rows of one split at two steps).

    `prompt_column` names the cluster where there is more than one pair a prompt. Raises InputError where the two
    checkpoints do not hold the same ids, or hold non-finite values.
    """
    pair = matched(first, last, "true_reversal")
    return _compare("D2", pair, pair, True, prompt_column, (epsilon_loss, epsilon_accuracy))


def noise_memorisation(
    observed_first: Columns,
    observed_last: Columns,
    clean_first: Columns,
    clean_last: Columns,
    prompt_column: str | None = None,
    epsilon_loss: float = EPSILON_LOSS,
    epsilon_accuracy: float = EPSILON_ACCURACY,
) -> Divergence:
    """D3: ranking accuracy rose on observed labels and fell on clean ones, while the observed loss fell.

    `clean_*` are rows of train_clean or eval_clean. The accuracies and p_accuracy reported are those of the clean set.
    """
    observed = matched(observed_first, observed_last, "noise_memorisation, observed")
    clean = matched(clean_first, clean_last, "noise_memorisation, clean")
    before, after = (int((delta(columns) > 0).sum()) for columns in observed)
    rose = after - before >= epsilon_accuracy * len(column(observed[0], "id")) - 1e-9
    return _compare("D3", observed, clean, rose, prompt_column, (epsilon_loss, epsilon_accuracy))


@dataclass(frozen=True, slots=True)
class Convergence:
    """D1 at one checkpoint: `pull` is the mean pull relative to step 0, `zone_low` the lower end of the 95 %
    Wilson interval of the undesirable zone over `items` pairs (or prompts). A rule, with nothing to reject."""

    pull: float
    reward_accuracy: float
    zone_low: float
    items: int = 0

    def fires(self) -> bool:
        """All three: pull <= 10 % of step 0, reward accuracy >= .95, undesirable zone surely >= .05."""
        return self.pull <= 0.1 and self.reward_accuracy >= 0.95 and self.zone_low >= 0.05


def premature_convergence(
    columns: Columns,
    weight_first: Floats,
    weight_now: Floats,
    tie_tol: float = TIE_TOL,
    prompt_column: str | None = None,
) -> Convergence:
    """D1 from the rows of one split at one step and the pairs' pulls (`targets.pull`) (n,) at step 0 and now.

    With `prompt_column` the interval of the zone counts prompts, not pairs: pairs of one prompt are no new evidence.
    """
    n = len(column(columns, "policy_chosen" if prompt_column is None else prompt_column))
    if prompt_column is not None:
        n = len(np.unique(np.asarray(columns[prompt_column]).astype(str)))
    zone = METRICS["undesirable_zone"].compute(columns, tie_tol=tie_tol)
    accuracy = METRICS["reward_accuracy"].compute(columns, tie_tol=tie_tol)
    if math.isnan(zone):
        raise InputError("no pairs, or non-finite log-probs: a diverged run is not satisfied")
    return Convergence(float(weight_now.mean() / weight_first.mean()), accuracy, wilson(zone * n, n).low, n)


def confirmed(runs: Mapping[Key, Divergence], alpha: float = ALPHA) -> dict[Key, float]:
    """The runs whose rule held and whose p survives Holm over ALL runs given, with the corrected p; order kept."""
    corrected = holm([divergence.p for divergence in runs.values()])
    return {
        key: p for (key, divergence), p in zip(runs.items(), corrected, strict=True) if divergence.event and p <= alpha
    }
