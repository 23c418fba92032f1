"""The steps of an audit put together: evidence to suspicion, share, planted errors, advice, biases, slices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.metrics.records import Array, Bools, Floats
from harness.metrics.slices import SliceTest, corrected, slice_tests
from harness.metrics.statistics import Estimate, clustered_interval
from harness.metrics.suspicion import (
    FINDS,
    NOISE,
    Advice,
    Cut,
    Planted,
    ShareFit,
    advice,
    combined,
    cuts,
    expected,
    fit_share,
    planted_errors,
)

UNDECIDED = 0.2  # strength of evidence, as a share of the median, up to which a pair cannot be decided
TRIVIAL = 2.0  # strength from which a pair is trivial where the reference prefers its chosen answer, too


@dataclass(frozen=True, eq=False)
class Evidence:
    """Margins of the pairs as labelled: of the reference `(n,)` in nats, and out of fold by kind `(m, n)`; the same of
    the set with planted errors, and which pairs those are `(n,)`; and the fold of each pair."""

    names: tuple[str, ...]
    reference: Floats
    margins: Floats
    folds: Array
    planted: Bools
    planted_margins: Floats


@dataclass(frozen=True, eq=False)
class SliceShare:
    """A value of a slice column: its pairs, the share of wrong labels expected among them, with what the ends of the
    whole set's share make of it, and whether evidence speaks against its labels more often than elsewhere (`p`,
    corrected)."""

    test: SliceTest
    share: Estimate
    against: Estimate
    p: float

    @property
    def named(self) -> bool:
        """Whether its labels are shown to be worse than the others'."""
        return self.test.shows(1.0, self.p)


@dataclass(frozen=True, eq=False)
class Audit:
    """Everything that is said of a set of n pairs; arrays `(n,)` in file order."""

    pairs: int
    prompts: int
    margin: Floats
    wrong: Floats  # the probability that a label is wrong
    fit: ShareFit
    cuts: tuple[Cut, ...]
    planted: Planted
    advice: Advice
    reference_share: Estimate  # of pairs whose label the reference prefers
    longer_chosen: Estimate
    longer_chosen_suspect: Estimate
    contradicted: Bools
    near: Array  # the place of an earlier pair that it nearly repeats, -1 for none
    trivial: Bools
    undecided: Bools
    scores_against: Bools
    slices: tuple[SliceShare, ...]
    notes: tuple[str, ...]
    meta: Mapping[str, Any]

    def predicted(self, value: Estimate) -> Estimate:
        """What is predicted from the share of wrong labels: without a middle where that share is not known.

        The likeliest share of a wide interval is a guess, and what follows from it would look like a finding.
        """
        return value if self.share_known else replace(value, mean=math.nan)

    @property
    def share_known(self) -> bool:
        """Whether the likeliest share of wrong labels may be reckoned with."""
        return self.advice.action != "cannot_audit"

    @property
    def finds(self) -> bool:
        """Whether planted errors show that wrong labels are told from right ones."""
        return self.planted.auroc.low > FINDS

    @property
    def acts(self) -> bool:
        """Whether the advice is to touch rows."""
        return self.advice.rows > 0

    @property
    def wrong_among_advised(self) -> float:
        """The share of wrong labels expected among the rows that the advice is about."""
        return float(np.sort(self.wrong)[::-1][: self.advice.rows].mean())


def audit(
    evidence: Evidence, prompts: Array, lengths: Floats, contradicted: Bools, near: Array, scores_against: Bools,
    slices: Mapping[str, Array], notes: tuple[str, ...], meta: Mapping[str, Any],
) -> Audit:  # fmt: skip
    """The audit of n pairs from the evidence on them. `lengths` `(2, n)` are the tokens of chosen and rejected."""
    margin = combined(np.vstack([evidence.margins, evidence.reference[None]]), evidence.folds)
    flipped = np.where(evidence.planted, -1.0, 1.0) * evidence.reference
    after = combined(np.vstack([evidence.planted_margins, flipped[None]]), evidence.folds)
    fit = fit_share(margin, prompts)
    planted = planted_errors(after, evidence.planted, fit, prompts)
    wrong = fit.best.wrong(margin)
    unequal = lengths[0] != lengths[1]
    longer = (lengths[0] > lengths[1]).astype(np.float64)
    suspect = unequal & (margin < 0)
    strength = np.abs(margin) / fit.best.unit
    return Audit(
        len(margin), len(set(prompts.tolist())), margin, wrong, fit, cuts(margin, fit), planted,
        advice(margin, fit, planted),
        clustered_interval((evidence.reference > 0).astype(np.float64), prompts, share=True),
        clustered_interval(longer[unequal], prompts[unequal], share=True),
        clustered_interval(longer[suspect], prompts[suspect], share=True),
        contradicted, near,
        (margin > 0) & (strength >= TRIVIAL) & (evidence.reference > 0),
        strength <= UNDECIDED,
        scores_against, _slices(margin, fit, prompts, slices), notes, meta,
    )  # fmt: skip


def _slices(margin: Floats, fit: ShareFit, prompts: Array, columns: Mapping[str, Array]) -> tuple[SliceShare, ...]:
    """Every value of the slice columns with enough pairs: are its labels contradicted more often than elsewhere?"""
    agrees = (margin > 0).astype(np.float64)
    tests = slice_tests(columns, columns, agrees, prompts, referenced=False)
    return tuple(
        SliceShare(
            test, expected(margin[test.mask], fit),
            clustered_interval(1 - agrees[test.mask], prompts[test.mask], share=True), p,
        )
        for test, (_, p) in zip(tests, corrected(tests), strict=True)
    )  # fmt: skip


def first_sentence(found: Audit) -> str:
    """What to do, and why."""
    share, planted = found.fit.share, found.planted.auroc
    finds = f"wrong labels are told from right ones with AUROC {within(planted)} (.5 is chance)"
    if found.advice.action == "cannot_audit":
        if not found.finds:
            return (
                "These labels cannot be audited with this model: the AUROC with which wrong labels are told from right "
                f"ones may be as low as {planted.low:.2f} (.5 is chance). Use a stronger model, or more pairs."
            )
        return (
            "How many labels to touch cannot be said with this model: the share of wrong ones lies anywhere in "
            f"{ends(share)}. The order is of use for reading the first rows by hand: {finds}."
        )
    bounds = ends(share).removesuffix(" %")
    known = f"{percent(share.mean)} {bounds} of the {found.pairs} labels are estimated to be wrong"
    if found.advice.action == "none":
        why = "too few to touch rows for" if share.low < NOISE else "but no single one more likely than not"
        return f"Do nothing: {known}, {why}; {finds}. Errors that follow a rule are not seen."
    what = "Drop" if found.advice.action == "drop" else "Relabel"
    return (
        f"{what} the {found.advice.rows} most suspect rows, and compare training with and without: {known}, and of "
        f"these rows {percent(found.wrong_among_advised)}; {finds}."
    )


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %" if value < 0.0995 else f"{100 * value:.0f} %"


def ends(share: Estimate) -> str:
    """The interval of a share, in percent."""
    return f"[{100 * share.low:.1f}, {100 * share.high:.1f}] %"


def within(value: Estimate) -> str:
    """A value with its interval."""
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"


def plain(found: Audit) -> dict[str, Any]:
    """Every number of an audit, as `audit.json` holds it."""
    planted = found.planted
    return {
        "pairs": found.pairs,
        "prompts": found.prompts,
        "answer": first_sentence(found),
        "advice": {"action": found.advice.action, "rows": found.advice.rows},
        "estimated_share": estimate(found.fit.share),
        "cuts": [
            {"share": cut.share, "rows": cut.rows, "precision": finite(precision.mean), "recall": finite(recall.mean),
             "precision_interval": estimate(precision), "recall_interval": estimate(recall)}
            for cut in found.cuts
            for precision, recall in [(found.predicted(cut.precision), found.predicted(cut.recall))]
        ],
        "planted": {
            "pairs": planted.planted, "rate": planted.rate, "auroc": estimate(planted.auroc),
            "estimated_rate": finite(planted.share),
            "cuts": [
                {"share": share, "precision": estimate(measured), "predicted_precision": finite(predicted.mean),
                 "predicted_interval": estimate(predicted), "recall": finite(recall)}
                for share, measured, said, recall in planted.cuts
                for predicted in [found.predicted(said)]
            ],
        },
        "reference_agrees": estimate(found.reference_share),
        "length_bias": {"longer_chosen": estimate(found.longer_chosen),
                        "longer_chosen_where_suspect": estimate(found.longer_chosen_suspect)},
        "contradictions": int(found.contradicted.sum()),
        "near_duplicates": int((found.near >= 0).sum()),
        "trivial": int(found.trivial.sum()),
        "undecidable": int(found.undecided.sum()),
        "scores_against_label": int(found.scores_against.sum()),
        "slices": [
            {"column": s.test.column, "value": s.test.value, "n": int(s.test.mask.sum()),
             "estimated_share": finite(share.mean), "share_interval": estimate(share),
             "evidence_against": estimate(s.against), "p_corrected": s.p, "named": s.named}
            for s in found.slices
            for share in [found.predicted(s.share)]
        ],
        "notes": list(found.notes),
        "audited": dict(found.meta),
    }  # fmt: skip


def estimate(value: Estimate) -> dict[str, float | None]:
    """An estimate as JSON."""
    return {"estimate": finite(value.mean), "low": finite(value.low), "high": finite(value.high)}


def finite(value: float) -> float | None:
    """The number, or None where there is none."""
    return value if math.isfinite(value) else None
