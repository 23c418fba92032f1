"""A benchmark metric of two models on the same documents: paired, never as if the two had seen different ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.metrics.statistics import Estimate, newcombe_paired, t_interval

TIE = 1e-6  # nats: two choices scored as far apart as this or less are told apart by rounding alone


def document_values(samples: Sequence[Mapping[str, Any]], metric: str) -> dict[int, float]:
    """A metric by document from lm-eval's samples, e.g. `acc` or `exact_match.strict-match`; finite numbers only.

    Empty where the metric is none of single documents (perplexities of a corpus).
    """
    name, _, rule = metric.partition(".")
    values = {}
    for sample in samples:
        value = sample.get(name)
        if (rule and sample.get("filter") != rule) or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if math.isfinite(value):
            values[int(sample["doc_id"])] = float(value)
    return values


def paired_change(policy: Mapping[int, float], reference: Mapping[int, float]) -> tuple[Estimate, float | None]:
    """policy - reference over the documents both have, with a 95 % interval over documents; share counted by both.

    0/1 values: Newcombe's paired interval (`newcombe_paired`), else the t interval of the differences. It speaks of
    other documents of the same kind, not of other seeds.
    """
    common = sorted(policy.keys() & reference.keys())
    a, b = (np.array([values[i] for i in common], dtype=np.float64) for values in (policy, reference))
    if not common:
        return t_interval(np.zeros(0)), None
    if not set(np.unique([a, b])) <= {0.0, 1.0}:
        return t_interval(a - b), None
    both = float((a * b).mean())
    return newcombe_paired(float(a.mean()), float(b.mean()), both, len(common)), both


def tie_share(samples: Sequence[Mapping[str, Any]]) -> float:
    """Share of documents whose best two choices are scored alike. `acc` then goes by which stands first."""
    ties = 0
    for sample in samples:
        scores = sorted((float(response[0]) for response in sample["filtered_resps"]), reverse=True)
        ties += len(scores) > 1 and scores[0] - scores[1] <= TIE
    return ties / len(samples) if samples else math.nan
