"""`harness doctor`: is this machine fit for a sweep? One row a check, each a pure look that says what to do about it.

The harness must be able to say what is wrong where it cannot run, so torch and the rest are imported inside the checks.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedLongEnough
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DISTRIBUTION = "preference-harness"
OK, NOTE, BAD = "ok", "note", "bad"
DISK_GIB = 1.0  # the default sweep writes 140 MB
MEMORY_GIB = 4.0  # two workers, MLflow and the report together stay below
GEMM_SIZE, GEMM_TOLERANCE = 512, 1e-5  # relative error of an fp32 product beside fp64
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "lustre", "beegfs", "gpfs", "ceph"}
HUB_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw: `state` is ok, note (works, worth knowing) or bad (a sweep would fail); `fix` where not ok."""

    state: str
    text: str
    fix: str = ""


def versions(_: Path) -> Finding:
    """The installed packages against the ranges of pyproject.toml."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ()]
    except importlib.metadata.PackageNotFoundError:
        return Finding(NOTE, f"Python {platform.python_version()}; {DISTRIBUTION} is not installed: ranges unknown",
                       "python -m pip install -e . -c constraints.txt")  # fmt: skip
    wrong, shown = [], []
    for need in wanted:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing (needs {need.specifier})")
            continue
        if not need.specifier.contains(found, prereleases=True):
            wrong.append(f"{need.name} {found} (needs {need.specifier})")
        if need.name in ("torch", "transformers", "mlflow", "optuna", "lm-eval"):
            shown.append(f"{need.name} {found}")
    if wrong:
        return Finding(BAD, "; ".join(wrong), "python -m pip install -e . -c constraints.txt")
    return Finding(OK, f"Python {platform.python_version()}, {', '.join(shown)}")


def device(_: Path) -> Finding:
    """What a sweep would train on."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return Finding(OK, f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, CUDA {torch.version.cuda}")
    return Finding(OK, f"CPU ({platform.machine()}), no GPU: fine for the embedded world, slow above 50M parameters")


def cores(_: Path) -> Finding:
    """Processors that this process may use, memory that is free."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{usable} cores, so {usable} workers"
    free = free_memory()
    if free is None:
        return Finding(OK, text)
    text += f"; {free:.1f} GiB of memory free"
    if free < MEMORY_GIB:
        return Finding(NOTE, text, f"less than {MEMORY_GIB:g} GiB: sweep with --workers 1")
    return Finding(OK, text)


def free_memory() -> float | None:
    """GiB that can be had without swapping; None where the system does not say (only Linux does, in /proc)."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    known = dict(line.split(":", 1) for line in lines)
    return int(known["MemAvailable"].split()[0]) / 2**20


def disk(out: Path) -> Finding:
    """Room, permission and kind of file system where runs go."""
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Finding(BAD, f"{place} is not writable", "choose another --out")
    free = shutil.disk_usage(place).free / 2**30
    kind = file_system(place)
    text = f"{free:.1f} GiB free in {place}{f' ({kind})' if kind else ''}"
    if free < DISK_GIB:
        return Finding(
            BAD, text, f"the default sweep and caches need {DISK_GIB:g} GiB: free some, or choose another --out"
        )
    if kind in NETWORK_FILE_SYSTEMS:
        return Finding(NOTE, text, "sqlite is not safe on a network file system: --out on a local disk, or set "
                                   "MLFLOW_TRACKING_URI to a server")  # fmt: skip
    return Finding(OK, text)


def file_system(place: Path) -> str:
    """Type of the file system that holds `place`, as /proc/mounts names it; empty where that cannot be read."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return ""
    above = {str(path) for path in (place.resolve(), *place.resolve().parents)}
    found = [(len(parts[1]), parts[2]) for parts in mounts if parts[1].replace("\\040", " ") in above]
    return max(found, default=(0, ""))[1]


def tracking(out: Path) -> Finding:
    """Where runs are shown, and whether it answers."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return Finding(OK, f"sqlite under {out}; set MLFLOW_TRACKING_URI to use a server")
    parts = urlsplit(uri)
    where = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"  # no user, no password
    from harness.tracking.connection import tracking_problem

    if problem := tracking_problem(uri):
        return Finding(BAD, f"MLFLOW_TRACKING_URI {where}: {problem}", "until then points wait for `harness sync`")
    if parts.scheme not in ("http", "https"):
        return Finding(OK, f"MLFLOW_TRACKING_URI: {where}")
    if reachable(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)):
        return Finding(OK, f"{where} answers")
    return Finding(NOTE, f"{where} does not answer", "sweeps still run; `harness sync` uploads later")


def hub(_: Path) -> Finding:
    """Whether models and data can be fetched by hub id."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Finding(OK, "HF_HUB_OFFLINE is set: cached models and local folders only")
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host = parts.hostname or ""
    if reachable(host, parts.port or 443):
        return Finding(OK, f"{host} answers")
    return Finding(NOTE, f"{host} does not answer", "use local folders and files (model.path, data.path); the embedded "
                                                    "world needs no hub")  # fmt: skip


def reachable(host: str, port: int, seconds: float = HUB_SECONDS) -> bool:
    """Whether a connection opens within `seconds`. Name look-ups have no time limit of their own, so a thread waits."""

    def connect() -> bool:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError:
            return False
        return True

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(connect).result(timeout=seconds)
    except WaitedLongEnough:
        return False
    finally:
        pool.shutdown(wait=False)


def gemm(_: Path) -> Finding:
    """Speed and error of an fp32 matrix product on one thread: what a training step is made of."""
    import torch

    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, generator=draw) for _ in range(2))
    exact = a.double() @ b.double()
    error = float((a @ b - exact).abs().max() / exact.abs().max())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _repeat in range(9):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    rate = 2 * GEMM_SIZE**3 / sorted(times)[len(times) // 2] / 1e9
    text = f"{rate:.0f} GFLOP/s per core in fp32, relative error {error:.0e}"
    if error > GEMM_TOLERANCE:
        return Finding(BAD, text, f"above {GEMM_TOLERANCE:g}: unset torch's reduced-precision settings")
    return Finding(OK, text)


CHECKS: Mapping[str, Callable[[Path], Finding]] = {
    "versions": versions,
    "device": device,
    "cores": cores,
    "gemm": gemm,
    "disk": disk,
    "tracking": tracking,
    "hub": hub,
}


def examine(out: Path, checks: Mapping[str, Callable[[Path], Finding]] = CHECKS) -> dict[str, Finding]:
    """Every check by name. One that breaks is itself a finding: a broken install is what this is for."""
    found = {}
    for name, check in checks.items():
        try:
            found[name] = check(out)
        except (ImportError, OSError, RuntimeError, ValueError) as problem:
            found[name] = Finding(
                BAD, f"{type(problem).__name__}: {problem}", "python -m pip install -e . -c constraints.txt"
            )
    return found


def lines(found: Mapping[str, Finding]) -> Sequence[str]:
    """The findings as text: state, name, what was seen, and what to do."""
    return [f"{f.state:<5} {name:<9} {f.text}{f'; {f.fix}' if f.fix else ''}" for name, f in found.items()]
