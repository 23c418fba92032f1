"""The block `report`: what of texts is shown and uploaded. It belongs to the sweep, not to a run: no run key moves.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config.sections import shown
from harness.config.strict_yaml import Node, plain
from harness.text import suggestion
from harness.types import TEXTS, ReportSpec, default_texts

KEY = "report"
EXPECTED = {"texts": f"one of {', '.join(TEXTS)}", "upload_texts": "true or false"}


def read_report(keys: Mapping[str, Node], private: bool, problems: list[str]) -> ReportSpec:
    """The block with its defaults put in; `private`: some run is on `data`. Appends to `problems`."""
    node = keys.get(KEY)
    given: dict[str, Any] = {"texts": default_texts(private)}
    if node is None:
        return ReportSpec(**given)
    if not isinstance(node.value, dict):
        problems.append(f"{node.where} {KEY}: {shown(plain(node))} is no mapping; expected e.g. `{{texts: ids}}`")
        return ReportSpec(**given)
    for name, child in node.value.items():
        value = plain(child)
        if name not in EXPECTED:
            near = suggestion(name, EXPECTED)
            problems.append(f"{child.where} {KEY}.{name}: unknown key; expected one of {', '.join(EXPECTED)}{near}")
        elif not (value in TEXTS if name == "texts" else isinstance(value, bool)):
            problems.append(f"{child.where} {KEY}.{name}: {shown(value)}; expected {EXPECTED[name]}")
        else:
            given[name] = value
    return ReportSpec(**given)
