"""A pack that broke: cut in halves where memory or its process gave way, given up where it failed by itself."""

from __future__ import annotations

from collections.abc import Sequence

from harness.sweep.engines import RUN_OUT
from harness.sweep.engines.process import LOST
from harness.sweep.packs import PackTask

# Last lines of tracebacks that say that memory gave out.
MEMORY = (
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "MemoryError",
    "numpy._core._exceptions._ArrayMemory",
)


def reason_of(text: str) -> str:
    """`oom`, `lost` (its process ended) or `error`: the kind of a failure, from the message of the pack."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    if last.startswith((*MEMORY, RUN_OUT)) or "CUDA out of memory" in last:
        return "oom"
    return "lost" if last.startswith(LOST) else "error"


def retried(pack: PackTask, text: str, first: int, earlier: Sequence[PackTask]) -> list[PackTask]:
    """The packs to train in place of one that broke, numbered from `first`; none where trying again cannot help.

    Halves, down to single runs, and one more try for a single run whose process was lost. A run's numbers do not depend
    on its pack, so they are as if it had been cut like this from the start.
    """
    reason, size = reason_of(text), len(pack.runs)
    if reason == "error" or not size:
        return []
    if size > 1:
        return [PackTask(first, pack.runs[: size // 2]), PackTask(first + 1, pack.runs[size // 2 :])]
    alone_before = sum(other.runs == pack.runs for other in earlier)
    return [PackTask(first, pack.runs)] if reason == "lost" and alone_before < 2 else []
