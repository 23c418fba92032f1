"""The table of measures, by name. A row added to it applies to every run already on disk: it reads stored records."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.metrics import distributions, gradients, hidden_similarity, pair_measures, samples, targets
from harness.metrics.row import Metric

FAMILIES = (pair_measures, targets, hidden_similarity, gradients, samples, distributions)


def _table() -> Mapping[str, Metric]:
    rows = [row for family in FAMILIES for row in family.ROWS]
    table = {row.name: row for row in rows}
    assert len(table) == len(rows), "two measures share a name"
    return MappingProxyType(table)


METRICS: Mapping[str, Metric] = _table()
