"""Are the labels what they claim to be: columns swapped, pairs that contradict one another, pairs that come twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.metrics.statistics import Estimate, wilson
from harness.preflight.row import Check, Evidence, Finding, row_numbers
from harness.types import PreferencePair

LEVEL = 0.999  # of the intervals that tell two orientations apart: a false alarm would stop a sweep
SWAP = "if the columns are swapped: data.columns: {chosen: rejected, rejected: chosen}"
FEW = 20  # below so many pairs with evidence nothing is said


def duplicates(e: Evidence) -> list[Finding]:
    """Pairs that come again, word for word but for white space at the ends: they weigh twice in training."""
    seen: set[tuple[str, str, str]] = set()
    again = []
    for pair in e.pairs:
        key = _key(pair)
        again += [pair] if key in seen else []
        seen.add(key)
    if not again:
        return []
    share = len(again) / len(e.pairs)
    severity = "warning" if share > 0.01 else "note"
    text = f"{len(again)} of {len(e.pairs)} pairs ({share:.1%}) repeat an earlier one and count twice in training"
    fix = "keep one of each, or accept that they weigh more"
    return [Finding(severity, "duplicates", text, e.place, row_numbers(again), "chosen", fix, len(again))]


def contradictions(e: Evidence) -> list[Finding]:
    """Pairs that stand in both orders: at most one of the two labels is right."""
    keys = {_key(pair) for pair in e.pairs}
    both = [pair for pair in e.pairs if _turned(_key(pair)) in keys]
    if not both:
        return []
    share = len(both) / len(e.pairs)
    text = f"{len(both)} of {len(e.pairs)} pairs ({share:.1%}) appear in both orders, so half of them have wrong labels"
    fix = "drop them, or keep the order that more annotators chose"
    return [Finding("warning", "contradictions", text, e.place, row_numbers(both), "rejected", fix, len(both))]


def _key(pair: PreferencePair) -> tuple[str, str, str]:
    return pair.prompt.strip(), pair.chosen.strip(), pair.rejected.strip()


def _turned(key: tuple[str, str, str]) -> tuple[str, str, str]:
    return key[0], key[2], key[1]


def swapped_columns(e: Evidence) -> list[Finding]:
    """Whether chosen and rejected stand in each other's column, from scores, or from a split that is oriented rightly.

    Sound evidence only: a margin of the data's own against its columns; the same pair in two splits; signs of
    delta_ref or of the length difference that are clearly (99.9 %) on opposite sides of a half in two splits. Nothing
    of a single split without scores can tell, and then that is said.
    """
    findings = [*_by_scores(e), *_by_shared_pairs(e), *_by_splits(e)]
    if findings:
        return findings
    scored = sum(pair.gold_margin is not None for pair in e.pairs) >= FEW
    if scored or len(e.shared) >= FEW:
        return []
    if e.data.heldout_split:
        what = f"no scores, and nothing sets {e.data.split or 'the training split'} against {e.data.heldout_split}"
    else:
        what = "no scores, no gold margin and no held-out split of its own"
    text = f"cannot tell whether the columns are swapped: {what}"
    return [Finding("note", "swapped_columns", text, e.place, (), "chosen", "look at a few rows yourself")]


def _by_scores(e: Evidence) -> list[Finding]:
    scored = [pair for pair in e.pairs if pair.gold_margin is not None and pair.gold_margin != 0]
    if len(scored) < FEW:
        return []
    wrong = [pair for pair in scored if (pair.gold_margin or 0.0) < 0]
    share = wilson(len(wrong), len(scored), LEVEL)
    if share.mean < 0.1:
        return []
    severity = "error" if share.low > 0.5 else "warning"
    name = "score_rejected" if any("score_rejected" in pair.meta for pair in wrong) else "gold_margin"
    text = f"{len(wrong)} of {len(scored)} pairs with scores ({share.mean:.1%}) score the rejected response higher"
    return [Finding(severity, "swapped_columns", text, e.place, row_numbers(wrong), name, SWAP, len(wrong))]


def _by_shared_pairs(e: Evidence) -> list[Finding]:
    """The same pair in both splits, which should have the same order in both."""
    turned = [one for one, other in e.shared if _key(one) == _turned(_key(other))]
    if len(e.shared) < FEW or not turned:
        return []
    share = wilson(len(turned), len(e.shared), LEVEL)
    severity = "error" if share.low > 0.5 else "warning"
    text = f"{len(turned)} of {len(e.shared)} pairs that {e.data.heldout_split} has too stand there in the other order"
    return [Finding(severity, "swapped_columns", text, e.place, row_numbers(turned), "chosen", SWAP, len(turned))]


def _by_splits(e: Evidence) -> list[Finding]:
    """Signs that differ between two splits of their own; a share of one file is oriented as the rest of it."""
    if not e.data.heldout_split:
        return []
    sides = {name: _length_signs(e, pairs) for name, pairs in (("train", e.text.train), ("held", e.text.heldout))}
    found = [("longer", "the chosen response is the longer one in", _share(sides["train"]), _share(sides["held"]))]
    if e.reference is not None:
        what = "the reference gives the chosen response the higher log-prob in"
        own, other = (_share(np.sign(e.reference.of(side))) for side in (e.text.train, e.text.heldout))
        found.append(("delta_ref", what, own, other))
    findings = []
    for _, what, train_share, held in found:
        if min(train_share.n, held.n) < FEW:
            continue
        if (train_share.high < 0.5 < held.low) or (held.high < 0.5 < train_share.low):
            text = (
                f"{what} {train_share.mean:.0%} of the training pairs and {held.mean:.0%} of {e.data.heldout_split}: "
                "the two splits are oriented in opposite ways"
            )
            findings.append(Finding("error", "swapped_columns", text, e.place, (), "chosen", SWAP))
    return findings


def _length_signs(e: Evidence, pairs: Sequence[PreferencePair]) -> np.ndarray:
    return np.sign([len(e.text.tokens[pair.id].chosen) - len(e.text.tokens[pair.id].rejected) for pair in pairs])


def _share(signs: np.ndarray) -> Estimate:
    """Share above zero among those that are not zero."""
    signs = signs[signs != 0]
    return wilson(float((signs > 0).sum()), len(signs), LEVEL)


ROWS = (
    Check("swapped_columns", "chosen and rejected in each other's column", swapped_columns),
    Check("contradictions", "pairs in both orders", contradictions),
    Check("duplicates", "repeated pairs", duplicates),
)
