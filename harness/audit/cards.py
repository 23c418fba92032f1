"""The four cards of an audit's page: which labels to look at first, how many are wrong, how sure, what next."""

from __future__ import annotations

import shlex
from dataclasses import replace

import numpy as np

from harness.audit.asked import Asked, near
from harness.audit.audit import Audit
from harness.metrics.statistics import Estimate
from harness.report.render.blocks import Card
from harness.report.render.text import interval, number, percent, percents, quantity, shorten, visible

FIRST = 3  # rows named in a card
READ = 0.05  # of the pairs: whose precision is said where no rows are advised
OTHER_MODEL = "base"  # stands for a folder or a hub id
ADAPTERS = 200  # updates


def cards(found: Audit, rows: np.ndarray, asked: Asked) -> tuple[Card, ...]:
    """Which labels to look at first, how many are wrong, how sure, what next; `rows` `(n,)` name the pairs."""
    return (_first(found, rows), _wrong(found), _sure(found), _next(found, asked))


def _first(found: Audit, rows: np.ndarray) -> Card:
    cut = min(found.cuts, key=lambda one: abs(one.share - READ))
    wrong = f"Of the {cut.rows} most suspect rows {percents(cut.precision)} are estimated to be wrong."
    if found.acts:
        title = f"The {found.advice.rows} most suspect of {found.pairs}"
        wrong = (
            f"Their labels are more likely wrong than right: {percent(found.wrong_among_advised)} of them are estimated"
            " to be wrong. How far such estimates hold is under How sure."
        )
    elif found.advice.action == "none":
        title = "None in particular"
    elif found.finds:
        title, wrong = "The most suspect, by hand", "The order finds wrong labels; it does not say where they end."
    else:
        title, wrong = "None: the order may be chance", ""
    order = np.argsort(found.margin, kind="stable")[:FIRST]
    first = ", ".join(map(str, rows[order]))
    places = f"All are in audit.parquet with their suspicion; the most suspect: rows {first}."
    both = int(found.contradicted.sum())
    twice = f"{quantity(both, 'pair')} stand in the set with both labels." if both else ""
    return Card("use", "Look at first", title, tuple(filter(None, (wrong, places, twice))))


def _wrong(found: Audit) -> Card:
    share, label = found.fit.share, "How many are wrong"
    if not found.finds:
        why = "Planted errors are not shown to be found, so no share can be believed."
        return Card("breaks", label, "Cannot be told", (why, *_marks(found)))
    if found.advice.action == "cannot_audit":
        why = f"Anywhere from {percent(share.low)} to {percent(share.high)}: the evidence is too weak to count them."
        return Card("breaks", label, "Cannot be told", (why, *_marks(found)))
    ends = " to ".join(f"{end * found.pairs:.0f}" for end in (share.low, share.high))
    lines = (f"That is {ends} labels: those that contradict what the other prompts' labels teach.", *_marks(found))
    return Card("breaks", label, f"{percents(share)} of {found.pairs}", lines)


def _marks(found: Audit) -> list[str]:
    """What else speaks against labels: the set's own scores, and the slice that is shown to be labelled worst."""
    against = int(found.scores_against.sum())
    lines = []
    if against:
        text = f"{quantity(against, 'label')} contradict the set's own scores, which the audit does not use"
        if found.acts:
            advised = np.argsort(found.margin, kind="stable")[: found.advice.rows]
            text += f"; {int(found.scores_against[advised].sum())} of them are among the {found.advice.rows} rows"
        lines.append(f"{text}.")
    worst = max((one for one in found.slices if one.named), key=lambda one: one.against.mean, default=None)
    if worst is not None:
        lines.append(
            f"Contradicted most often: {shorten(worst.test.value or '(empty)', 40)} ({visible(worst.test.column)}),"
            f" {percents(worst.against)} of {quantity(int(worst.test.mask.sum()), 'pair')}."
        )
    return lines


def _sure(found: Audit) -> Card:
    planted = found.planted
    auroc = planted.auroc
    title = f"AUROC {number(auroc.mean, 2)} {interval(auroc.low, auroc.high, 2)} on planted errors"
    lines = (
        f"{quantity(planted.planted, 'label')} were turned round and the audit done again; .5 is chance.",
        *(_checked(found) if found.share_known else ()),
        "They are drawn by chance: errors that follow a rule are not seen.",
    )
    return Card("sure", "How sure", title if found.finds else f"Not sure: {title}", lines)


def _checked(found: Audit) -> list[str]:
    """What planted errors say of predictions: at the cut nearest to the advice, and where they fall most short."""
    planted = found.planted
    near = min(planted.cuts, key=lambda cut: abs(cut[0] - (found.advice.rows / found.pairs or planted.rate)))
    worst = max(planted.cuts, key=lambda cut: cut[2].mean - cut[1].mean)
    lines = [f"Of the {_most_suspect(near)}."]
    if worst is not near and worst[2].mean > worst[1].mean:
        lines.append(f"Furthest below the prediction: of the {_most_suspect(worst)}.")
    return lines


def _most_suspect(cut: tuple[float, Estimate, Estimate, float]) -> str:
    """`20 % most suspect rows 95.5 % [80, 100] were wrong then, 100 % were predicted`."""
    share, measured, predicted, _ = cut
    return (
        f"{percent(share)} most suspect rows {percents(measured)} were wrong then, {percent(predicted.mean)} were"
        " predicted"
    )


def _next(found: Audit, asked: Asked) -> Card:
    label = "What next"
    if found.acts:
        what = "Drop" if found.advice.action == "drop" else "Relabel"
        first = "Read some of them first. Cleaning was not shown to gain in our own sweep (reports/cleaning)."
        about = (
            "This writes the cleaned set beside the source, from the stored evidence; --advice takes the rows and the"
            " action of this card:"
        )
        title = f"{what} these {found.advice.rows} rows, and compare training with and without"
        return Card(
            "next", label, title, (first, about),
            visible(asked.again("--write", "cleaned.jsonl", "--advice")),
        )  # fmt: skip
    if found.advice.action == "none":
        command = visible(shlex.join(["harness", "init", "mine.yaml", "--data", near(asked.data)]))
        return Card("next", label, "Do nothing: train on it as it is", ("Compare objectives on it:",), command)
    about, command = "", ""
    if not asked.model:
        about = "With the folder or hub id of a model in place of base:"
        command = replace(asked, model=OTHER_MODEL, steps=0).again()
    elif not asked.steps:
        about = "With adapters of this model trained, too, which takes a GPU:"
        command = replace(asked, steps=ADAPTERS).again()
    by_hand = "Until then, read the first rows by hand." if found.finds else ""
    lines = tuple(filter(None, (by_hand, about)))
    return Card("next", label, "Use a stronger model, or more pairs", lines, visible(command))
