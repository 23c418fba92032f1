"""Packs as core tasks of a Ray cluster, a task a pack: Ray places them, the driver counts what was lost and why.

Ray's own retries are off: a retried generator would begin its messages anew and the driver could not tell which it
has heard. Errors of a task come as its messages and are final; a lost worker, node or object means the task is handed
in again, at most `INFRASTRUCTURE_RETRIES` times. A driver may die: Ray ends its tasks, what was committed stands, and
the same command goes on. Token authentication is on unless the environment says otherwise; no dashboard is started.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.sweep.engines import INFRASTRUCTURE_RETRIES, RUN_OUT, THIS_MACHINE, Cluster, TaskFunction
from harness.sweep.engines.attempts import sweep_up
from harness.sweep.engines.remote_worker import LOOK_SECONDS, STOP_SECONDS, carry_out_far, code, put_up_sign, shared
from harness.sweep.signals import Stop
from harness.types import InputError
from harness.worker.protocol import Event, WorkerConfig, WorkerTask

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0, the default on these two systems: Ray binds to loopback alone
OBJECT_STORE = 100 * 2**20  # bytes, of a Ray started here: messages are small, everything large is a file


@dataclass(frozen=True, slots=True)
class _Live:
    order: WorkerTask
    losses: int


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[WorkerTask],
    settings: WorkerConfig,
    workers: int,  # noqa: ARG001 - Ray has its own count: what is handed in waits for a free place
    stop: Stop,
    *,
    cluster: Cluster = THIS_MACHINE,
) -> Iterator[Event]:
    """Hand in every task at once; messages come as workers send them.

    Once `stop` has heard a signal nothing is begun and workers have `STOP_SECONDS` to come to a boundary. Raises
    InputError where Ray is missing or cannot be reached.
    """
    ray = connect(cluster)
    home = Path(settings.folder).resolve()
    sign, shop = put_up_sign(home), ray.put(shared(settings))
    remote = _remote(ray, cluster, settings.device)
    live: dict[Any, _Live] = {}

    def hand_in(order: WorkerTask, losses: int) -> None:
        live[remote.remote(function, order, shop, str(sign), code())] = _Live(order, losses)

    told = 0.0
    try:
        for order in tasks:
            hand_in(order, 0)
        while live:
            if stop.heard and not told:
                told = time.monotonic()
                sign.unlink(missing_ok=True)
            if told and time.monotonic() - told > STOP_SECONDS:
                return
            ready, _ = ray.wait(list(live), num_returns=1, timeout=LOOK_SECONDS)
            for stream in ready:
                try:
                    message = ray.get(next(stream))
                    if not (told and message.kind == "input"):  # it was begun when the sign had gone
                        yield message
                except StopIteration:
                    del live[stream]
                except ray.exceptions.RayError as error:
                    lost = live.pop(stream)
                    if told:
                        continue
                    final = _final(ray, error, lost)
                    if final is None:
                        hand_in(lost.order, lost.losses + 1)
                    else:
                        yield final
        if not told:
            sweep_up(home)
    finally:
        sign.unlink(missing_ok=True)
        for stream in live:
            ray.cancel(stream, force=True)


def slots(cluster: Cluster) -> int:
    """Packs that the cluster as it is takes at a time."""
    found = connect(cluster).cluster_resources()
    if cluster.gpus or (cluster.gpus is None and found.get("GPU", 0) > 0):
        return max(int(found.get("GPU", 0) / (cluster.gpus or 1)), 1)
    return max(int(found.get("CPU", 1) / cluster.cpus), 1)


def connect(cluster: Cluster) -> Any:
    """The module `ray`, connected; a Ray of this machine's own is started where no address is given."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not cluster.address:
        os.environ.setdefault(LOOPBACK, "0")
        if os.environ["RAY_AUTH_MODE"] == "token" and not _token_set():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # of this Ray alone, gone with it
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray: Ray is not installed; pip install 'preference-harness[cluster]'") from None
    if ray.is_initialized():
        return ray
    common = {"log_to_driver": False, "logging_level": "WARNING", "configure_logging": True}
    try:
        if cluster.address:
            ray.init(address=cluster.address, **common)
        else:
            ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE, **common)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"--address {cluster.address or '(none)'}: cannot join this Ray cluster ({why}); it must run with "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH must be set here as there"
        ) from None
    return ray


def _token_set() -> bool:
    """Whether the user has a token of their own, in the environment or in Ray's default file."""
    named = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return any(name in os.environ for name in named) or (Path.home() / ".ray" / "auth_token").exists()


def _remote(ray: Any, cluster: Cluster, device: str) -> Any:
    """The task of this cluster: one core (or more) a pack, and a GPU or a part of one where the device is a GPU."""
    gpus = cluster.gpus
    if gpus is None:
        there = ray.cluster_resources().get("GPU", 0) > 0
        gpus = 1.0 if device.startswith("cuda") or (device == "auto" and there) else 0.0
    return ray.remote(_carry_out).options(
        num_returns="streaming", num_cpus=cluster.cpus, num_gpus=gpus, max_retries=0, scheduling_strategy="SPREAD"
    )


def _final(ray: Any, error: Exception, lost: _Live) -> Event | None:
    """What to report of a task that Ray gave up, or None where it should be handed in again."""
    number, why = lost.order.number, (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return Event("failed", number, text=f"{RUN_OUT}: {why}")
    broken = isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error, ray.exceptions.TaskCancelledError)
    if broken:  # before the task itself began, e.g. a worker without the harness
        return Event("failed", number, text=str(error))
    if lost.losses >= INFRASTRUCTURE_RETRIES:
        return Event("failed", number, text=f"lost {lost.losses + 1} times on the Ray cluster, the last: {why}")
    return None


def _carry_out(
    function: TaskFunction, order: WorkerTask, shop: WorkerConfig, sign: str, driver_code: str
) -> Iterator[Event]:
    """One order in a worker of Ray, which keeps prepared settings for the next."""
    shop.live.update(_kept(sign))
    yield from carry_out_far(function, order, shop, Path(sign), driver_code)
    _kept(sign).update(shop.live)


@lru_cache(maxsize=1)
def _kept(sign: str) -> dict[str, Any]:  # noqa: ARG001 - another driver, another memory
    return {}
