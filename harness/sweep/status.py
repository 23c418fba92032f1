"""What stands on disk of a sweep: which runs are done, diverged, failed or still to do. Imports no torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from harness.storage.lock import claimed_by
from harness.storage.plan_file import read_plan_file
from harness.storage.runs import RESULT, load_result


def read_status(folder: Path) -> dict[str, Any]:
    """Counts by status, the runs that are not done, and whether a process is at work on them.

    Raises InputError for a folder that holds no sweep.
    """
    plan = read_plan_file(folder)
    found = {path.parent.name[:8]: path.parent for path in folder.glob(f"*/{RESULT}")}
    states: dict[str, str] = {}
    for run in plan["runs"]:
        place = found.get(run["run_key"][:8])
        result = load_result(place) if place is not None else None
        states[run["run_key"]] = "pending" if result is None else str(result["status"])
    counts = Counter(states.values())
    return {
        "sweep": plan["name"],
        "folder": str(folder),
        "runs": len(states),
        "states": {state: counts.get(state, 0) for state in ("done", "diverged", "failed", "stopped", "pending")},
        "running": claimed_by(folder),
        "failed": [r["name"] for r in plan["runs"] if states[r["run_key"]] == "failed"],
        "report": str(folder / "report" / "index.html") if (folder / "report" / "index.html").exists() else None,
    }
