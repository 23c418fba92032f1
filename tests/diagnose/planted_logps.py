"""Log-prob files with a planted state: margins in nats, three pairs a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.diagnose.diagnosis import Diagnosis, diagnose
from harness.storage.logps_file import LogpsTable, checked, write_logps

PAIRS, PER_PROMPT, TOKENS = 360, 3, 20


def columns(
    reference: Any, gain: Any, chosen_shift: Any = None, split: str = "heldout", name: str = "p", **more: Any
) -> dict[str, Any]:
    """Rows with these reference margins and gains (n,): the chosen side takes half of a gain, or `chosen_shift`."""
    reference, gain = np.asarray(reference, dtype=float), np.asarray(gain, dtype=float)
    n = len(reference)
    shift = gain / 2 if chosen_shift is None else np.broadcast_to(chosen_shift, n)
    base = np.full(n, -60.0)
    return {
        "id": [f"{name}{i}" for i in range(n)],
        "prompt_id": [f"{name}q{i // PER_PROMPT}" for i in range(n)],
        "policy_chosen": base + shift,
        "policy_rejected": base - reference + shift - gain,
        "reference_chosen": base,
        "reference_rejected": base - reference,
        "chosen_len": [TOKENS] * n,
        "rejected_len": [TOKENS] * n,
        "split": [split] * n,
        **{key: np.broadcast_to(value, n).tolist() for key, value in more.items()},
    }


def margins(wrong: float, n: int = PAIRS, seed: int = 0, size: float = 4.0) -> Any:
    """Reference margins of which a share is below 0, the wrong pairs spread over the prompts."""
    draw = np.random.default_rng(seed)
    sign = np.where(draw.permutation(n) < wrong * n, -1.0, 1.0)
    return sign * draw.uniform(size / 2, size, n)


def joined(*parts: dict[str, Any]) -> dict[str, Any]:
    return {key: [value for part in parts for value in part[key]] for key in parts[0]}


def table(rows: dict[str, Any], **meta: Any) -> LogpsTable:
    return checked(rows, "planted", meta)


def diagnosed(rows: dict[str, Any], beta: float | None = 0.1, **more: Any) -> Diagnosis:
    return diagnose(table(rows), beta, **more)


def written(path: Path, rows: dict[str, Any], **meta: Any) -> Path:
    write_logps(path, rows, meta)
    return path
