"""The table of measures, by name. A row added here applies to every run already on disk: it reads stored records."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.measure import displacement, gradients, quality, target_rows
from harness.measure.metric import Metric
from harness.measure.pair_rows import pairs, rates
from harness.measure.spread_rows import spreads


def _build() -> Mapping[str, Metric]:
    rows = [*rates(), *pairs(), *target_rows.rows(), *displacement.rows(), *gradients.rows()]
    rows += [*quality.rows(), *spreads()]
    table = {row.name: row for row in rows}
    assert len(table) == len(rows), "two measures share a name"
    return MappingProxyType(table)


METRICS: Mapping[str, Metric] = _build()
