"""Pairs that say the same: contradictions (same answers, opposite labels) and near-duplicates by MinHash."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from datasketch import MinHash, MinHashLSH

from harness.metrics.records import Bools
from harness.types import PreferencePair

ALIKE = 0.8  # Jaccard similarity of word triples from which texts are near-duplicates
PERMUTATIONS = 64
_WORD = re.compile(r"\w+")


def contradicted(pairs: Sequence[PreferencePair]) -> Bools:
    """Which pairs `(n,)` stand in the set a second time with the opposite label."""
    known = {(pair.prompt, pair.chosen, pair.rejected) for pair in pairs}
    return np.array([(pair.prompt, pair.rejected, pair.chosen) in known for pair in pairs], dtype=bool)


def near_duplicates(pairs: Sequence[PreferencePair]) -> np.ndarray:
    """The place of an earlier pair that each pair `(n,)` nearly repeats, prompt and both answers alike; -1 for none.

    In whatever order the answers stand. Estimated by MinHash over triples of words, so pairs near the bound may fall
    on either side of it.
    """
    index = MinHashLSH(threshold=ALIKE, num_perm=PERMUTATIONS)
    found = np.full(len(pairs), -1, dtype=np.int64)
    hashes: list[MinHash] = []
    for at, pair in enumerate(pairs):
        own = MinHash(num_perm=PERMUTATIONS, seed=1)
        own.update_batch([part.encode("utf-8") for part in _triples(pair)])
        hashes.append(own)
        alike = [int(other) for other in index.query(own) if own.jaccard(hashes[int(other)]) >= ALIKE]
        if alike:
            found[at] = min(alike)
        else:
            index.insert(str(at), own)
    return found


def _triples(pair: PreferencePair) -> set[str]:
    """Triples of words of prompt and answers, each text on its own; the two answers count alike."""
    triples = set()
    for name, text in (("p", pair.prompt), ("a", pair.chosen), ("a", pair.rejected)):
        words = _WORD.findall(text.lower())
        triples |= {f"{name} {' '.join(words[i : i + 3])}" for i in range(max(1, len(words) - 2))}
    return triples
