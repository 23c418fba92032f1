"""What SIGINT, SIGTERM and SIGUSR1 mean: stop at the next boundary where someone looks, at once where nobody does.

A second signal to the driver ends it and its workers at once. Nothing finished is ever lost, whatever ends a process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """The user or the scheduler stopped the command; `code` is its exit code: 130 for Ctrl-C, 143 otherwise."""

    def __init__(self, number: int) -> None:
        self.code = 130 if number == signal.SIGINT else 143
        super().__init__(f"stopped by {signal.Signals(number).name}")


@dataclass(eq=False)
class Stop:
    """A signal handler that remembers the first signal; `soft` while someone looks at `heard` between steps."""

    worker: bool = False
    heard: int = 0
    soft: bool = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Take a signal. Raises Interrupted where nobody would look at `heard`."""
        if self.heard and not self.worker:
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(Interrupted(number).code)
        again, self.heard = bool(self.heard), number
        if not (self.soft or again):
            raise Interrupted(number)

    @contextmanager
    def softly(self, on: bool = True) -> Iterator[None]:
        """A stretch of work that looks at `heard` itself; with `on=False` one inside it that does not."""
        before, self.soft = self.soft, on
        try:
            yield
        finally:
            self.soft = before


def listen(worker: bool = False) -> Stop:
    """The stop handler of this process, installed on the first call. In a thread other than the main: a deaf one."""
    installed = signal.getsignal(signal.SIGTERM)
    if isinstance(installed, Stop):
        return installed
    stop = Stop(worker)
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if not (worker and number == signal.SIGINT):  # Ctrl-C reaches the whole group; the driver decides
                signal.signal(number, stop)
    return stop


@contextmanager
def listening() -> Iterator[Stop]:
    """Listen for one command, and leave the process's handlers as they were (tests call commands in-process)."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stop = listen()
    try:
        yield stop
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def stoppable(command: Callable[[], int]) -> int:
    """The exit code of a command that signals may stop: its own, or 130 or 143."""
    with listening():
        try:
            return command()
        except Interrupted as stop:
            return stop.code
