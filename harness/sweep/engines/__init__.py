"""Engines: where tasks run. One function each, one row each.

`run_tasks(function, tasks, settings, workers, stop) -> Iterator[Event]`: every task ends in its own events or in one
`TaskFailed`, whatever becomes of its process. Tasks are idempotent, since results are committed once and the later
writer loses: an engine may run one twice, on any machine that sees the sweep's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from harness.signals import Stop
from harness.text import look_up
from harness.types import InputError
from harness.worker.protocol import Event, TaskFailed, failure_of

# A task function: called with (task, settings), yields events.
TaskFunction = Callable[[Any, Any], Iterator[Event]]
Engine = Callable[[TaskFunction, Sequence[Any], Any, int, Stop], Iterator[Event]]

ENGINES = {
    "process": "harness.sweep.engines.process",  # worker processes, one per core
    "inline": "harness.sweep.engines.inline",  # this process: for debugging, and where nothing may be spawned
    "ray": "harness.sweep.engines.ray",  # a task per pack on a Ray cluster (extra `cluster`)
    "slurm": "harness.sweep.engines.slurm",  # an array job per stage on a Slurm cluster (extra `slurm`)
}
CLUSTERS = ("ray", "slurm")
INFRASTRUCTURE_RETRIES = 5  # of a task whose worker or node was lost; errors of the task itself are never retried
STOP_SECONDS = 25.0  # for workers to come to a step boundary; cluster schedulers kill after 30
POLL_SECONDS = 0.5  # how often driver and workers look whether to stop


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster engine finds its machines and what a pack takes of one; none of it changes a number."""

    address: str = ""  # Ray: of the head node, `auto` or host:port; empty starts Ray on this machine
    gpus: float | None = None  # of a pack, a fraction shares one; None: 1 where the device is a GPU and there are any
    cpus: int = 1  # of a pack
    partition: str = ""  # Slurm
    account: str = ""  # Slurm
    minutes: int = 240  # Slurm: the limit of one job
    scheduler: str = "slurm"  # or `local`: submitit's own stand-in, for tests


THIS_MACHINE = Cluster()


def load_engine(name: str, cluster: Cluster = THIS_MACHINE) -> Engine:
    """The engine of a name. Raises InputError for an unknown one."""
    module = import_module(look_up(ENGINES, name, "engine"))
    engine: Engine = partial(module.run_tasks, cluster=cluster) if name in CLUSTERS else module.run_tasks
    return engine


def slots(name: str, cluster: Cluster, shards: int) -> int:
    """How many packs a cluster takes at a time, each in so many processes."""
    count: int = import_module(ENGINES[name]).slots(cluster, shards)
    return count


def gpus_per_pack(cluster: Cluster, shards: int) -> float | None:
    """The GPUs of a pack that were asked for; None: one for each of its processes.

    Raises InputError for fewer than the pack has processes.
    """
    if shards > 1 and cluster.gpus and cluster.gpus < shards:
        raise InputError(
            f"--gpus-per-pack {cluster.gpus:g}: training.shards: {shards} needs as many GPUs for each pack; leave it "
            "out, or expected fewer shards"
        )
    return cluster.gpus


def task_events(function: TaskFunction, task: Any, settings: Any) -> Iterator[Event]:
    """The events of one task. An error becomes a `TaskFailed`: it must not end the sweep, but be reported."""
    try:
        yield from function(task, settings)
    except Exception as error:
        yield TaskFailed(task.number, failure_of(error))
