"""Worker processes: each drains tasks from one queue and sends messages back on another.

Processes are spawned (a fork after torch or sqlite have started is unsafe) and single-threaded: two OpenMP threads on
a busy machine can be slower than one.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.sweep.messages import Message
from harness.types import InputError

# A task function: called in the worker with (task, settings), yields messages.
TaskFunction = Callable[[Any, Any], Iterator[Message]]


def run_tasks(function: TaskFunction, tasks: Sequence[Any], settings: Any, workers: int) -> Iterator[Message]:
    """Run every task in some worker; messages come as they are sent, in order within a task.

    `function` and `settings` are pickled by reference and value. A task that raises gives one `failed` message (or
    `input` for an InputError); a worker that dies takes its task with it, reported as `failed`, and is replaced.
    Leaving the generator early stops the workers at once.
    """
    context = multiprocessing.get_context("spawn")
    inbox: Any = context.Queue()
    outbox: Any = context.Queue()
    for number, task in enumerate(tasks):
        inbox.put((number, task))
    live: dict[int, Any] = {}
    running: dict[int, int] = {}  # worker -> task it holds
    left = set(range(len(tasks)))
    serial = 0
    try:
        while left:
            while len(live) < min(workers, len(left)):
                live[serial] = context.Process(
                    target=_drain, args=(serial, function, settings, inbox, outbox, os.getpid()), daemon=True
                )
                live[serial].start()
                serial += 1
            try:
                worker, task, message = outbox.get(timeout=0.2)
            except queue.Empty:
                for number in [n for n, process in live.items() if not process.is_alive()]:
                    process = live.pop(number)
                    held = running.pop(number, None)
                    if held is not None and held in left:
                        left.discard(held)
                        text = f"worker process ended with exit code {process.exitcode} (out of memory?)"
                        yield Message("failed", getattr(tasks[held], "number", held), text=text)
                continue
            if message is None:
                running[worker] = task
            elif message == "end":
                running.pop(worker, None)
                left.discard(task)
            else:
                yield message
    finally:
        for process in live.values():
            process.kill()
        for process in live.values():
            process.join()
        for channel in (inbox, outbox):
            channel.cancel_join_thread()
            channel.close()


def _drain(worker: int, function: TaskFunction, settings: Any, inbox: Any, outbox: Any, parent: int) -> None:
    """A worker's life: take tasks until it is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interrupt means
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    while True:
        number, task = inbox.get()
        outbox.put((worker, number, None))
        try:
            for message in function(task, settings):
                outbox.put((worker, number, message))
        except InputError as error:
            outbox.put((worker, number, Message("input", getattr(task, "number", number), text=str(error))))
        except Exception:
            # Whatever went wrong in one pack must not end the sweep: it is reported and shown, with its traceback.
            text = traceback.format_exc(limit=-8)
            outbox.put((worker, number, Message("failed", getattr(task, "number", number), text=text)))
        outbox.put((worker, number, "end"))


def _die_with(parent: int) -> None:
    """End this process when its parent has gone: an orphan would train on for nobody."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
