"""Kinds that change text: the new responses need reference log-probs of their own.

Text is cut in words, the maximal runs of characters that are not white space; no tokeniser is involved and no
character is ever split. Labels stay.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from harness.corruptions.draw import Hits, View, in_order, smallest, texts, uniforms
from harness.corruptions.row import MODE, RATED, Corruption, Params, by_severity
from harness.types import InputError, Parameter

_WORD = re.compile(r"\S+")


def identical(view: View) -> Hits:
    """Set rejected := chosen on the k pairs with the smallest u."""
    hit = _drawn(view, "replace")
    return replace(hit, texts=[(view.pairs[i].chosen, view.pairs[i].chosen) for i in hit.index.tolist()])


IDENTICAL = Corruption(
    name="identical", function=identical, rate="fixed", changes="text", laws="CN",
    rank="smallest u",
    summary="set rejected := chosen: a pair without information",
    parameters={"mode": MODE},
    severities=by_severity(0.05, 0.1, 0.3),
)  # fmt: skip


def truncate(view: View) -> Hits:
    """Cut the chosen side (or `side`) to its first ceil(fraction * n) words or characters, of k pairs.

    The result is a prefix of the text with its spacing; a text without words stays as it is.
    """
    hit, side = _drawn(view, "truncate"), view.params["side"]
    fraction, words = float(view.params["fraction"]), view.params["unit"] == "words"
    cut = []
    for i in hit.index.tolist():
        chosen, rejected = view.pairs[i].chosen, view.pairs[i].rejected
        cut.append(
            (
                prefix(chosen, fraction, words) if side != "rejected" else chosen,
                prefix(rejected, fraction, words) if side != "chosen" else rejected,
            )
        )
    return replace(hit, texts=cut)


TRUNCATE = Corruption(
    name="truncate", function=truncate, rate="fixed", changes="text", laws="CN",
    rank="smallest u",
    summary="cut responses to a fraction of their words: the first ceil(fraction * n), spacing kept",
    parameters={
        "fraction": Parameter(0.5, low=0.0, low_open=True, high=1.0, doc="share of words kept"),
        "side": Parameter("chosen", "choice", choices=("chosen", "rejected", "both"), doc="which responses"),
        "unit": Parameter("words", "choice", choices=("words", "characters"), doc="unit of the cut"),
        "eos": Parameter("reappended", "choice", choices=("reappended",), doc="the tokenizer always adds it"),
        "mode": MODE,
    },
    neutral=({"fraction": 1},),
    severities=by_severity(0.75, 0.5, 0.25, "fraction"),
)  # fmt: skip


def off_policy(view: View) -> Hits:
    """Replace both responses of k pairs: by another prompt's (mismatched) or by a second generator's.

    Mismatched donors come from one rotation of all eligible pairs, so that no pair gets a response to its own prompt,
    no donor serves twice, and the donor does not depend on the rate. Raises InputError where more than half of the
    pairs share a prompt, which leaves no such rotation.
    """
    hit = _drawn(view, "replace")
    index = hit.index.tolist()
    if view.params["form"] == "generator":
        chosen, rejected = texts(view, "generator_chosen"), texts(view, "generator_rejected")
        # The facts are in the clean orientation; a flipped pair gets the second generator's pair flipped as well.
        sides = [(chosen[i], rejected[i]) if view.label[i] > 0 else (rejected[i], chosen[i]) for i in index]
        return replace(hit, texts=[(a or "", b or "") for a, b in sides])
    donor = _donors(view) if index else {}
    return replace(hit, texts=[(view.pairs[donor[i]].chosen, view.pairs[donor[i]].rejected) for i in index])


def _donors(view: View) -> dict[int, int]:
    """Position of each eligible pair -> position of the pair whose responses it may get."""
    prompts = [name or "" for name in texts(view, "prompt_id")]
    among = np.flatnonzero(view.eligible)
    sizes = Counter(prompts[i] for i in among.tolist())
    largest, n = max(sizes.values()), len(among)
    if 2 * largest > n:
        raise InputError(
            f"corruption 'off_policy': {largest:,} of {n:,} pairs share one prompt, so their responses cannot all be "
            "exchanged with other prompts'; use form=generator, or data with more prompts"
        )
    names = sorted(sizes)
    by_u = in_order(names, uniforms(view, "prompt", names), np.arange(len(names)))
    rank = {names[i]: r for r, i in enumerate(by_u.tolist())}
    inner = {i: r for r, i in enumerate(in_order(view.ids, uniforms(view, "donor"), among).tolist())}
    ring = sorted(among.tolist(), key=lambda i: (rank[prompts[i]], inner[i]))
    # Pairs of one prompt stand together: a turn by the largest group always leaves the own group.
    return {i: ring[(position + largest) % n] for position, i in enumerate(ring)}


def _off_policy_needs(params: Params) -> tuple[str, ...]:
    return ("generator_chosen", "generator_rejected") if params.get("form") == "generator" else ("prompt_id",)


OFF_POLICY = Corruption(
    name="off_policy", function=off_policy, rate="fixed", changes="text", laws="CN",
    rank="smallest u",
    summary="replace both responses by those of another prompt (form=mismatched) or of another generator "
    "(form=generator: facts generator_chosen, generator_rejected)",
    citation="2404.14367; 2404.10719",
    parameters={
        "form": Parameter(
            "mismatched", "choice", choices=("mismatched", "generator"), doc="of another prompt, or generator"
        ),
        **RATED,
    },
    needs=_off_policy_needs,
    severities=by_severity(0.1, 0.3, 1.0),
)  # fmt: skip


def pointwise_quality(view: View) -> Hits:
    """Degrade the chosen text of k pairs (pointwise noise, 2407.07880); rejected and label stay.

    Operators act on words: `shuffle` orders them at random, `drop` keeps each with probability 1/2 (at least one),
    `repeat` says the first half twice instead of the second half. They are fixed by (seed, id).
    """
    hit, operator = _drawn(view, "replace"), view.params["operator"]
    new = []
    for i in hit.index.tolist():
        words = view.pairs[i].chosen.split()
        draws = _draws(view.seed, view.ids[i], len(words))
        if operator == "shuffle":
            words = [word for _, _, word in sorted(zip(draws, range(len(words)), words, strict=True))]
        elif operator == "drop":
            kept = [word for word, draw in zip(words, draws, strict=True) if draw < 1 << 31]
            words = kept or words[:1]
        else:
            half = words[: (len(words) + 1) // 2]
            words = (half + half)[: len(words)]
        new.append((" ".join(words) if words else view.pairs[i].chosen, view.pairs[i].rejected))
    return replace(hit, texts=new)


def _draws(seed: int, name: str, count: int) -> list[int]:
    """`count` numbers in [0, 2**32), fixed by (seed, name): 16 from each BLAKE2b digest."""
    numbers: list[int] = []
    for block in range((count + 15) // 16):
        text = f"{seed}:pointwise_quality:{block}:{name}".encode("utf-8", "surrogatepass")
        digest = blake2b(text, digest_size=64).digest()
        numbers += [int.from_bytes(digest[at : at + 4], "big") for at in range(0, 64, 4)]
    return numbers[:count]


POINTWISE_QUALITY = Corruption(
    name="pointwise_quality", function=pointwise_quality, rate="fixed", changes="text", laws="CN",
    rank="smallest u",
    summary="degrade the chosen text and keep the label",
    citation="2407.07880",
    parameters={
        "operator": Parameter(
            "shuffle", "choice", choices=("shuffle", "drop", "repeat"), doc="what is done to the words"
        ),
        "mode": MODE,
    },
    severities=by_severity(0.1, 0.2, 0.4),
)  # fmt: skip


def _drawn(view: View, action: str) -> Hits:
    u = uniforms(view)
    return smallest(view, u, action, {"u": u})


def prefix(text: str, fraction: float, words: bool) -> str:
    """The first ceil(fraction * n) >= 1 of the n words (or characters) of `text`, spacing kept."""
    if not words:
        return text[: math.ceil(fraction * len(text))]
    ends = [match.end() for match in _WORD.finditer(text)]
    keep = math.ceil(fraction * len(ends))
    # All words kept: trailing white space is kept too, so that fraction 1 is the identity.
    return text if keep == len(ends) else text[: ends[keep - 1]]


ROWS = (IDENTICAL, TRUNCATE, OFF_POLICY, POINTWISE_QUALITY)
