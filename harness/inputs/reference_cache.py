"""The cache of reference log-probs: one safetensors file per set of responses under one reference model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from harness.data.rows import TokenisedPair
from harness.identity import content_hash
from harness.inputs.run_inputs import RunInputs
from harness.models.reference_logps import ReferenceTable, pair_keys, score_responses
from harness.storage.arrays import load_arrays, once, save_arrays

# Scores the distinct responses of pairs under the reference of the inputs.
Scorer = Callable[[RunInputs, Sequence[TokenisedPair]], ReferenceTable]

NUMBERS = ("offsets", "values", "pairs", "products")  # the arrays of a table, in the order of its fields


def scorer(cache: Path, device: torch.device) -> Scorer:
    """A scorer that looks in the cache first, by model, pairs of responses and dtype."""

    def score(inputs: RunInputs, pairs: Sequence[TokenisedPair]) -> ReferenceTable:
        chosen, rejected = pair_keys(pairs)
        model = inputs.reference_sha256
        wanted = sorted({*zip(chosen, rejected, strict=True)})
        how = ["ladder 1"] if inputs.ladder else []  # the number goes up when widths change: values move by rounding
        key = content_hash(["reference", model, wanted, "float32", torch.__version__, *how])
        path = cache / "reference" / f"{key[:32]}.safetensors"

        def build() -> dict[str, np.ndarray]:
            table = score_responses(inputs.architecture, inputs.weights, pairs, device, inputs.ladder)
            names = np.frombuffer("".join(table.keys).encode("ascii"), dtype=np.uint8)
            numbers = {name: getattr(table, name) for name in NUMBERS}
            return {"keys": names, **numbers}

        arrays = once(path, lambda: load_arrays(path, key), lambda: save_arrays(path, build(), {"key": key}))
        text = arrays["keys"].tobytes().decode("ascii")
        names = tuple(text[i : i + 32] for i in range(0, len(text), 32))
        return ReferenceTable(names, *(arrays[name] for name in NUMBERS))

    return score
