"""What tokenisation does to the pairs: ends that are cut off, ends that are missing, ends that are not scored."""

from __future__ import annotations

import numpy as np

from harness.data.chat import FAULTS, FIX
from harness.data.rows import CHOSEN, REJECTED, PairRows
from harness.preflight.row import Check, Evidence, Finding, row_numbers
from harness.types import PreferencePair

MUCH_CUT = 0.1  # a share of cut responses that a user should decide on
MUCH_DROPPED = 0.05


def truncation(e: Evidence) -> list[Finding]:
    """How many responses lose their end and how many pairs vanish at these lengths."""
    found = e.token_pairs()
    findings = []
    cut = {
        side: [pair for pair, tokens in found if getattr(tokens, side)[-1] != e.text.words.eos]
        for side in ("chosen", "rejected")
    }
    worst = max(cut, key=lambda side: len(cut[side]))
    share = len(cut[worst]) / max(len(found), 1)
    if cut[worst]:
        sides = ", ".join(f"{len(own)} {side} ({len(own) / len(found):.1%})" for side, own in cut.items())
        text = f"of {len(found)} training pairs, responses that lose their end: {sides}; they are not taught to stop"
        fix = (
            f"raise data.max_length (now {e.data.max_length}) or data.max_response_length "
            f"(now {e.data.max_response_length or 'without limit'})"
        )
        severity = "warning" if share >= MUCH_CUT else "note"
        rows = row_numbers(cut[worst])
        findings.append(Finding(severity, "truncation", text, e.place, rows, worst, fix, len(cut[worst])))
    notes = {note.kind: note for note in e.text.notes}
    total = len(e.pairs)
    if (note := notes.get("truncated_prompt")) is not None:
        share = note.count / max(total, 1)
        text = f"{note.count} of {total} prompts ({share:.1%}) lose their beginning"
        fix = f"raise data.max_prompt_length (now {e.data.max_prompt_length})"
        severity = "warning" if share >= MUCH_CUT else "note"
        findings.append(Finding(severity, "truncation", text, e.place, note.rows, "prompt", fix, note.count))
    gone = [notes[kind] for kind in ("vanished", "identical_after_truncation") if kind in notes]
    for note in gone:
        share = note.count / (total + sum(one.count for one in gone))
        what = "leave a response no token" if note.kind == "vanished" else "are equal once cut"
        text = f"{note.count} pairs ({share:.1%}) {what} and are dropped"
        fix = "raise data.max_length, lower data.max_prompt_length, or data.on_bad_row: error"
        severity = "warning" if share >= 0.01 else "note"
        findings.append(Finding(severity, "truncation", text, e.place, note.rows, "chosen", fix, note.count))
    return findings


def end_of_sequence(e: Evidence) -> list[Finding]:
    """Whether every whole response ends in one end-of-sequence token, and whether that token is scored.

    Where padding and end-of-sequence are one token, code that masks every such token leaves the end out: the model is
    never taught to stop. So what counts is looked at in the packed rows, not in the tokenizer's settings.
    """
    eos, data = e.text.words.eos, e.data
    unended: dict[str, list[PreferencePair]] = {"chosen": [], "rejected": []}
    inside: dict[str, list[PreferencePair]] = {"chosen": [], "rejected": []}
    for pair, tokens in e.token_pairs():
        room = min(data.max_length - len(tokens.prompt), data.max_response_length or data.max_length)
        for side in ("chosen", "rejected"):
            ids = getattr(tokens, side)
            if len(ids) < room and ids[-1] != eos:
                unended[side].append(pair)
            if eos in ids[:-1]:
                inside[side].append(pair)
    findings = [
        Finding(
            "error", "end_of_sequence", f"{len(own)} {side} responses fit but do not end in end-of-sequence",
            e.place, row_numbers(own), side, "the tokenizer or its template must end an answer with its eos token",
            len(own),
        )
        for side, own in unended.items() if own
    ] + [
        Finding(
            "warning", "end_of_sequence", f"{len(own)} {side} responses contain end-of-sequence before their end",
            e.place, row_numbers(own), side, "remove special tokens from the texts", len(own),
        )
        for side, own in inside.items() if own
    ]  # fmt: skip
    by_id = {pair.id: pair for pair in e.text.train}
    for side, ids in unscored_ends(e, e.rows).items():
        own = [by_id[i] for i in ids]
        text = f"{len(own)} {side} responses have an end-of-sequence token that is masked and not scored"
        fix = "padding must be masked by position, or the pad token must differ from eos"
        findings.append(Finding("error", "end_of_sequence", text, e.place, row_numbers(own), side, fix, len(own)))
    return findings


def unscored_ends(e: Evidence, rows: PairRows) -> dict[str, list[str]]:
    """By side, the ids of pairs whose last response token is not among the scored ones of the packed rows."""
    found: dict[str, list[str]] = {}
    place = {pair_id: row for row, pair_id in enumerate(rows.pair_ids)}
    for pair, tokens in e.token_pairs():
        row = place[pair.id]
        for side, code in (("chosen", CHOSEN), ("rejected", REJECTED)):
            ids = getattr(tokens, side)
            scored = rows.target[row][rows.side[row] == code]
            if not np.array_equal(scored, ids):
                found.setdefault(side, []).append(pair.id)
    return found


def chat_template(e: Evidence) -> list[Finding]:
    """What a chat template loses of the pairs that it writes, or adds to their answers."""
    return [
        Finding("warning" if FAULTS[note.kind][0] else "note", note.kind, note.text, e.place, fix=FIX, count=note.count)
        for note in e.text.file_notes
        if note.kind in FAULTS
    ]


def dropped_rows(e: Evidence) -> list[Finding]:
    """Rows that cannot be used, as a share of what was read."""
    lost = e.text.rows - e.text.usable
    if not lost:
        return []
    share = lost / e.text.rows
    why = "; ".join(note.text for note in e.text.file_notes if " dropped" in note.text)
    severity = "warning" if share > MUCH_DROPPED else "note"
    rows = tuple(row for note in e.text.file_notes if " dropped" in note.text for row in note.rows)
    text = f"{lost} of {e.text.rows} rows ({share:.1%}) cannot be used and are dropped: {why}"
    fix = "data.on_bad_row: error names each and stops"
    return [Finding(severity, "dropped_rows", text, e.place, rows[:10], "", fix, lost)]


def few_pairs(e: Evidence) -> list[Finding]:
    """Batches larger than the training set repeat pairs within a batch; few held-out pairs measure little."""
    findings = []
    if len(e.text.train) < e.batch:
        text = f"{len(e.text.train)} training pairs are fewer than a batch of {e.batch}: batches repeat pairs"
        findings.append(Finding("warning", "few_pairs", text, e.place, (), "", "lower training.batch_size"))
    if len(e.text.heldout) < 30:
        half = 0.98 / len(e.text.heldout) ** 0.5
        text = f"{len(e.text.heldout)} held-out pairs: a share of them is known to about +-{half:.2f} at best"
        findings.append(Finding("warning", "few_pairs", text, e.place, (), "", "raise data.heldout"))
    return findings


ROWS = (
    Check("chat_template", "what a chat template loses or adds", chat_template),
    Check("dropped_rows", "unusable rows", dropped_rows),
    Check("truncation", "responses and prompts that are cut", truncation),
    Check("end_of_sequence", "responses that do not end, or whose end is not scored", end_of_sequence),
    Check("few_pairs", "too few pairs for a batch or a measure", few_pairs),
)
