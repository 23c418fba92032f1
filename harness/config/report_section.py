"""The block `report`: which texts are shown and uploaded. It belongs to the sweep, so no run key depends on it."""

from __future__ import annotations

from collections.abc import Mapping

from harness.config.schema import read_mapping
from harness.config.strict_yaml import Node
from harness.types import TEXTS, Parameter, ReportSpec, default_texts

KEY = "report"
REPORT = {"texts": Parameter(None, "choice", choices=TEXTS), "upload_texts": Parameter(None, "bool")}


def read_report(keys: Mapping[str, Node], private: bool, problems: list[str]) -> ReportSpec:
    """The block, defaults filled in; `private`: some run is on `data`. Appends to `problems`."""
    node = keys.get(KEY)
    given = read_mapping(REPORT, node, KEY, "{texts: ids}", problems) if node is not None else {}
    return ReportSpec(**{"texts": default_texts(private), **(given or {})})
