"""What `harness status` prints of a sweep: how many runs are done, diverged, failed or missing. Imports no torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from harness.storage.answer_file import read_answer
from harness.storage.atomic import read_json
from harness.storage.lock import lock_holder
from harness.storage.plan_file import read_plan_file
from harness.storage.runs import load_result, run_folders, run_status
from harness.sweep.progress import PROGRESS
from harness.types import InputError, RunStatus


def read_status(folder: Path) -> dict[str, Any]:
    """Counts by status, the failed runs, the process that is running the sweep, if any, and what its report answers.

    Raises InputError for a folder that holds no sweep.
    """
    plan = read_plan_file(folder)
    folders = run_folders(folder)
    states: dict[str, RunStatus] = {}
    for run in plan["runs"]:
        run_folder = folders.get(run["run_key"][:8])
        states[run["run_key"]] = run_status(load_result(run_folder) if run_folder is not None else None)
    counts = Counter(states.values())
    running = lock_holder(folder)
    return {
        "sweep": plan["name"],
        "folder": str(folder),
        "runs": len(states),
        "states": {state.value: counts.get(state, 0) for state in RunStatus},
        "running": running,
        **({"progress": _progress(folder)} if running else {}),
        "failed": [r["name"] for r in plan["runs"] if states[r["run_key"]] is RunStatus.FAILED],
        "answer": read_answer(folder / "report"),
        "report": str(folder / "report" / "index.html") if (folder / "report" / "index.html").exists() else None,
    }


def _progress(folder: Path) -> list[str]:
    """What the process that runs the sweep says of it: a line on the whole, and one for each pack in training."""
    try:
        stored = read_json(folder / PROGRESS)
    except InputError:  # no such file: it has just begun, or just ended
        return []
    return [stored["line"], *stored["packs"]]
