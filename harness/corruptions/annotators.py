"""Labels by annotators with a taste: for length, for a marker, or a crowd of several.

They relabel: how a pair is labelled when they see it does not enter their answer (temperature 0 excepted, which never
repairs a label). Margins and lengths are therefore read as labelled now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.corruptions.flips import annotator_flips
from harness.corruptions.registry import annotator_needs
from harness.corruptions.select import Hits, chosen_by, hits, in_order, smallest
from harness.corruptions.view import Floats, View, labelled, length_sides, require, spread, uniforms
from harness.types import InputError


def length_biased(view: View) -> Hits:
    """P(prefer longer) = sigmoid((margin of longer + kappa * length excess / sd) / temperature) (2310.03716).

    sd is the standard deviation of the length difference; pairs of equal length are untouched. With form=rate the k
    pairs with the largest length difference are relabelled so that the longer one wins.
    """
    chosen, rejected = length_sides(view)
    excess = chosen - rejected
    if view.params["form"] == "rate":
        found = smallest(view, -np.abs(excess), "flip", {"delta_len": excess})
        actions = ["flip" if excess[i] < 0 else "relabel_same" for i in found.index.tolist()]
        return replace(found, action=actions)
    scale = spread(excess[view.eligible] * view.label[view.eligible])
    return _biased(view, excess / scale if scale else excess, excess != 0, {"delta_len": excess})


def spurious_feature(view: View) -> Hits:
    """The annotator adds kappa times the marker difference (chosen minus rejected) to the gold margin.

    `marker: auto` takes the word of the responses whose presence is nearest `prevalence` and best balanced between
    chosen and rejected; `column` reads marker_chosen and marker_rejected; anything else is a phrase looked for in the
    text. Raises InputError where no response, or every response, has the marker.
    """
    marker = view.params["marker"]
    if marker == "column":
        chosen, rejected = labelled(view, "marker_chosen"), labelled(view, "marker_rejected")
    else:
        phrase = _frequent_word(view, float(view.params["prevalence"])) if marker == "auto" else marker
        whole_word = marker == "auto"
        chosen = _has(phrase, [pair.chosen for pair in view.pairs], whole_word)
        rejected = _has(phrase, [pair.rejected for pair in view.pairs], whole_word)
        marker = phrase
    seen = np.concatenate([chosen[view.eligible], rejected[view.eligible]])
    if len(seen) and np.all(seen == seen[0]):
        raise InputError(
            f"corruption 'spurious_feature': the marker {marker!r} does not tell any two of the {len(seen):,} "
            "responses apart; name another with marker=..., or give marker_chosen and marker_rejected"
        )
    stats = {
        "marker": marker,
        "marker_share_chosen": float(np.mean(np.sort(chosen[view.eligible]))) if len(seen) else None,
        "marker_share_rejected": float(np.mean(np.sort(rejected[view.eligible]))) if len(seen) else None,
    }
    return _biased(view, chosen - rejected, np.ones(view.n, dtype=bool), {}, stats)


def annotator_mixture(view: View) -> Hits:
    """Each pair gets one annotator (exact counts, largest remainder), who labels it with its own noise.

    An annotator flips with P = p (1 - 2 eps) + eps, where p = sigmoid(-(margin + kappa * length excess / sd) /
    temperature); without kappa, temperature or an own margin p is 0. `margin` names the facts column that holds the
    annotator's own margin. Every pair is in the ledger: `relabel_same` where the label stays.
    """
    annotators = [dict(row) for row in view.params["annotators"]]
    needs: dict[str, None] = {}
    for row in annotators:
        needs |= dict.fromkeys(annotator_needs(row, view.params["unit"]))
    view = require(view, tuple(needs))
    names = [str(row.get("name", number)) for number, row in enumerate(annotators)]
    among = np.flatnonzero(view.eligible)
    order = in_order(view.ids, uniforms(view, "assign"), among)
    counts = largest_remainder([float(row["share"]) for row in annotators], len(among))
    owner = np.zeros(view.n, dtype=np.int64)
    owner[order] = np.repeat(np.arange(len(annotators)), counts)
    p, margins, excess = _mixture_probability(view, annotators, owner)
    u = uniforms(view)
    index = chosen_by(view, view.eligible)
    actions = ["flip" if u[i] < p[i] else "relabel_same" for i in index.tolist()]
    flips = Counter(names[owner[i]] for i, action in zip(index.tolist(), actions, strict=True) if action == "flip")
    columns = {"u": u, "probability": p, "gold_margin": margins, "delta_len": excess}
    columns["annotator_id"] = np.array(names, dtype=object)[owner]
    stats = {"annotators": {n: {"pairs": c, "flips": flips[n]} for n, c in zip(names, counts, strict=True)}}
    return hits(index, actions, columns, stats=stats)


def largest_remainder(shares: list[float], n: int) -> list[int]:
    """Whole counts that sum to n and are nearest to share * n: the largest remainders get the seats left over."""
    exact = [share * n for share in shares]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: n - sum(counts)]:
        counts[i] += 1
    return counts


def _mixture_probability(
    view: View, annotators: list[dict[str, Any]], owner: np.ndarray[Any, np.dtype[np.int64]]
) -> tuple[Floats, Floats, Floats]:
    """P(flip), the margin and the length excess each decision used (NaN where unused), `(n,)` each."""
    p, margins, excess = np.zeros(view.n), np.full(view.n, np.nan), np.full(view.n, np.nan)
    for number, row in enumerate(annotators):
        mine, kappa, temperature = owner == number, float(row.get("kappa", 0.0)), float(row.get("temperature", 0.0))
        base = np.zeros(view.n)
        if kappa or temperature or "margin" in row:
            margin, bias = labelled(view, row.get("margin", "gold_margin")), np.zeros(view.n)
            if kappa:
                chosen, rejected = length_sides(view)
                difference = chosen - rejected
                scale = spread(difference[view.eligible] * view.label[view.eligible])
                bias = kappa * difference / scale if scale else bias
                excess = np.where(mine, difference, excess)
            margins = np.where(mine, margin, margins)
            own = "margin" in row and temperature == 0 and not kappa
            base = (margin < 0).astype(np.float64) if own else annotator_flips(margin, bias, temperature)
        eps = float(row.get("eps", 0.0))
        p = np.where(mine, base * (1.0 - 2.0 * eps) + eps, p)
    return p, margins, excess


def _biased(view: View, feature: Floats, touchable: Any, columns: Mapping[str, Any], stats: Any = None) -> Hits:
    """Flips of an annotator who adds kappa * `feature` to the gold margin, both as labelled now."""
    u, margin = uniforms(view), labelled(view, "gold_margin")
    p = annotator_flips(margin, float(view.params["kappa"]) * feature, float(view.params["temperature"]))
    p = np.where(touchable, p, 0.0)
    columns = {**columns, "u": u, "gold_margin": margin, "probability": p}
    return hits(chosen_by(view, u < p), "flip", columns, stats=stats or {})


def _has(phrase: str, responses: list[str], whole_word: bool) -> Floats:
    """1.0 where a response has the phrase (as one of its words, or anywhere), else 0.0."""
    return np.array([phrase in (text.split() if whole_word else text) for text in responses], np.float64)


def _frequent_word(view: View, prevalence: float) -> str:
    """The word whose share of responses is nearest `prevalence`, with the imbalance between the sides added."""
    among = np.flatnonzero(view.eligible).tolist()
    chosen: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for i in among:
        chosen.update(set(view.pairs[i].chosen.split()))
        rejected.update(set(view.pairs[i].rejected.split()))
    n = len(among)
    words = {word for word in chosen.keys() | rejected.keys() if 0 < chosen[word] + rejected[word] < 2 * n}
    if not words:
        if not n:
            return ""
        raise InputError(
            "corruption 'spurious_feature': no word tells the responses apart; name a phrase with marker=..., or give "
            "the columns marker_chosen and marker_rejected"
        )
    return min(
        words,
        key=lambda word: (
            abs((chosen[word] + rejected[word]) / (2 * n) - prevalence) + abs(chosen[word] - rejected[word]) / n,
            word,
        ),
    )
