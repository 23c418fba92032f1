"""Engines: where tasks are carried out. One function each, one row each; a cluster engine is one more.

`run_tasks(function, tasks, settings, workers, stop) -> Iterator[Message]`: every task ends in its own messages or in
one `failed` (or `input`), whatever becomes of the process that holds it. Tasks are idempotent, since their results are
committed once and the later writer loses: an engine may run one twice, on any machine that sees the sweep's folder.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from harness.storage.atomic import is_full
from harness.sweep.signals import Stop
from harness.text import look_up
from harness.types import InputError
from harness.worker.protocol import Event

# A task function: called with (task, settings), yields messages.
TaskFunction = Callable[[Any, Any], Iterator[Event]]
Engine = Callable[[TaskFunction, Sequence[Any], Any, int, Stop], Iterator[Event]]

ENGINES = {
    "process": "harness.sweep.engines.process",  # worker processes, one a core
    "inline": "harness.sweep.engines.inline",  # this process: for debugging, and where nothing may be spawned
    "ray": "harness.sweep.engines.ray",  # a task a pack on a Ray cluster (extra `cluster`)
    "slurm": "harness.sweep.engines.slurm",  # an array job a stage on a Slurm cluster (extra `slurm`)
}
CLUSTERS = ("ray", "slurm")
INFRASTRUCTURE_RETRIES = 5  # of one task whose worker or node was lost; errors of its own are never tried again
RUN_OUT = "memory of the machine gave out"  # how the message of a task begins that a cluster ended for its memory


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster engine finds its machines and what a pack takes of one; none of it moves a number."""

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


def slots(name: str, cluster: Cluster) -> int:
    """How many packs a cluster takes at a time: what a short list of runs is cut for."""
    found: int = import_module(ENGINES[name]).slots(cluster)
    return found


def task_events(function: TaskFunction, task: Any, settings: Any) -> Iterator[Event]:
    """The messages of one task. An error gives one message: it must not end the sweep, but be reported and shown."""
    try:
        yield from function(task, settings)
    except InputError as error:
        yield Event("input", task.number, text=str(error))
    except OSError as error:
        kind = "full" if is_full(error) else "failed"
        yield Event(kind, task.number, text=str(error) if kind == "full" else traceback.format_exc(limit=-8))
    except Exception:
        yield Event("failed", task.number, text=traceback.format_exc(limit=-8))
