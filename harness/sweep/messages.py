"""What workers tell the driver: plain values that cross process borders."""

from __future__ import annotations

from dataclasses import dataclass

DONE = ("done", "diverged")  # outcomes of a run that was trained: failed and stopped ones are made again


@dataclass(frozen=True, slots=True)
class Message:
    """`kind`: built (a model stands), step (a pack moved on), done (a run is committed), failed (a run could not be
    trained; `text` says why), input (the data cannot be used: `text` holds the problems, the sweep stops), full (the
    disk is: the sweep stops), profile (where the time of a pack went: `text` is JSON).

    `pack` names the task, `step` of `steps` its progress, `key` the run and `status` its outcome.
    """

    kind: str
    pack: int = -1
    step: int = 0
    steps: int = 0
    key: str = ""
    status: str = ""
    text: str = ""
