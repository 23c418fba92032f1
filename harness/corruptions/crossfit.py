"""Out-of-fold agreement: how probable each label is under linear models of the other prompts' labels.

What a pair says is the words that only one of its answers has: each by itself, and with every word and every two
neighbouring words of the prompt's end. numpy; scipy on first use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from harness.corruptions.draw import Floats, Ints, View, texts
from harness.identity import uniform
from harness.types import PreferencePair

FOLDS = 5
CONTEXT = 8  # words of the prompt, the last ones
RIDGE = 3e-4
UPDATES = 60  # of L-BFGS, at most
DECIMALS = 6  # of a probability: sums may differ in the last bits from machine to machine
_WORD = re.compile(r"\w+|[^\w\s]")


def agreement(view: View) -> Floats:
    """The probability `(n,)` of each label as it stands now, by models that saw no pair of its prompt.

    1/2 where they know none of its words.
    """
    if not view.n:
        return np.zeros(0)
    order = sorted(range(view.n), key=view.ids.__getitem__)  # the order of the rows shows in no bit
    names = texts(view, "prompt_id")
    prompts = [names[i] or "" for i in order]
    x = _features([view.pairs[i] for i in order])
    fold = _folds(prompts, view.seed)
    margin = np.zeros(view.n)
    for held in range(FOLDS):
        inside = np.flatnonzero(fold == held)
        if 0 < len(inside) < view.n:
            margin[inside] = x[inside] @ _fit(x[np.flatnonzero(fold != held)])
    found = np.empty(view.n)
    found[order] = np.round(1 / (1 + np.exp(-np.clip(margin, -30, 30))), DECIMALS)
    return found


def _folds(prompts: Sequence[str], seed: int) -> Ints:
    """The fold of each pair `(n,)`; all pairs of a prompt are in one."""
    ranked = sorted(set(prompts), key=lambda prompt: (uniform(seed, "crossfit", prompt), prompt))
    of = {prompt: rank % FOLDS for rank, prompt in enumerate(ranked)}
    return np.array([of[prompt] for prompt in prompts], dtype=np.int64)


def _features(pairs: Sequence[PreferencePair]) -> Any:
    """A sparse matrix `(n, F)`: +1 for what the chosen answer has, -1 for the rejected, rows of unit length.

    What only one pair has says nothing of others and is left out.
    """
    from scipy.sparse import csr_matrix

    words: dict[str, int] = {}

    def ids_of(found: Sequence[str]) -> list[int]:
        return [words.setdefault(word, len(words)) for word in dict.fromkeys(found)]

    rows, signs, contexts, answers = [], [], [], []
    for at, pair in enumerate(pairs):
        chosen, rejected = ids_of(_WORD.findall(pair.chosen.lower())), ids_of(_WORD.findall(pair.rejected.lower()))
        both = set(chosen) & set(rejected)
        own = np.array([w for w in (*chosen, *rejected) if w not in both], dtype=np.int64)
        sign = np.array([1.0] * (len(chosen) - len(both)) + [-1.0] * (len(rejected) - len(both)), dtype=np.float32)
        last = _WORD.findall(pair.prompt.lower())[-CONTEXT:]
        context = np.array([-1, *ids_of([*last, *(f"{a} {b}" for a, b in pairwise(last))])], dtype=np.int64)
        rows.append(np.full(len(own) * len(context), at))
        signs.append(np.repeat(sign, len(context)))
        contexts.append(np.tile(context, len(own)))
        answers.append(np.repeat(own, len(context)))
    row, sign = np.concatenate(rows), np.concatenate(signs)
    _, column, count = np.unique(
        (np.concatenate(contexts) + 1) * len(words) + np.concatenate(answers), return_inverse=True, return_counts=True
    )
    kept = count[column] > 1
    size = np.sqrt(np.bincount(row[kept], minlength=len(pairs)))
    values = sign[kept] / size[row[kept]]
    return csr_matrix((values, (row[kept], column[kept])), shape=(len(pairs), len(count)), dtype=np.float64)


def _fit(x: Any) -> Floats:
    """The weights `(F,)` of a logistic regression whose every label is 1, without intercept, slightly shrunk."""
    from scipy.optimize import minimize

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = x @ weights
        value = float(np.logaddexp(0, -margin).mean() + RIDGE / 2 * weights @ weights)
        return value, RIDGE * weights - x.T @ (1 / (1 + np.exp(np.clip(margin, -500, 500)))) / len(margin)

    start = np.zeros(x.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": UPDATES})
    return np.asarray(found.x, dtype=np.float64)
