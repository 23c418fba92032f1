"""Failpoints: `HARNESS_FAULT=<point>:<action>@<nth>` makes the nth arrival at a named point of a file recipe fail.

Actions: `kill` (SIGKILL to this process), `full` (OSError: no space left). Points are around single writes of whole
files, never inside a training step. Without the variable a point costs one lookup in an empty mapping.
"""

from __future__ import annotations

import errno
import os
import re
import signal

from harness.types import InputError

POINTS = (
    *("write.begin", "write.middle", "write.renamed"),
    *("journal.append",),
    *("commit.begin", "commit.published"),
    *("ckpt.begin", "ckpt.middle", "ckpt.manifest", "ckpt.rename", "ckpt.renamed", "ckpt.drop"),
)
ACTIONS = ("kill", "full")


def parse(text: str) -> dict[str, tuple[str, int]]:
    """`{point: (action, nth)}` of the variable's value, entries separated by commas. InputError for anything else."""
    plan: dict[str, tuple[str, int]] = {}
    for entry in filter(None, text.split(",")):
        match = re.fullmatch(r"([a-z.]+):([a-z]+)@([1-9][0-9]*)", entry)
        if match is None or match[1] not in POINTS or match[2] not in ACTIONS:
            raise InputError(
                f"HARNESS_FAULT: '{entry}'; expected <point>:<action>@<nth> with a point of {', '.join(POINTS)} "
                f"and an action of {', '.join(ACTIONS)}"
            )
        plan[match[1]] = (match[2], int(match[3]))
    return plan


_armed = parse(os.environ.get("HARNESS_FAULT", ""))
_hits: dict[str, int] = {}


def failpoint(name: str) -> None:
    """A place where a fault may be injected: raises OSError or ends the process where one is due now."""
    if name not in _armed:
        return
    action, nth = _armed[name]
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] != nth:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.ENOSPC, f"no space left on device (injected at {name})")
