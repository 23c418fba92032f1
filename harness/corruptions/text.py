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

from harness.corruptions.select import Hits, in_order, smallest
from harness.corruptions.view import Ints, View, texts, uniforms
from harness.types import InputError

_WORD = re.compile(r"\S+")


def identical(view: View) -> Hits:
    """Set rejected := chosen on the k pairs with the smallest u."""
    found = _drawn(view, "replace")
    return _with_texts(found, [(view.pairs[i].chosen, view.pairs[i].chosen) for i in found.index.tolist()])


def truncate(view: View) -> Hits:
    """Cut the chosen side (or `side`) to its first ceil(fraction * n) words or characters, of k pairs.

    The result is a prefix of the text with its spacing; a text without words stays as it is.
    """
    found, side = _drawn(view, "truncate"), view.params["side"]
    fraction, words = float(view.params["fraction"]), view.params["unit"] == "words"
    cut = []
    for i in found.index.tolist():
        chosen, rejected = view.pairs[i].chosen, view.pairs[i].rejected
        cut.append(
            (
                prefix(chosen, fraction, words) if side != "rejected" else chosen,
                prefix(rejected, fraction, words) if side != "chosen" else rejected,
            )
        )
    return _with_texts(found, cut)


def off_policy(view: View) -> Hits:
    """Replace both responses of k pairs: by another prompt's (mismatched) or by a second generator's.

    Mismatched donors come from one rotation of all eligible pairs, so that no pair gets a response to its own prompt,
    no donor serves twice, and the donor does not depend on the rate. Raises InputError where more than half of the
    pairs share a prompt, which leaves no such rotation.
    """
    found = _drawn(view, "replace")
    index = found.index.tolist()
    if view.params["form"] == "generator":
        chosen, rejected = texts(view, "generator_chosen"), texts(view, "generator_rejected")
        # The facts are in the clean orientation; a flipped pair gets the second generator's pair flipped as well.
        sides = [(chosen[i], rejected[i]) if view.label[i] > 0 else (rejected[i], chosen[i]) for i in index]
        return _with_texts(found, [(a or "", b or "") for a, b in sides])
    donor = _donors(view) if index else {}
    return _with_texts(found, [(view.pairs[donor[i]].chosen, view.pairs[donor[i]].rejected) for i in index])


def pointwise_quality(view: View) -> Hits:
    """Degrade the chosen text of k pairs (pointwise noise, 2407.07880); rejected and label stay.

    Operators act on words: `shuffle` orders them at random, `drop` keeps each with probability 1/2 (at least one),
    `repeat` says the first half twice instead of the second half. They are fixed by (seed, id).
    """
    found, operator = _drawn(view, "replace"), view.params["operator"]
    new = []
    for i in found.index.tolist():
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
    return _with_texts(found, new)


def prefix(text: str, fraction: float, words: bool) -> str:
    """The first ceil(fraction * n) >= 1 of the n words (or characters) of `text`, spacing kept."""
    if not words:
        return text[: math.ceil(fraction * len(text))]
    ends = [match.end() for match in _WORD.finditer(text)]
    keep = math.ceil(fraction * len(ends))
    # All words kept: trailing white space is kept too, so that fraction 1 is the identity.
    return text if keep == len(ends) else text[: ends[keep - 1]]


def _drawn(view: View, action: str) -> Hits:
    u = uniforms(view)
    return smallest(view, u, action, {"u": u})


def _with_texts(found: Hits, new: list[tuple[str, str]]) -> Hits:
    return replace(found, texts=new)


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
    rank = {names[i]: r for r, i in enumerate(_by_u(view, names).tolist())}
    inner = {i: r for r, i in enumerate(in_order(view.ids, uniforms(view, "donor"), among).tolist())}
    ring = sorted(among.tolist(), key=lambda i: (rank[prompts[i]], inner[i]))
    # Pairs of one prompt stand together: a turn by the largest group always leaves the own group.
    return {i: ring[(position + largest) % n] for position, i in enumerate(ring)}


def _by_u(view: View, names: list[str]) -> Ints:
    return in_order(names, uniforms(view, "prompt", names), np.arange(len(names)))


def _draws(seed: int, name: str, count: int) -> list[int]:
    """`count` numbers in [0, 2**32), fixed by (seed, name): 16 from each BLAKE2b digest."""
    numbers: list[int] = []
    for block in range((count + 15) // 16):
        text = f"{seed}:pointwise_quality:{block}:{name}".encode("utf-8", "surrogatepass")
        digest = blake2b(text, digest_size=64).digest()
        numbers += [int.from_bytes(digest[at : at + 4], "big") for at in range(0, 64, 4)]
    return numbers[:count]
