"""`CORRUPTIONS`: every kind of damage by name, in the order that listings show them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.data.corrupt.kind import Corruption
from harness.data.corrupt.kinds_curation import CURATION
from harness.data.corrupt.kinds_labels import LABELS
from harness.data.corrupt.kinds_rows import ROWS
from harness.data.corrupt.kinds_text import TEXT

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType({row.name: row for row in (*LABELS, *ROWS, *TEXT, *CURATION)})
