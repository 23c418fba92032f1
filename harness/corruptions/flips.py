"""Kinds that swap the two columns: tokens and reference log-probs stay valid, only the orientation changes.

Each function takes a `View` and returns the `Hits`. All but `curate_relabel` decide on the clean facts.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit, ndtr, ndtri

from harness.corruptions.select import Hits, chosen_by, hits, in_order, smallest, target, weighted_key
from harness.corruptions.view import Bools, Floats, View, labelled, numbers, spread, texts, uniforms


def none(_view: View) -> Hits:
    """The clean set: nobody is hit."""
    return Hits(np.empty(0, np.int64), "flip")


def uniform_flip(view: View) -> Hits:
    """Flip the k pairs with the smallest u (random classification noise, 2404.09824)."""
    u = uniforms(view)
    return smallest(view, u, "flip", {"u": u})


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


def adversarial_hard(view: View) -> Hits:
    """Flip the k pairs with the smallest absolute gold margin."""
    margin = numbers(view, "gold_margin")
    return smallest(view, np.abs(margin), "flip", {"gold_margin": margin})


def adversarial_easy(view: View) -> Hits:
    """Flip the k pairs with the largest absolute gold margin."""
    margin = numbers(view, "gold_margin")
    return smallest(view, -np.abs(margin), "flip", {"gold_margin": margin})


def curate_relabel(view: View) -> Hits:
    """Flip the k pairs whose label the reference distrusts most: smallest delta_ref as labelled now (nats)."""
    delta = labelled(view, "delta_ref")
    return smallest(view, delta, "flip", {"delta_ref": delta})


def rm_noise(view: View) -> Hits:
    """Flip where N(0, noise^2) on each response's reward overturns the sign of the gold margin (2210.10760).

    The normal draw belongs to the response (prompt and text), so one response has one reward in all its pairs. The
    expected flip rate is the mean of Phi(-abs(margin) / (noise sqrt 2)). A label that disagrees with the margin is
    not repaired.
    """
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
        own = uniforms(view, "pair")
        alone = np.zeros(view.n, dtype=bool)
        alone[smallest(view, own, "flip", {"u": own}).index] = True
        follows = uniforms(view, "follow") < math.sqrt(rho)
        hit, u = np.where(follows, hit, alone), np.where(follows, key, own)
    among = np.flatnonzero(view.eligible & hit)
    index = np.array(sorted(among.tolist(), key=lambda i: (u[i], view.ids[i])), dtype=np.int64)
    touched = {prompts[i] for i in index.tolist()}
    columns = {"u": u, "key": u}
    return hits(index, "flip", columns, ranked=True, target=k, reached=len(touched), unit="prompts")


def overturned(margin: Floats, bias: Floats) -> Bools:
    """Where adding `bias` turns the sign of `margin` (at margin 0: where the bias is negative)."""
    return np.where(margin == 0, bias < 0, margin * (margin + bias) < 0)


def annotator_flips(margin: Floats, bias: Floats, temperature: float) -> Floats:
    """P(flip) = sigmoid(-(margin + bias) / temperature), `(n,)`; at temperature 0, 1 where the bias overturns."""
    if temperature == 0:
        return overturned(margin, bias).astype(np.float64)
    return np.asarray(expit(-(margin + bias) / temperature))
