"""The table of measures, by name. A row added to it applies to every run already on disk: it reads stored records."""

from __future__ import annotations

from harness.metrics import distributions, gradients, hidden_similarity, pair_measures, safety, samples, targets
from harness.metrics.row import Metric
from harness.plugins import Registry

FAMILIES = (pair_measures, targets, hidden_similarity, gradients, samples, safety, distributions)

METRICS: Registry[Metric] = Registry("metrics", Metric, (row for family in FAMILIES for row in family.ROWS))
