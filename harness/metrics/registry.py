"""The table of measures, by name. A row added here applies to every run already on disk: it reads stored records."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.metrics import gradients
from harness.metrics import hidden_similarity as displacement
from harness.metrics import samples as quality
from harness.metrics import targets as target_rows
from harness.metrics.distributions import spreads
from harness.metrics.pair_rows import pairs, rates
from harness.metrics.row import Metric


def _build() -> Mapping[str, Metric]:
    rows = [*rates(), *pairs(), *target_rows.rows(), *displacement.rows(), *gradients.rows()]
    rows += [*quality.rows(), *spreads()]
    table = {row.name: row for row in rows}
    assert len(table) == len(rows), "two measures share a name"
    return MappingProxyType(table)


METRICS: Mapping[str, Metric] = _build()
