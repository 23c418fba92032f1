"""Labels by annotators with a taste: for length, for a marker, or a crowd of several.

They relabel: how a pair is labelled when they see it does not enter their answer (temperature 0 excepted, which never
repairs a label). Margins and lengths are therefore read as labelled now.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.corruptions.draw import (
    Bools,
    Floats,
    Hits,
    Ints,
    View,
    chosen_by,
    hits,
    in_order,
    labelled,
    length_sides,
    smallest,
    spread,
    uniforms,
)
from harness.corruptions.flips import annotator_flips
from harness.corruptions.row import (
    GOLDEN,
    KAPPA,
    MODE,
    TEMPERATURE,
    UNIT,
    Corruption,
    Params,
    by_severity,
    lengths_needed,
    problem_of,
    written,
)
from harness.text import suggestion
from harness.types import InputError, Parameter


def length_biased(view: View) -> Hits:
    """P(prefer longer) = sigmoid((margin of longer + kappa * length excess / sd) / temperature) (2310.03716).

    sd is the standard deviation of the length difference; pairs of equal length are untouched. With form=rate the k
    pairs with the largest length difference are relabelled so that the longer one wins.
    """
    chosen, rejected = length_sides(view)
    excess = chosen - rejected
    if view.params["form"] == "rate":
        hit = smallest(view, -np.abs(excess), "flip", {"delta_len": excess})
        return replace(hit, action=["flip" if excess[i] < 0 else "relabel_same" for i in hit.index.tolist()])
    scale = spread(excess[view.eligible] * view.label[view.eligible])
    return _biased(view, excess / scale if scale else excess, excess != 0, {"delta_len": excess})


def _length_needs(params: Params) -> tuple[str, ...]:
    margin = () if params.get("form") == "rate" else ("gold_margin",)
    return (*margin, *lengths_needed(params))


LENGTH_BIASED = Corruption(
    name="length_biased", function=length_biased, rate="derived", changes="labels", laws="D", rated_laws="CN",
    rank="P(prefer longer) = sigmoid((margin + kappa * excess / sd) / temperature); form=rate: largest excess",
    summary="an annotator who likes long answers; form=rate relabels the top share so that the longer wins",
    citation="2310.03716; 2403.19159",
    parameters={
        "kappa": KAPPA,
        "temperature": TEMPERATURE,
        "unit": UNIT,
        "form": Parameter("annotator", "choice", choices=("annotator", "rate"), doc="derive the rate, or set rate"),
        "mode": MODE,
        **GOLDEN,
    },
    needs=_length_needs,
    set_by="kappa",
    neutral=({"kappa": 0, "temperature": 0, "form": "annotator"},),
    severities=by_severity(1.0, 2.0, 4.0, "kappa"),
)  # fmt: skip


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


def _spurious_needs(params: Params) -> tuple[str, ...]:
    columns = ("marker_chosen", "marker_rejected") if params.get("marker") == "column" else ()
    return ("gold_margin", *columns)


def _check_marker(params: Params) -> tuple[Params, list[str]]:
    marker = params["marker"]
    good = isinstance(marker, str) and marker.strip()
    return params, [] if good else [f"marker: expected auto, column, or a phrase, got {marker!r}"]


SPURIOUS_FEATURE = Corruption(
    name="spurious_feature", function=spurious_feature, rate="derived", changes="labels", laws="D",
    rank="P(flip) = sigmoid(-(margin + kappa * marker difference) / temperature)",
    summary="an annotator who rewards a marker: a phrase, facts columns (marker: column), or a word of the data "
    "found by prevalence (marker: auto)",
    citation="reward-hacking literature",
    parameters={
        "kappa": KAPPA,
        "temperature": TEMPERATURE,
        "marker": Parameter("auto", "table", doc="auto, column, or the phrase itself"),
        "prevalence": Parameter(
            0.3, low=0.0, high=1.0, low_open=True, high_open=True,
            doc="share of responses with the word that marker: auto picks",
        ),
        **GOLDEN,
    },
    needs=_spurious_needs,
    set_by="kappa",
    neutral=({"kappa": 0, "temperature": 0},),
    severities=by_severity(1.0, 2.0, 4.0, "kappa"),
    check=_check_marker,
)  # fmt: skip


def annotator_mixture(view: View) -> Hits:
    """Each pair gets one annotator (exact counts, largest remainder), who labels it with its own noise.

    An annotator flips with P = p (1 - 2 eps) + eps, where p = sigmoid(-(margin + kappa * length excess / sd) /
    temperature); without kappa, temperature or `margin` p is 0. `margin` names the facts column that holds the
    annotator's private margin. Every pair is in the ledger: `relabel_same` where the label stays.
    """
    annotators = [dict(row) for row in view.params["annotators"]]
    names = [str(row.get("name", number)) for number, row in enumerate(annotators)]
    among = np.flatnonzero(view.eligible)
    order = in_order(view.ids, uniforms(view, "assign"), among)
    counts = largest_remainder([float(row["share"]) for row in annotators], len(among))
    annotator_of = np.zeros(view.n, dtype=np.int64)
    annotator_of[order] = np.repeat(np.arange(len(annotators)), counts)
    p, margins, excess = _mixture_probability(view, annotators, annotator_of)
    u = uniforms(view)
    index = chosen_by(view, view.eligible)
    actions = ["flip" if u[i] < p[i] else "relabel_same" for i in index.tolist()]
    chosen = annotator_of[index].tolist()
    flips = Counter(names[number] for number, action in zip(chosen, actions, strict=True) if action == "flip")
    columns = {"u": u, "probability": p, "gold_margin": margins, "delta_len": excess}
    columns["annotator_id"] = np.array(names, dtype=object)[annotator_of]
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
    view: View, annotators: list[dict[str, Any]], annotator_of: Ints
) -> tuple[Floats, Floats, Floats]:
    """P(flip), the margin and the length excess each decision used (NaN where unused), `(n,)` each."""
    p, margins, excess = np.zeros(view.n), np.full(view.n, np.nan), np.full(view.n, np.nan)
    for number, row in enumerate(annotators):
        mine = annotator_of == number
        kappa, temperature = float(row.get("kappa", 0.0)), float(row.get("temperature", 0.0))
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
            private = "margin" in row and temperature == 0 and not kappa
            base = (margin < 0).astype(np.float64) if private else annotator_flips(margin, bias, temperature)
        eps = float(row.get("eps", 0.0))
        p = np.where(mine, base * (1.0 - 2.0 * eps) + eps, p)
    return p, margins, excess


# What an annotator of a mixture may have, besides `name` and `margin`.
_ANNOTATOR = {
    "share": Parameter(None, low=0.0, high=1.0, low_open=True),
    "eps": Parameter(0.0, low=0.0, high=1.0),
    "kappa": Parameter(0.0, low=0.0),
    "temperature": Parameter(0.0, low=0.0, choices=("inf",)),
}


def _check_annotators(params: Params) -> tuple[Params, list[str]]:
    """The parameters with the annotators' numbers in their written form, and what is wrong with the annotators."""
    try:
        annotators = [dict(row) for row in params["annotators"]]
    except (TypeError, ValueError):
        annotators = []
    if not annotators:
        example = "[{share: 0.8, eps: 0.05}, {share: 0.2, eps: 0.4}]"
        return params, [f"annotators: expected a list of mappings such as {example}"]
    problems = []
    allowed = [*_ANNOTATOR, "name", "margin"]
    for number, row in enumerate(annotators):
        for key, value in row.items():
            if key not in allowed:
                problem: str | None = f"unknown key{suggestion(str(key), allowed)} (known: {', '.join(allowed)})"
            elif key in _ANNOTATOR:
                problem = problem_of(_ANNOTATOR[key], written(_ANNOTATOR[key], value))
            else:
                problem = None if isinstance(value, str) and value else f"expected a name, got {value!r}"
            problems += [f"annotators[{number}].{key}: {problem}"] if problem else []
        problems += [] if "share" in row else [f"annotators[{number}]: 'share' is missing"]
    if not problems and abs(math.fsum(row["share"] for row in annotators) - 1.0) > 1e-9:
        total = math.fsum(row["share"] for row in annotators)
        problems = [f"annotators: shares sum to {total:g}; they must sum to 1"]
    names = {row.get("name", str(number)) for number, row in enumerate(annotators)}
    if not problems and len(names) < len(annotators):
        problems = ["annotators: two annotators share a name; give each its own"]
    settled = tuple({key: written(_ANNOTATOR.get(key), value) for key, value in row.items()} for row in annotators)
    return {**params, "annotators": settled}, problems


def _mixture_needs(params: Params) -> tuple[str, ...]:
    """What the annotators read; one who only flips at rate eps reads nothing."""
    needed: dict[str, None] = {}
    for row in map(dict, params.get("annotators", ())):
        if row.get("kappa") or row.get("temperature") or "margin" in row:
            needed[row.get("margin", "gold_margin")] = None
        if row.get("kappa"):
            needed |= dict.fromkeys(lengths_needed(params))
    return tuple(needed)


def _annotators(*rows: tuple[float, float]) -> tuple[Params, ...]:
    return tuple({"share": share, "eps": eps} for share, eps in rows)


ANNOTATOR_MIXTURE = Corruption(
    name="annotator_mixture", function=annotator_mixture, rate="derived", changes="labels", laws="D",
    rank="u assigns the annotator, a second stream decides",
    summary="several annotators, each with its share, flip rate eps, length bias kappa, temperature or own margin",
    citation="2402.08925; 2312.08358; 2509.24159",
    parameters={
        "annotators": Parameter(
            _annotators((0.8, 0.05), (0.2, 0.4)), "table",
            doc="list of {name, share, eps, kappa, temperature, margin}; shares sum to 1",
        ),
        "unit": UNIT,
        **GOLDEN,
    },
    needs=_mixture_needs,
    set_by="annotators",
    severities={
        "mild": {"annotators": _annotators((0.8, 0.05), (0.2, 0.4))},
        "moderate": {"annotators": _annotators((0.6, 0.05), (0.4, 0.4))},
        "severe": {"annotators": _annotators((0.4, 0.05), (0.3, 0.2), (0.3, 0.4))},
    },
    check=_check_annotators,
)  # fmt: skip


def _biased(view: View, feature: Floats, touchable: Bools, columns: Mapping[str, Any], stats: Any = None) -> Hits:
    """Flips of an annotator who adds kappa * `feature` to the gold margin, both as labelled now."""
    u, margin = uniforms(view), labelled(view, "gold_margin")
    p = annotator_flips(margin, float(view.params["kappa"]) * feature, float(view.params["temperature"]))
    p = np.where(touchable, p, 0.0)
    columns = {**columns, "u": u, "gold_margin": margin, "probability": p}
    return hits(chosen_by(view, u < p), "flip", columns, stats=stats or {})


ROWS = (LENGTH_BIASED, SPURIOUS_FEATURE, ANNOTATOR_MIXTURE)
