"""Engines: where tasks are carried out. One function each, one row each; a cluster engine is one more.

`run_tasks(function, tasks, settings, workers, stop) -> Iterator[Message]`: every task ends in its own messages or in
one `failed` (or `input`), whatever becomes of the process that holds it. Tasks are idempotent, since their results are
committed once and the later writer loses: an engine may run one twice, on any machine that sees the sweep's folder.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

from harness.names import look_up
from harness.sweep.messages import Message
from harness.sweep.stopping import Stop
from harness.types import InputError

# A task function: called with (task, settings), yields messages.
TaskFunction = Callable[[Any, Any], Iterator[Message]]
Engine = Callable[[TaskFunction, Sequence[Any], Any, int, Stop], Iterator[Message]]

ENGINES = {
    "process": "harness.sweep.engines.process",  # worker processes, one a core
    "inline": "harness.sweep.engines.inline",  # this process: for debugging, and where nothing may be spawned
}


def load_engine(name: str) -> Engine:
    """The engine of a name. Raises InputError for an unknown one."""
    module = import_module(look_up(ENGINES, name, "engine"))
    engine: Engine = module.run_tasks
    return engine


def carry_out(function: TaskFunction, task: Any, settings: Any) -> Iterator[Message]:
    """The messages of one task. An error gives one message: it must not end the sweep, but be reported and shown."""
    try:
        yield from function(task, settings)
    except InputError as error:
        yield Message("input", task.number, text=str(error))
    except Exception:
        yield Message("failed", task.number, text=traceback.format_exc(limit=-8))
