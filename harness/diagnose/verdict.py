"""The verdict: which of six things is the matter with a policy, in a sentence that says what to do about it.

Rules over intervals, in a fixed order; the first that holds speaks. The constants are stated in docs/diagnose.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.diagnose.measures import PROMPT, Fall, Memorisation
from harness.metrics.distributions import mean, sigmoid
from harness.metrics.divergence import ALPHA, EPSILON_ACCURACY
from harness.metrics.margin_columns import delta, delta_ref, log_ratio_margin, margins
from harness.metrics.pair_measures import RATES
from harness.metrics.records import Columns, size
from harness.metrics.slices import fall_p
from harness.metrics.statistics import Estimate

# Kind -> the word for it on a page, the gravest first.
KINDS = {
    "memorised_noise": "memorised noise",
    "reversal": "reversed",
    "premature_convergence": "satisfied too early",
    "displaced": "displaced",
    "inconclusive": "inconclusive",
    "healthy": "healthy",
}
STUCK = 0.05  # share of pairs stuck wrong that counts
MANY_STUCK = 0.10  # share below which a policy is healthy
SPENT = 0.10  # pull on the stuck pairs, as a share of the pull at the start, below which training has stopped on them
CONTENT = 0.6  # reward accuracy above which the usual charts look good
RIGHT = 0.9  # ranking accuracy at which no improvement need be shown
RISE = 0.05  # by which wrong labels must be followed more than before
FALL = 1.0  # nats by which chosen responses lost log-prob
FALL_PER_TOKEN = 0.05  # nats per token


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of `KINDS`, what is the matter and what to do about it, and the estimate that this rests on (`what` names
    it), where there is one."""

    kind: str
    matter: str
    advice: str = ""
    what: str = ""
    interval: Estimate | None = None

    @property
    def text(self) -> str:
        """Both in a sentence."""
        return "; ".join(filter(None, (self.matter, self.advice))) + "."


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is read from: estimates by name, and the facts that are no means over pairs.

    `pull`: mean pull of a logistic loss on the pairs stuck wrong, as a share of the start; `p_fell`: of "ranks no fewer
    pairs right than the reference"; `loss`: mean logistic loss at beta (log 2 at the start). NaN where unknown.
    """

    pairs: int
    prompts: int
    estimates: Mapping[str, Estimate]
    beta: float | None
    pull: float
    loss: float
    p_fell: float
    moved: bool
    memorised: Memorisation | None
    fall: Fall | None


def evidence(
    columns: Columns, found: Mapping[str, Estimate], beta: float | None, referenced: bool, tie_tol: float,
    memorised: Memorisation | None, fall: Fall | None,
) -> Evidence:  # fmt: skip
    """The evidence of one policy on its held-out pairs."""
    prompts = len(set(columns[PROMPT].tolist()))
    pull = loss = p_fell = math.nan
    moved = True
    if referenced:
        one = margins(columns, tie_tol)
        moved = bool((~one.tied).any())
        p_fell = fall_p((delta_ref(columns) > 0).astype(np.float64) - (delta(columns) > 0), columns[PROMPT])
        if beta is not None:
            moved_by = log_ratio_margin(columns)
            pull = mean(2 * sigmoid(-beta * moved_by[RATES["undesirable_zone"].holds(one)]))
            loss = mean(np.logaddexp(0.0, -beta * moved_by))
    return Evidence(size(columns), prompts, found, beta, pull, loss, p_fell, moved, memorised, fall)


def percent(value: float) -> str:
    """A share as a percentage with no more digits than mean something."""
    return f"{100 * value:.0f} %" if 0.0095 < value < 0.9905 or value in (0.0, 1.0) else f"{100 * value:.1f} %"


def within(value: Estimate) -> str:
    """A share with its interval: `43 % [38, 48]`."""
    low, high = (f"{100 * end:.0f}" for end in (value.low, value.high))
    return percent(value.mean) + (f" [{low}, {high}]" if math.isfinite(value.low) else "")


def verdict(e: Evidence) -> Verdict:
    """The first rule that holds, from the gravest down."""
    if e.prompts < 2:
        why = f"{e.pairs} pairs of {e.prompts} prompt: no interval can be given"
        return Verdict("inconclusive", why, "add prompts")
    if "reward_accuracy" not in e.estimates:
        return _without_reference(e)
    if not e.moved:
        why = "nothing was trained, or the adapter was not loaded, or the policy was given as its own reference"
        same = f"Policy and reference give the same log-probs on every pair: {why}"
        return Verdict("inconclusive", same, "look at what was given as --policy and --reference")
    for rule in (_memorised, _reversed, _stuck, _displaced):
        found = rule(e)
        if found is not None:
            return found
    return _rest(e)


def _without_reference(e: Evidence) -> Verdict:
    right = e.estimates["ranking_accuracy"]
    return Verdict(
        "inconclusive",
        f"The policy ranks {within(right)} of the pairs right. Without a reference nobody can say what training did to "
        "them",
        "give --reference the model that training started from",
        "ranking_accuracy", right,
    )  # fmt: skip


def _memorised(e: Evidence) -> Verdict | None:
    memory = e.memorised
    if memory is None or memory.followed is None or memory.rise is None:
        return None
    if not (memory.followed.low > 0.5 and memory.rise.low > RISE):
        return None
    before = memory.followed.mean - memory.rise.mean
    return Verdict(
        "memorised_noise",
        f"The policy follows {within(memory.followed)} of the {memory.wrong} wrong training labels; the reference did "
        f"in {percent(before)}. Training fitted the noise",
        "relabel or drop these pairs, stop earlier, or use an objective made for noisy labels",
        "wrong labels followed", memory.followed,
    )  # fmt: skip


def _reversed(e: Evidence) -> Verdict | None:
    right, before = e.estimates["ranking_accuracy"], e.estimates["reference_ranking_accuracy"]
    change = e.estimates["ranking_change"]
    rewards = f"reward accuracy is {percent(e.estimates['reward_accuracy'].mean)}"
    loss = f" and the loss fell from 0.693 to {e.loss:.3f}" if e.loss < math.log(2) else ""
    if e.p_fell <= ALPHA and -change.mean >= EPSILON_ACCURACY:
        return Verdict(
            "reversal",
            f"The policy ranks {within(right)} of the pairs right, the reference {percent(before.mean)}: training made "
            f"the ranking worse, although {rewards}{loss}",
            "take an earlier checkpoint or the reference, look for swapped columns and wrong labels, and lower the "
            "learning rate",
            "ranking_change", change,
        )  # fmt: skip
    if e.fall is None:
        return None
    return Verdict(
        "reversal",
        f"The policy ranks {within(right)} of the pairs right, {100 * e.fall.fall:.0f} points fewer than at step "
        f"{e.fall.step}, although {rewards}{loss}",
        f"take the checkpoint of step {e.fall.step}, and stop there next time",
        "ranking_accuracy", right,
    )  # fmt: skip


def _stuck(e: Evidence) -> Verdict | None:
    zone, reward = e.estimates["undesirable_zone"], e.estimates["reward_accuracy"]
    if not (zone.low >= STUCK and reward.low >= CONTENT and e.pull <= SPENT):
        return None
    wrong_before = 1 - e.estimates["reference_ranking_accuracy"].mean
    wrong_now = 1 - e.estimates["ranking_accuracy"].mean
    return Verdict(
        "premature_convergence",
        f"{percent(wrong_before)} of the pairs were misranked by the reference, {percent(wrong_now)} still are, "
        f"although reward accuracy is {percent(reward.mean)}: {within(zone)} improved on the reference and are still "
        f"ranked wrong, and the loss pulls on them with {percent(e.pull)} of its strength at the start. At beta "
        f"{e.beta:g} it stops too early",
        "lower beta, start from a reference that ranks these pairs right, or use a constrained objective",
        "undesirable_zone", zone,
    )  # fmt: skip


def _displaced(e: Evidence) -> Verdict | None:
    chosen, per_token = e.estimates["chosen_displacement"], e.estimates["chosen_displacement_per_token"]
    both = e.estimates["both_down"]
    if not (chosen.high < -FALL and per_token.high < -FALL_PER_TOKEN and both.low > 0.5):
        return None
    return Verdict(
        "displaced",
        f"The chosen responses lost {-chosen.mean:.1f} nats [{-chosen.high:.1f}, {-chosen.low:.1f}] of log-prob, "
        f"{-per_token.mean:.2f} per token, and on {within(both)} of the pairs both responses became less likely: "
        "probability went to answers that are in no pair",
        "look at free answers before you use this policy, add a likelihood term on the chosen responses (rpo_alpha), "
        "raise beta, or stop earlier",
        "chosen_displacement", chosen,
    )  # fmt: skip


def _rest(e: Evidence) -> Verdict:
    right, before = e.estimates["ranking_accuracy"], e.estimates["reference_ranking_accuracy"]
    zone, change = e.estimates["undesirable_zone"], e.estimates["ranking_change"]
    state = f"The policy ranks {within(right)} of the pairs right, the reference {percent(before.mean)}"
    if zone.high < MANY_STUCK and right.low > 0.5 and (change.low > 0 or right.low >= RIGHT):
        return Verdict(
            "healthy",
            f"{state}; {within(zone)} are stuck wrong. None of the failures looked for is shown",
            what="ranking_accuracy", interval=right,
        )  # fmt: skip
    if zone.low >= STUCK and e.beta is None:
        why = f"{within(zone)} are better than under the reference and still wrong; whether the loss has stopped on "
        why, advice = why + "them depends on beta", "give --beta"
    elif zone.low >= STUCK:
        why = f"{within(zone)} are better than under the reference and still wrong, and the loss still pulls on them "
        why, advice = why + f"with {percent(e.pull)} of its strength at the start", "train longer, then look again"
    elif zone.high >= MANY_STUCK:
        why = f"between {percent(zone.low)} and {percent(zone.high)} are stuck wrong, too wide a span to tell"
        advice = "more prompts are needed"
    else:
        why, advice = "no improvement on these pairs is shown", "train longer, or give more pairs"
    return Verdict("inconclusive", f"{state}: {why}", advice, "ranking_change", change)
