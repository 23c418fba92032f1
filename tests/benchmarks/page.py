"""What the pages of the benchmarks share: the machine, tables, and where they are kept."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

from harness.training.timing import gemm_ceiling

FOLDER = Path(__file__).resolve().parents[2] / "reports" / "benchmarks"
CPU_MODEL = Path("/proc/cpuinfo")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    lines = CPU_MODEL.read_text().splitlines() if CPU_MODEL.exists() else []
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return {
        "processor": ", ".join(sorted(models)) or platform.processor(),
        "cores": cores(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "gemm_gflops": round(gemm_ceiling(device) / 1e9, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")},
    }


def taken_on(m: dict[str, Any]) -> str:
    """The machine in a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return (
        f"on {m['processor']}, {m['cores']} cores, {m['device']}; matrix products reach {m['gemm_gflops']} "
        f"GFLOP/s per core; {versions}; load {m['load']} at the start."
    )


def cells(rows: list[list[str]]) -> str:
    """A Markdown table, head first."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])
