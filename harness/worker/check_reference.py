"""When a worker checks reference and losses before it trains on real pairs; the checks are in `preflight/`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from harness.data.pairs import source
from harness.inputs.encoded import EncodedInputs
from harness.inputs.run_inputs import RunInputs
from harness.preflight.reference import differing
from harness.preflight.row import Reference, stop_at_errors
from harness.preflight.step_zero import closed_forms, live_logps
from harness.types import PreferencePair, RunSpec

CHECKED_PAIRS = 64  # of each side by a preflight: pairs whose log-probs are computed twice
CHECKED_BY_WORKER = 16  # held-out pairs, which every run is measured on; also by a preflight of a large model


def check_reference(run: RunSpec, encoded: EncodedInputs, device: torch.device) -> None:
    """Raises InputError for what must not be trained on. Does nothing for the embedded world."""
    if run.data is None:
        return
    rows = encoded.evals["eval_clean"][:CHECKED_BY_WORKER]
    pairs = encoded.inputs.evals["eval_clean"][:CHECKED_BY_WORKER]
    encoded.pairs.score_rows(rows)
    stored = np.stack([side[rows.start : rows.stop] for side in encoded.pairs.reference], -1)
    reference, place = reference_evidence(encoded.inputs, pairs, stored, device), source(run.data)
    stop_at_errors([*differing(reference, place), *closed_forms(reference, [run.objective], place)])


def reference_evidence(
    inputs: RunInputs, pairs: Sequence[PreferencePair], stored: np.ndarray, device: torch.device
) -> Reference:
    """Pairs with their stored log-probs `(n, 2)`, and those of the reference as training computes them."""
    tokens = [inputs.encode(pair) for pair in pairs]
    live = live_logps(inputs.reference.architecture, inputs.reference.weights, tokens, device)
    lengths = np.array([[len(one.chosen), len(one.rejected)] for one in tokens])
    dtypes = {inputs.architecture.source.dtype if inputs.architecture.source is not None else "float32"}
    file = ""
    if inputs.stored is not None:
        dtypes.add(inputs.stored.dtype)
        file = str(inputs.stored.path)
    dtype = "bfloat16" if "bfloat16" in dtypes else "float32"
    return Reference(tuple(pairs), stored, live, lengths, dtype, file)
