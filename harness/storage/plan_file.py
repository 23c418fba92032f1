"""`plan.json` of a sweep folder, read and checked in one place. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.types import TEXTS, InputError

PLAN = "plan.json"
PRIVATE = "private.html"  # in the report's folder: the page that quotes pairs of `data`


def read_plan_file(folder: Path) -> dict[str, Any]:
    """The plan as plain data: `name`, `question`, `notes`, `runs` of `{run_key, name, config}`, at least one.

    Raises InputError naming the file where there is none, or it is no plan.
    """
    path = folder / PLAN
    if not path.is_file():
        raise InputError(f"{folder}: no {PLAN} here; expected the folder of a sweep, such as runs/quick")
    again = "run the sweep's command again to rewrite it"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); {again}") from None
    why = _problem(plan)
    if why:
        raise InputError(f"{path}: not a plan ({why}); {again}")
    return dict(plan)


def uploaded(report: Path, texts: bool) -> list[Path]:
    """The files of a report's folder that a tracking server gets: `PRIVATE` only where `texts` were asked for."""
    files = sorted(path for path in report.rglob("*") if path.is_file())
    return [path for path in files if texts or path.name != PRIVATE]


def _problem(plan: Any) -> str:
    """What keeps `plan` from being one; empty where nothing does."""
    if not isinstance(plan, Mapping) or not isinstance(plan.get("name"), str):
        return "no mapping with a name"
    runs = plan.get("runs")
    if not isinstance(runs, list) or not runs:
        return "it has no runs"
    for number, run in enumerate(runs):
        if not isinstance(run, Mapping) or not re.fullmatch(r"[0-9A-Za-z]{1,64}", str(run.get("run_key"))):
            return f"run {number} has no run_key of letters and digits"
        if not isinstance(run.get("name"), str) or not isinstance(run.get("config"), Mapping):
            return f"run {number} has no name or no config"
    report = plan.get("report", {})
    if not isinstance(report, Mapping) or report.get("texts", "") not in ("", *TEXTS):
        return f"report.texts is none of {', '.join(TEXTS)}"
    return ""
