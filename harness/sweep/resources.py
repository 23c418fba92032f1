"""What this machine gives a sweep: room on its disk, cores, memory of its GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.config.load import SweepSpec
from harness.storage.atomic import is_full
from harness.sweep.estimates import run_bytes
from harness.text import bytes_text
from harness.types import InputError, NoRoom, RunSpec

CGROUP = Path("/sys/fs/cgroup/memory.max")


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Turns the errors of a full disk into one NoRoom with the path, the bytes left and what to do."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        free = shutil.disk_usage(folder).free
        raise NoRoom(
            f"{folder}: no room left to write ({free} bytes free on this disk): {error}",
            "nothing finished is lost; make room, or raise the quota or file-size limit, then run the same command",
        ) from error


def check_free_space(folder: Path, runs: Sequence[RunSpec]) -> None:
    """Raises InputError where the disk has less room than the runs left would take, and a fifth."""
    need, free = int(1.2 * sum(map(run_bytes, runs))), shutil.disk_usage(folder).free
    if free < need:
        raise InputError(
            f"{folder}: {len(runs)} runs need about {bytes_text(need)}, {bytes_text(free)} are free; make room, or "
            "choose another --out"
        )


def worker_count(sweep: SweepSpec, workers: int | None) -> int:
    """One worker per core or visible GPU, or per as many as a run has processes; never more than asked for."""
    if workers is not None:
        if workers < 1:
            raise InputError(f"--workers {workers}: expected at least 1")
        return workers
    device, shards = sweep.runs[0].device, most_shards(sweep.runs)
    if device.startswith("cuda") or (device == "auto" and _has_gpu()):
        return max(len(gpu_groups(device, shards)), 1)
    return max(core_count() // shards, 1)


def most_shards(runs: Iterable[RunSpec]) -> int:
    """Processes of the run that has most of them."""
    return max(run.training.shards for run in runs)


def places_on(runs: Iterable[RunSpec], gpus: int) -> int:
    """Packs that train at a time on so many GPUs: a run has one for each of its processes.

    Raises InputError where the largest run needs more.
    """
    shards = most_shards(runs)
    if gpus < shards:
        raise InputError(
            f"training.shards: {shards} makes a run take {shards} GPUs of one machine, and --gpus is {gpus}; expected "
            "fewer shards, or more GPUs"
        )
    return gpus // shards


def check_shards(runs: Sequence[RunSpec]) -> None:
    """Raises InputError where this machine has GPUs for no process group of the largest run."""
    device, shards = runs[0].device, most_shards(runs)
    if shards == 1 or not (device == "cuda" or (device == "auto" and _has_gpu())):
        return
    if (count := len(visible_gpus(device))) < shards:
        raise InputError(
            f"training.shards: {shards} needs as many GPUs of one machine, a process on each, and {count} are visible; "
            "expected fewer shards, device: cpu, or --engine slurm or ray"
        )


def gpu_groups(device: str, size: int) -> tuple[str, ...]:
    """The visible GPUs in groups of `size`, each as CUDA_VISIBLE_DEVICES would name it."""
    gpus = visible_gpus(device)
    return tuple(",".join(gpus[first : first + size]) for first in range(0, len(gpus) - size + 1, size))


def visible_gpus(device: str) -> tuple[str, ...]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them; none for a CPU or a device by number."""
    if device not in ("auto", "cuda") or not _has_gpu():
        return ()
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()  # without the ids behind one that does not exist
    return tuple(named.split(",")[:count] if named is not None else map(str, range(count)))


def core_count() -> int:
    """Cores that this process may use."""
    return max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 1)


def gpu_memory(device: str) -> int:
    """Free bytes of the GPU that a sweep trains on; 0 where it trains on a CPU."""
    if not (device.startswith("cuda") or (device == "auto" and _has_gpu())):
        return 0
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0


def _has_gpu() -> bool:
    """Whether a CUDA device can be used; torch is imported only where a driver is installed at all."""
    if not (Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")):
        return False
    import torch

    return torch.cuda.is_available()


def memory() -> int:
    """Bytes of memory that this machine, or the container that this process is in, has in all."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 * 2**30
    limit = CGROUP.read_text().strip() if CGROUP.exists() else "max"
    return physical if limit == "max" else min(physical, int(limit))
