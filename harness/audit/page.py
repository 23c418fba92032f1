"""The page of an audit, made of the report's own parts.

No text of a pair stands on it: pairs are named by row and the first digits of their id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.audit.audit import Audit, first_sentence, percent
from harness.metrics.statistics import Estimate
from harness.metrics.suspicion import expected
from harness.report.render.blocks import Card, Content, Field, Lines, Table, fields, present
from harness.report.render.figures import RIGHT, WRONG, Picture, picture
from harness.report.render.text import DASH, interval, number, quantity, shorten, visible
from harness.report.sections.row import Page, Section, make_sections

WORST = 30
OPEN = ("cuts", "planted")


def build_page(
    found: Audit, cards: tuple[Card, ...], rows: np.ndarray, ids: Sequence[str], name: str
) -> Page[Audit]:  # fmt: skip
    """All texts and figures of the page; `rows` `(n,)` and `ids` name the pairs."""
    sections = (
        Section("cuts", "Cuts", _cuts),
        Section("planted", "Planted errors", _planted),
        Section("evidence", "Evidence", _evidence),
        Section("slices", "Slices", _slices),
        Section("suspects", "Suspects", partial(_suspects, rows=rows, ids=ids)),
        Section("limits", "Limits", _limits),
    )
    return Page(
        kind="audit",
        name=visible(name),
        question="Which of these labels are wrong?",
        answer=(first_sentence(found),),
        cards=cards,
        heroes=(_margins(found),),
        open=OPEN,
        folded="In a full sentence",
        status=f"{quantity(found.pairs, 'pair')} of {quantity(found.prompts, 'prompt')}; each label is judged by models"
        f" that saw no pair of its prompt ({visible(found.meta['model'])}, {found.meta['folds']} folds). Intervals are"
        " 95 %.",
        sections=make_sections(sections, found),
        texts="ids",
        script=False,
    )


LIMITS = (
    "Which answer annotators saw first: the set does not say.",
    "Errors that follow a rule: labels that are wrong for one kind of answer, or for all close pairs, teach the models "
    "the same. Planted errors are drawn by chance and cannot show them.",
    "Labels that are a matter of taste: a wrong label is one that contradicts what the other prompts' labels teach.",
)


def _share(value: Estimate) -> str:
    """A share with its interval, in percent; the interval alone where nothing more is known."""
    bounds = interval(100 * value.low, 100 * value.high, 1)
    middle = number(100 * value.mean, 1) if math.isfinite(value.mean) or not bounds else ""
    return " ".join(filter(None, [middle, bounds])) + " %"


def _expected(found: Audit, value: Estimate) -> str:
    """A predicted share: the likeliest, or its interval alone where the share of wrong labels is not known."""
    return percent(value.mean) if found.share_known else _share(found.predicted(value))


def _cuts(found: Audit) -> Content:
    rows = tuple(
        fields(
            percent(cut.share),
            str(cut.rows),
            *(_share(found.predicted(value)) for value in (cut.precision, cut.recall)),
        )
        for cut in found.cuts
    )
    note = (
        f"Estimated share of wrong labels: {_share(found.fit.share)}. Precision: share of the cut rows that are wrong; "
    )
    note += "recall: share of all wrong labels among them."
    if not found.share_known:
        note += " How many labels are wrong is not known, so both have an interval and no likeliest value."
    head = ("Most suspect", "rows", "wrong among them, predicted", "of all wrong labels")
    return Content("How many of the most suspect labels are wrong?", "", (Table("Cuts", head, rows, note),))


def _planted(found: Audit) -> Content:
    planted = found.planted
    rows = tuple(
        fields(percent(share), _share(measured), _share(found.predicted(predicted)), f"{number(100 * recall, 1)} %")
        for share, measured, predicted, recall in planted.cuts
    )
    note = (
        "Measured on the set with the planted errors, where more labels are wrong than in yours: by how many planted "
    )
    note += (
        "ones are among the rows, corrected for labels that were wrong before. Found are planted labels; a cut with "
        "fewer rows than there are wrong labels cannot hold them all."
    )
    lead = (
        f"{planted.planted} labels ({percent(planted.rate)}) were turned round and the audit done again. It "
        f"tells wrong labels from right ones with AUROC {number(planted.auroc.mean, 3)} "
        f"{interval(planted.auroc.low, planted.auroc.high, 3)} and estimates "
        f"{percent(max(planted.share, 0.0))} planted."
    )
    head = ("Most suspect", "wrong, measured", "wrong, predicted", "planted found")
    return Content("Are errors found that are known to be there?", lead, (Table("Planted errors", head, rows, note),))


def _limits(_: Audit) -> Content:
    return Content("What was not looked at", "", (Lines(LIMITS),))


def _margins(found: Audit) -> Picture:
    limit = float(np.quantile(np.abs(found.margin), 0.995)) or 1.0

    def paint(_: Any, axes: Any) -> None:
        panel = axes.flat[0]
        edges = np.linspace(-limit, limit, 61)
        clipped = np.clip(found.margin, -limit, limit)
        panel.hist(clipped[clipped >= 0], edges, color=RIGHT)
        panel.hist(clipped[clipped < 0], edges, color=WRONG)
        panel.axvline(0, color="#555555", linewidth=0.8)
        panel.set_xlabel("out-of-fold margin of the label")
        panel.set_ylabel("pairs")

    title = f"The evidence speaks against {int((found.margin < 0).sum())} of {found.pairs} labels"
    advised = f"; the advice is about the {found.advice.rows} where it is strong enough" if found.acts else ""
    return picture(
        "margins", title,
        f"Below 0 the evidence speaks against the label{advised}. The outermost bins hold what lies beyond.",
        f"{title}. Histogram of out-of-fold margins.", (1, 1), (8.4, 2.8), paint,
    )  # fmt: skip


def _evidence(found: Audit) -> Content:
    counts = (
        ("labels that the reference prefers", _share(found.reference_share)),
        ("chosen answer is the longer one", _share(found.longer_chosen)),
        ("the same, where the evidence speaks against the label", _share(found.longer_chosen_suspect)),
        ("pairs that stand a second time with the opposite label", str(int(found.contradicted.sum()))),
        ("pairs that nearly repeat an earlier one", str(int((found.near >= 0).sum()))),
        ("trivial: reference and evidence are both sure of the label", str(int(found.trivial.sum()))),
        ("undecidable: hardly any evidence either way", str(int(found.undecided.sum()))),
        ("labels that contradict the set's own scores", str(int(found.scores_against.sum()))),
    )
    table = Table("The set", ("What", "pairs"), tuple(fields(*row) for row in counts))
    notes = Lines(tuple(visible(note) for note in found.notes), "Notes on the rows") if found.notes else None
    return Content("What does the evidence look like?", "", present(table, notes))


def _slices(found: Audit) -> Content | None:
    if not found.slices:
        return None
    rows = tuple(
        (Field(shorten(s.test.value or "(empty)", 40), s.test.column, mark=WRONG if s.named else ""),
         Field(str(int(s.test.mask.sum()))), Field(_expected(found, s.share)), Field(_share(s.against)),
         Field("more than elsewhere" if s.named else DASH))
        for s in found.slices
    )  # fmt: skip
    head = ("Slice", "pairs", "estimated wrong", "evidence against", "named")
    note = "Named after Holm's correction, and at least one point apart."
    return Content("Are some kinds of pair labelled worse?", "", (Table("Slices", head, rows, note),))


def _suspects(found: Audit, *, rows: np.ndarray, ids: Sequence[str]) -> Content:
    order = np.argsort(found.margin, kind="stable")[:WORST]
    table = tuple(
        (
            Field(f"row {rows[at]}", ids[at][:12]),
            Field(number(found.margin[at], 2)),
            Field(_expected(found, expected(found.margin[[at]], found.fit))),
        )
        for at in order.tolist()
    )
    head = ("Pair", "margin", "probably wrong")
    lead = "All of them are in audit.parquet. Texts are not shown."
    return Content("The most suspect labels", lead, (Table("Most suspect", head, table),))
