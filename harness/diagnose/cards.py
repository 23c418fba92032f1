"""The four cards of a diagnosis: what is the matter, how far the policy ranks right, its worst pairs, what next.

Of several policies they speak of the one with the gravest verdict, and say so.
"""

from __future__ import annotations

import math
from typing import Any

from harness.diagnose.diagnosis import Diagnosis, PolicyDiagnosis, plain
from harness.diagnose.measures import PROMPT, Slice
from harness.diagnose.verdict import KINDS
from harness.metrics.records import size
from harness.metrics.slices import MIN_SLICE
from harness.report.render.blocks import Card, stated
from harness.report.render.text import percent, percents, points, quantity, shorten, visible

MORE_SLICES = 2  # named beside the worst one
UNREAD = "Its free answers are not looked at here: read some of them."
LABELS = ("Which training labels are wrong:", "harness audit --data train.jsonl --out audit")
SWEEP = ("Compare betas and objectives on your own pairs:", "harness init mine.yaml --data prefs.jsonl.gz")
BETA = ("With the beta of your training, from the stored scores:", "harness diagnose --logps pairs.parquet --beta 0.1")
COMMANDS = {"memorised_noise": LABELS, "reversal": LABELS, "premature_convergence": SWEEP, "displaced": SWEEP}


def cards(found: Diagnosis) -> tuple[Card, ...]:
    """What is the matter, how far it ranks right, which pairs are worst off, and what next."""
    one = gravest(found)
    return (_matter(found, one), _ranks(found, one), _worst_off(found, one), _next(found, one))


def facts(found: Diagnosis) -> dict[str, Any]:
    """The content of `diagnosis.json`: every number, and what the cards say."""
    return plain(found) | {"cards": stated(cards(found))}


def gravest(found: Diagnosis) -> PolicyDiagnosis:
    """The policy with the gravest verdict; of equals the one that ranks fewest pairs right."""
    kinds = list(KINDS)
    return min(found.policies, key=lambda one: (kinds.index(one.verdict.kind), one.estimates["ranking_accuracy"].mean))


def named(one: PolicyDiagnosis) -> str:
    """A policy with its last step."""
    step = "" if one.step is None else f", step {one.step}"
    return shorten(one.name, 60) + step


def first_upper(text: str) -> str:
    """The text as a sentence begins."""
    return text[:1].upper() + text[1:]


def _matter(found: Diagnosis, one: PolicyDiagnosis) -> Card:
    word = first_upper(KINDS[one.verdict.kind])
    lines = [f"{visible(one.verdict.matter)}."]
    if one.trajectory:
        lines.append(f"At step {one.step}, the last of {quantity(len(one.trajectory), 'checkpoint')}.")
    others = [f"{named(other)}: {KINDS[other.verdict.kind]}" for other in found.policies if other is not one]
    if others:
        lines.append(f"The gravest of {len(found.policies)} policies, of which all cards speak; {'; '.join(others)}.")
    return Card("use", "What is the matter", f"{word}: {named(one)}" if others else word, tuple(lines))


def _ranks(found: Diagnosis, one: PolicyDiagnosis) -> Card:
    right = one.estimates["ranking_accuracy"]
    title = f"{percents(right)} of held-out pairs"
    lines = [] if math.isfinite(right.low) else ["Of one prompt no interval can be given."]
    if found.referenced:
        before, change = one.estimates["reference_ranking_accuracy"], one.estimates["ranking_change"]
        title += f"; the reference {percent(before.mean)}"
        moved = ("+" if change.mean > 0 else "") + percents(change, "\u00a0points")
        lines.append(f"A change of {moved} in {_pairs(one)}.")
        reward = percent(one.estimates["reward_accuracy"].mean)
        lines.append(
            f"A trainer's chart shows {reward} as reward accuracy: pairs whose margin grew, ranked right or wrong."
        )
    else:
        lines.append(f"In {_pairs(one)}. What training changed cannot be told: there is no reference.")
    if one.fall is not None:
        lines.append(f"At step {one.fall.step} it ranked {points(one.fall.fall)} points more of the pairs right.")
    elif one.trajectory:
        first = one.trajectory[0]
        lines.append(f"At step {first.step} it ranked {percent(first.estimates['ranking_accuracy'].mean)} right.")
    return Card("sure", "How far it ranks right", title, tuple(lines))


def _pairs(one: PolicyDiagnosis) -> str:
    prompts = len(set(one.columns[PROMPT].tolist()))
    return f"{quantity(size(one.columns), 'pair')} of {quantity(prompts, 'prompt')}"


def _worst_off(found: Diagnosis, one: PolicyDiagnosis) -> Card:
    label, below = "Which pairs are worst off", "Single pairs, the most wrongly ranked first, are listed below."
    kinds = [s for s in one.slices if math.isfinite(s.rest)]  # one that holds all pairs is none
    ranked = sorted(kinds, key=lambda s: (not s.named, s.estimates["ranking_accuracy"].mean))
    if not ranked:
        why = f"No column splits them into kinds of at least {MIN_SLICE} pairs: give --slices."
        return Card("breaks", label, "Cannot be told", (why, below))
    worst = ranked[0]
    right = percents(worst.estimates["ranking_accuracy"])
    if not worst.named:
        text = f"Lowest: the slice {_kind(worst)}, {right} ranked right, not told apart from the others."
        return Card("breaks", label, "No kind is shown to be", (text, below))
    more = [f"{_kind(s)}, {percents(s.estimates['ranking_accuracy'])}" for s in ranked[1:] if s.named][:MORE_SLICES]
    lines = [f"{quantity(worst.n, 'pair')} of {quantity(worst.prompts, 'prompt')}. {_elsewhere(found, worst)}"]
    if more:
        lines.append(f"Also: {'; '.join(more)}.")
    return Card("breaks", label, f"The slice {_kind(worst)}: {right} ranked right", (*lines, below))


def _kind(one: Slice) -> str:
    return f"{visible(one.column)} = {shorten(one.value or '(empty)', 40)}"


def _elsewhere(found: Diagnosis, one: Slice) -> str:
    if not found.referenced:
        return f"Elsewhere it is {percent(one.rest)}."
    here, rest = (f"{'+' if change > 0 else ''}{points(change)}" for change in (one.change, one.rest))
    return f"Training changed them by {here} points, the others by {rest}."


def _next(found: Diagnosis, one: PolicyDiagnosis) -> Card:
    verdict = one.verdict
    about, command = COMMANDS.get(verdict.kind, ("", ""))
    if verdict.kind == "inconclusive" and found.referenced and found.beta is None:
        about, command = BETA
    title = first_upper(verdict.advice) or "Nothing on these pairs"
    return Card("next", "What next", title, tuple(filter(None, (UNREAD, about))), command)
