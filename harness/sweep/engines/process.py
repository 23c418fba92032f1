"""Worker processes: the driver sends each one task at a time over its own pipe and reads events back.

Processes are spawned (a fork after torch or sqlite have started is unsafe). Each sees one GPU at most, where the
settings name any: the one that fewest workers have. Every worker has a pipe of its own, so a worker that is killed in
the middle of an event cannot leave a lock behind that the others wait for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.signals import Interrupted, Stop, stop_handler
from harness.sweep.engines import POLL_SECONDS, STOP_SECONDS, TaskFunction, task_events
from harness.worker.protocol import Event, Failure, FailureKind, TaskFailed, WorkerConfig

VISIBLE = "CUDA_VISIBLE_DEVICES"
END = "end"  # what a worker sends after the last event of a task


@dataclass(slots=True)
class _Worker:
    process: Any
    pipe: Connection
    task: Any
    gpu: str  # that it sees, as CUDA_VISIBLE_DEVICES names it; empty: as the driver does


def run_tasks(function: TaskFunction, tasks: Sequence[Any], settings: Any, workers: int, stop: Stop) -> Iterator[Event]:
    """Run every task in some worker; events come as they are sent, in order within a task.

    `function` and `settings` are pickled; tasks have a `number`. A worker that dies takes its task with it, reported as
    `TaskFailed`, and is replaced. Closing the generator early kills the workers.

    Once `stop` has received a signal no task is started; workers get SIGTERM and have `STOP_SECONDS` to end theirs.
    """
    waiting = deque(tasks)
    running: list[_Worker] = []
    stopped_at = 0.0
    try:
        while waiting or running:
            if stop.received and not stopped_at:
                waiting.clear()
                stopped_at = time.monotonic()
                for worker in running:
                    worker.process.terminate()
            if stopped_at and (not running or time.monotonic() - stopped_at > STOP_SECONDS):
                return
            while waiting and len(running) < workers:
                running.append(_start(function, settings, waiting.popleft(), _free_gpu(settings, running)))
            by_pipe = {worker.pipe: worker for worker in running}
            for pipe in wait(list(by_pipe), POLL_SECONDS):
                worker = by_pipe[pipe]  # type: ignore[index]
                try:
                    event = worker.pipe.recv()
                except (EOFError, OSError):
                    running.remove(worker)
                    lost = _lost(worker)
                    if not stopped_at:
                        yield lost
                    continue
                if event != END:
                    yield event
                elif waiting:
                    worker.task = waiting.popleft()
                    try:
                        worker.pipe.send(worker.task)
                    except OSError:  # it ended just now: the next round finds its pipe closed
                        continue
                else:
                    running.remove(worker)
                    _kill(worker)
    finally:
        for worker in running:
            _kill(worker)


def _free_gpu(settings: Any, running: Sequence[_Worker]) -> str:
    """The GPU that fewest of the running workers have; empty where the settings name none."""
    gpus = settings.gpus if isinstance(settings, WorkerConfig) else ()
    return min(gpus, key=[worker.gpu for worker in running].count, default="")


def _start(function: TaskFunction, settings: Any, task: Any, gpu: str) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(function, settings, theirs, os.getpid()), daemon=True)
    with _visible(gpu):
        process.start()
    theirs.close()  # the worker's end is open in the worker alone, so its death closes the pipe
    ours.send(task)
    return _Worker(process, ours, task, gpu)


@contextmanager
def _visible(gpu: str) -> Iterator[None]:
    """A process started inside sees this GPU alone; empty: those that this process sees."""
    before = os.environ.get(VISIBLE)
    if gpu:
        os.environ[VISIBLE] = gpu
    try:
        yield
    finally:
        if gpu:
            os.environ.pop(VISIBLE)
        if gpu and before is not None:
            os.environ[VISIBLE] = before


def _kill(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _lost(worker: _Worker) -> TaskFailed:
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode
    why = " (killed: out of memory?)" if code == -signal.SIGKILL else ""
    message = f"worker process ended with exit code {code}{why}"
    return TaskFailed(worker.task.number, Failure(FailureKind.LOST_PROCESS, message))


def _work(function: TaskFunction, settings: Any, pipe: Connection, driver: int) -> None:
    """The main function of a worker process: run tasks until it is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interrupt means
    threading.Thread(target=_exit_with, args=(driver,), daemon=True).start()
    try:
        stop_handler(worker=True)
        while True:
            task = pipe.recv()
            for event in task_events(function, task, settings):
                pipe.send(event)
            pipe.send(END)
    except Interrupted:
        return  # stopped where nothing can be checkpointed: the task starts anew next time


def _exit_with(driver: int) -> None:
    """End this process when the driver is gone: nobody would wait for its results."""
    while os.getppid() == driver:
        time.sleep(POLL_SECONDS)
    os._exit(1)
