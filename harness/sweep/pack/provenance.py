"""Where a run's numbers come from: code, versions, data, model, machine. Host and user are never named."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from harness.names import content_hash, run_key
from harness.sweep.pack.material import TrainingSet
from harness.sweep.setting import Setting
from harness.types import RunSpec

PACKAGES = ("preference-harness", "torch", "transformers", "numpy", "pandas", "pyarrow", "safetensors", "mlflow")

TIE_TOL = {"float32": 1e-4, "bfloat16": 0.05}  # nats by which a stored reference and a live policy may differ


def provenance(run: RunSpec, setting: Setting, data: TrainingSet) -> dict[str, Any]:
    """The record of one run: what was computed, from what, by what, on what kind of machine."""
    dtype = run.model.dtype if run.model is not None else "float32"
    return {
        "run_key": run_key(run),
        "code": _code(),
        "data": {
            "pairs": len(data.ids),
            "sha256": content_hash([[p.id, p.prompt, p.chosen, p.rejected] for p in data.pairs]),
            "corrupted": int(data.corrupted.sum()),
            "flipped": int(data.flipped.sum()),
        },
        "reference": {
            "setting": setting.name,
            "sha256": setting.reference_sha256,
            "parameters": len(setting.weights),
        },
        "machine": {
            "python": platform.python_version(),
            "platform": platform.system(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": "cuda" if torch.cuda.is_available() and run.device != "cpu" else "cpu",
            "dtype": dtype,
            "mode": run.training.mode,
            "tie_tol": TIE_TOL[dtype],
        },
        "notes": list(setting.notes),
    }


@lru_cache(maxsize=1)
def _code() -> dict[str, Any]:
    """Package versions, and the commit where the package runs from a git checkout."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    root = Path(__file__).resolve().parents[3]
    commit, dirty = "", False
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return {"versions": versions, "commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    """Output of a git command, or "" where git is not installed or the checkout cannot be read."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
