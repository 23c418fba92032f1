"""Kinds that swap the two columns: tokens and reference log-probs stay valid, only the orientation changes.

Each function takes a `View` and returns the `Hits`, its row stands below it. All decide on the clean facts. SciPy is
imported inside the functions that use it, since every command reads the registry.
"""

from __future__ import annotations

import math

import numpy as np

from harness.corruptions.draw import (
    Bools,
    Floats,
    Hits,
    View,
    chosen_by,
    half_up,
    hits,
    in_order,
    numbers,
    smallest,
    spread,
    target,
    texts,
    uniforms,
    weighted_key,
)
from harness.corruptions.row import GOLDEN, MODE, RATED, TEMPERATURE, Corruption, by_severity
from harness.types import Parameter


def none(_view: View) -> Hits:
    """The clean set: nobody is hit."""
    return Hits(np.empty(0, np.int64), "flip")


NONE = Corruption(
    name="none", function=none, rate="none", changes="labels", laws="",
    rank="nobody",
    summary="the clean set",
)  # fmt: skip


def uniform_flip(view: View) -> Hits:
    """Flip the k pairs with the smallest u (random classification noise, 2404.09824)."""
    u = uniforms(view)
    return smallest(view, u, "flip", {"u": u})


UNIFORM_FLIP = Corruption(
    name="uniform_flip", function=uniform_flip, rate="fixed", changes="labels", laws="CNI",
    rank="smallest u",
    summary="swap chosen and rejected in a uniformly drawn share of pairs",
    citation="2403.00409; 2404.04102; 2404.09824",
    parameters={"mode": MODE},
    severities=by_severity(0.1, 0.2, 0.4),
)  # fmt: skip


def bt_flip(view: View) -> Hits:
    """Flip with probability sigmoid(-margin / temperature) (B-Pref, 2111.03026), or an exact rate with that weight.

    Temperature 0 flips nobody (form=rate: an error, since all weights are 0); `inf` flips with probability 1/2.
    """
    u, margin = uniforms(view), numbers(view, "gold_margin")
    p = annotator_flips(margin, np.zeros_like(margin), float(view.params["temperature"]))
    columns = {"u": u, "gold_margin": margin, "probability": p}
    if view.params["form"] == "rate":
        del columns["probability"]
        p = np.where(view.eligible, p, 0.0)
        return smallest(view, weighted_key(u, p), "flip", {**columns, "weight": p})
    return hits(chosen_by(view, u < p), "flip", columns)


BT_FLIP = Corruption(
    name="bt_flip", function=bt_flip, rate="derived", changes="labels", laws="DI", rated_laws="CNI",
    rank="small gold margins: P(flip) = sigmoid(-margin / temperature)",
    summary="a Bradley-Terry annotator: close pairs are flipped more often; form=rate draws an exact share",
    citation="2111.03026",
    parameters={
        "temperature": TEMPERATURE,
        "form": Parameter("temperature", "choice", choices=("temperature", "rate"), doc="derive the rate, or set it"),
        "mode": MODE,
        **GOLDEN,
    },
    needs=("gold_margin",),
    set_by="temperature",
    neutral=({"temperature": 0, "form": "temperature"},),
    severities=by_severity(0.5, 1.0, 2.0, "temperature"),
)  # fmt: skip


def adversarial_hard(view: View) -> Hits:
    """Flip the k pairs with the smallest absolute gold margin."""
    margin = numbers(view, "gold_margin")
    return smallest(view, np.abs(margin), "flip", {"gold_margin": margin})


ADVERSARIAL_HARD = Corruption(
    name="adversarial_hard", function=adversarial_hard, rate="fixed", changes="labels", laws="CNI",
    rank="smallest absolute gold margin, ties by id",
    summary="flip the pairs that are closest",
    citation="2406.15568; 2410.08811; 2311.09641",
    parameters={"mode": MODE, **GOLDEN},
    needs=("gold_margin",),
    severities=by_severity(0.05, 0.1, 0.3),
)  # fmt: skip


def adversarial_easy(view: View) -> Hits:
    """Flip the k pairs with the largest absolute gold margin."""
    margin = numbers(view, "gold_margin")
    return smallest(view, -np.abs(margin), "flip", {"gold_margin": margin})


ADVERSARIAL_EASY = Corruption(
    name="adversarial_easy", function=adversarial_easy, rate="fixed", changes="labels", laws="CNI",
    rank="largest absolute gold margin, ties by id",
    summary="flip the pairs that are clearest",
    citation="2406.15568; 2410.08811; 2311.09641",
    parameters={"mode": MODE, **GOLDEN},
    needs=("gold_margin",),
    severities=by_severity(0.05, 0.1, 0.3),
)  # fmt: skip


def prompt_clustered(view: View) -> Hits:
    """Flip all pairs of the floor(rate P + 1/2) prompts with the smallest u, P the number of prompts.

    With rho < 1 each pair follows its prompt with probability sqrt(rho) and its own draw otherwise, which makes rho
    the correlation of two hits within a prompt; every set is nested in the rate.
    """
    prompts = [name or "" for name in texts(view, "prompt_id")]
    names = sorted({prompts[i] for i in np.flatnonzero(view.eligible).tolist()})
    u_prompt = uniforms(view, names=names)
    k = target(view, u_prompt)
    order = in_order(names, u_prompt, np.arange(len(names)))
    rank = {names[i]: r for r, i in enumerate(order.tolist())}
    u_of = dict(zip(names, u_prompt.tolist(), strict=True))
    prompt_rank = np.array([rank.get(p, len(names)) for p in prompts])
    key = np.array([u_of.get(p, np.inf) for p in prompts])
    hit: Bools = prompt_rank < k
    u, rho = key, float(view.params["rho"])
    if rho < 1:
        u_pair = uniforms(view, "pair")
        alone = np.zeros(view.n, dtype=bool)
        alone[smallest(view, u_pair, "flip", {"u": u_pair}).index] = True
        follows = uniforms(view, "follow") < math.sqrt(rho)
        hit, u = np.where(follows, hit, alone), np.where(follows, key, u_pair)
    among = np.flatnonzero(view.eligible & hit)
    index = np.array(sorted(among.tolist(), key=lambda i: (u[i], view.ids[i])), dtype=np.int64)
    touched = {prompts[i] for i in index.tolist()}
    columns = {"u": u, "key": u}
    return hits(index, "flip", columns, ranked=True, target=k, reached=len(touched), unit="prompts")


PROMPT_CLUSTERED = Corruption(
    name="prompt_clustered", function=prompt_clustered, rate="fixed", changes="labels", laws="CNI",
    rank="smallest u of the prompt",
    summary="flip all pairs of a share of prompts (rho 1), or with correlation rho within a prompt",
    parameters={"rho": Parameter(1.0, low=0.0, high=1.0, doc="correlation within a prompt"), **RATED},
    needs=("prompt_id",),
    severities=by_severity(0.1, 0.2, 0.4),
)  # fmt: skip


def rm_noise(view: View) -> Hits:
    """Flip where N(0, noise^2) on each response's reward overturns the sign of the gold margin (2210.10760).

    The normal draw belongs to the response (prompt and text), so one response has one reward in all its pairs. The
    expected flip rate is the mean of Phi(-abs(margin) / (noise sqrt 2)). A label that disagrees with the margin is
    not repaired.
    """
    from scipy.special import ndtr, ndtri

    margin = numbers(view, "gold_margin")
    scale = float(view.params["noise"]) * (spread(margin[view.eligible]) if view.params["unit"] == "sd" else 1.0)
    chosen = [f"{len(pair.prompt)}:{pair.prompt}{pair.chosen}" for pair in view.pairs]
    rejected = [f"{len(pair.prompt)}:{pair.prompt}{pair.rejected}" for pair in view.pairs]
    # As labelled now: chosen minus rejected; times the label it is the noise on the clean margin.
    drawn = ndtri(uniforms(view, names=chosen)) - ndtri(uniforms(view, names=rejected))
    hit = overturned(margin, scale * drawn * view.label)
    columns = {"gold_margin": margin}
    if scale > 0:
        columns["probability"] = ndtr(-np.abs(margin) / (scale * math.sqrt(2.0)))
    return hits(chosen_by(view, hit), "flip", columns)


RM_NOISE = Corruption(
    name="rm_noise", function=rm_noise, rate="derived", changes="labels", laws="D",
    rank="P(flip) = Phi(-abs(margin) / (noise * sqrt 2))",
    summary="flip where normal noise on each response's reward overturns the sign of the gold margin",
    citation="2210.10760",
    parameters={
        "noise": Parameter(1.0, low=0.0, search=(0.25, 2.0), doc="standard deviation per response; larger: more flips"),
        "unit": Parameter("reward", "choice", choices=("reward", "sd"), doc="of the reward, or sd of the margin"),
        **GOLDEN,
    },
    needs=("gold_margin",),
    set_by="noise",
    neutral=({"noise": 0},),
    severities={
        "mild": {"noise": 0.5, "unit": "sd"},
        "moderate": {"noise": 1.0, "unit": "sd"},
        "severe": {"noise": 2.0, "unit": "sd"},
    },
)  # fmt: skip


def near_tie(view: View) -> Hits:
    """Near ties: the floor(quantile n + 1/2) pairs with the smallest absolute gold margin, or all pairs up to `tau`.

    form=coin gives each a fair coin as label (`relabel_same` where it stays, 2111.03026); form=filter drops all others.
    """
    margin = np.abs(numbers(view, "gold_margin"))
    order = in_order(view.ids, margin, np.flatnonzero(view.eligible))
    if "tau" in view.params:
        k = int((margin[order] <= float(view.params["tau"])).sum())
    else:
        k = half_up(float(view.params["quantile"]), len(order))
    columns: dict[str, Floats] = {"key": margin, "gold_margin": numbers(view, "gold_margin")}
    if view.params["form"] == "filter":
        far = np.zeros(view.n, dtype=bool)
        far[order[k:]] = True
        return hits(chosen_by(view, far), "drop", columns)
    u = uniforms(view)
    columns |= {"u": u, "probability": np.full(view.n, 0.5)}
    actions = ["flip" if u[i] < 0.5 else "relabel_same" for i in order[:k].tolist()]
    return hits(order[:k], actions, columns, ranked=True)


NEAR_TIE = Corruption(
    name="near_tie", function=near_tie, rate="derived", changes="labels", form_changes={"filter": "rows"}, laws="D",
    rank="smallest absolute gold margin, ties by id",
    summary="give the closest pairs a fair coin as label (form=coin), or keep only them (form=filter)",
    citation="2111.03026; 2603.07211",
    parameters={
        "quantile": Parameter(0.25, low=0.0, high=1.0, doc="share of pairs that count as near ties"),
        "tau": Parameter(None, low=0.0, doc="largest absolute gold margin of a near tie, instead of quantile"),
        "form": Parameter(
            "coin", "choice", choices=("coin", "filter"), doc="label by a fair coin, or drop all other pairs"
        ),
        **GOLDEN,
    },
    needs=("gold_margin",),
    set_by="quantile (or tau)",
    neutral=({"quantile": 0, "form": "coin"}, {"quantile": 1, "form": "filter"}),
    either=("tau", "quantile"),
    severities=by_severity(0.1, 0.25, 0.5, "quantile"),
)  # fmt: skip


def overturned(margin: Floats, bias: Floats) -> Bools:
    """Where adding `bias` turns the sign of `margin` (at margin 0: where the bias is negative)."""
    return np.where(margin == 0, bias < 0, margin * (margin + bias) < 0)


def annotator_flips(margin: Floats, bias: Floats, temperature: float) -> Floats:
    """P(flip) = sigmoid(-(margin + bias) / temperature), `(n,)`; at temperature 0, 1 where the bias overturns."""
    from scipy.special import expit

    if temperature == 0:
        return overturned(margin, bias).astype(np.float64)
    return np.asarray(expit(-(margin + bias) / temperature))


ROWS = (
    NONE,
    UNIFORM_FLIP,
    BT_FLIP,
    ADVERSARIAL_HARD,
    ADVERSARIAL_EASY,
    PROMPT_CLUSTERED,
    RM_NOISE,
    NEAR_TIE,
)
