"""What driver and workers on other machines agree on: a sign in the sweep's folder, and one version of the code.

The sign is a file that stands while its driver lives and wants the work: a worker that does not see it has no view of
the shared folder; one that sees it go stops at its next boundary. No network is needed for it beyond the file system.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from harness.identity import content_hash, file_sha256
from harness.sweep.engines import TaskFunction, task_events
from harness.sweep.engines.attempts import perform_apart
from harness.sweep.signals import listen
from harness.worker.protocol import Event, WorkerConfig, WorkerTask

LOOK_SECONDS = 0.5
STOP_SECONDS = 25.0  # for workers to come to a boundary; schedulers kill after 30
SIGN = ".driver-"


def put_up_sign(home: Path) -> Path:
    """A new sign in the sweep's folder; workers of a driver that was killed stop, since this one holds the sweep."""
    for old in home.glob(f"{SIGN}*"):
        old.unlink(missing_ok=True)
    sign = home / f"{SIGN}{uuid.uuid4().hex[:12]}"
    sign.touch(mode=0o600)
    return sign


def shared(shop: WorkerConfig) -> WorkerConfig:
    """The shop as other machines need it: absolute places, nothing live."""
    return WorkerConfig(
        str(Path(shop.cache).resolve()),
        str(Path(shop.folder).resolve()),
        shop.device,
        shop.names,
        shop.checkpoint_seconds,
    )


def carry_out_far(
    function: TaskFunction, order: WorkerTask, shop: WorkerConfig, sign: Path, driver_code: str
) -> Iterator[Event]:
    """The messages of one order in a worker process, on whatever machine; `input` where it cannot work there."""
    problem = _problem(Path(shop.folder), sign, driver_code)
    if problem:
        yield Event("input", order.number, text=problem)
        return
    import torch

    torch.set_num_threads(1)
    listen(worker=True)
    done = threading.Event()
    threading.Thread(target=_watch, args=(sign, done), daemon=True).start()
    try:
        yield from task_events(lambda task, own: perform_apart(function, task, own), order, shop)
    finally:
        done.set()


def _problem(home: Path, sign: Path, driver_code: str) -> str:
    host = socket.gethostname()
    if not sign.exists():
        return (
            f"--out {home.parent}: node {host} does not see the driver's files; every node must mount "
            "the same file system under the same path"
        )
    if code() != driver_code:
        return f"node {host} runs a different version of the harness; install the driver's version on it"
    return ""


def _watch(sign: Path, done: threading.Event) -> None:
    """Once the sign is gone, the signal that means stop: at the next boundary, or at once where nothing can be kept."""
    while not done.wait(LOOK_SECONDS):
        if not sign.exists():
            os.kill(os.getpid(), signal.SIGTERM)
            return


@lru_cache(maxsize=1)
def code() -> str:
    """A hash of the harness's own sources."""
    root = Path(__file__).resolve().parents[2]
    return content_hash({str(path.relative_to(root)): file_sha256(path) for path in sorted(root.rglob("*.py"))})[:16]
