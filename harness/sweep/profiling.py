"""`harness sweep --profile`: where the time of a sweep went, as measured by its packs and its driver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.storage.atomic import write_json
from harness.worker.protocol import PackProfile

FILE = "profile.json"
# Parts of a worker's time in the order of a run; `head` is a part of `forward`, the rest adds up.
PARTS = ("preparation", "forward", "head", "backward", "optimizer", "evaluation", "sampling", "records", "I/O")


@dataclass
class Profile:
    """Sums over packs (`seconds` by part, training flops), and the seconds that the driver spent in tracking."""

    on: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    ceiling: float = 0.0  # flops per second of the machine's matrix products, the best that a pack measured
    packs: int = 0
    tracking: float = 0.0

    def add(self, pack: PackProfile) -> None:
        """Add what one pack measured."""
        for name, value in pack.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        self.flops += pack.flops
        self.ceiling = max(self.ceiling, pack.gemm)
        self.packs += 1

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Add the time of the block to tracking."""
        began = time.process_time()
        try:
            yield
        finally:
            self.tracking += time.process_time() - began

    def result(self) -> dict[str, Any]:
        """What `profile.json` holds. Seconds are summed over workers; tracking is the driver's and runs beside them.

        On a CPU they are CPU seconds: waiting for a disk or for a core is not in them.
        """
        trained = sum(self.seconds.get(name, 0.0) for name in ("forward", "backward", "optimizer"))
        speed = self.flops / trained if trained else 0.0
        return {
            "packs": self.packs,
            "seconds": {name: self.seconds.get(name, 0.0) for name in PARTS},
            "tracking_seconds": self.tracking,
            "training_flops": self.flops,
            "flops_per_second": speed,
            "gemm_flops_per_second": self.ceiling,
            "share_of_gemm": speed / self.ceiling if self.ceiling else 0.0,
        }

    def finish(self, folder: Path) -> list[str]:
        """Write `profile.json`; returns a short table, line by line (none where nothing was measured)."""
        if not self.on or not self.packs:
            return []
        result = self.result()
        write_json(folder / FILE, result)
        whole = sum(value for name, value in result["seconds"].items() if name != "head")
        lines = [f"profile  {self.packs} packs, {whole:.1f} s of worker time ({folder / FILE})"]
        for name, value in result["seconds"].items():
            label = "  (head)" if name == "head" else name
            lines.append(f"  {label:<14}{value:8.1f} s {value / whole:6.1%}")
        lines.append(f"  {'tracking':<14}{self.tracking:8.1f} s, in the driver, parallel to the workers")
        speed, best = result["flops_per_second"] / 1e9, self.ceiling / 1e9
        share = f"{result['share_of_gemm']:.0%} of the {best:.0f} that matrix products reach"
        lines.append(f"  training at {speed:.1f} GFLOP/s per worker, {share}")
        return lines
