"""Running means of what an RL run watches, kept on the device and read at checkpoints only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Tally:
    """Sums `(K,)` and counts by name since the last `read`."""

    lanes: int
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor], lanes: Tensor) -> None:
        """Add one observation `(k,)` of each name for the lanes `lanes` `(k,)`."""
        for name, value in values.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros(self.lanes, dtype=torch.float64, device=value.device)
                self.counts[name] = torch.zeros(self.lanes, dtype=torch.float64, device=value.device)
            self.sums[name].index_add_(0, lanes, value.detach().double())
            self.counts[name].index_add_(0, lanes, torch.ones_like(value, dtype=torch.float64))

    def kept(self, lane: int) -> dict[str, Tensor]:
        """Sum and count `(2,)` by name of one lane, on the CPU, in the order in which names came."""
        both = {name: torch.stack([total[lane], self.counts[name][lane]]) for name, total in self.sums.items()}
        return {name: pair.cpu() for name, pair in both.items() if pair[1] > 0}

    def put(self, lane: int, kept: Mapping[str, Tensor], device: torch.device) -> None:
        """Put what `kept` gave in the place of one lane's sums and counts."""
        for name, pair in kept.items():
            for table, value in ((self.sums, pair[0]), (self.counts, pair[1])):
                if name not in table:
                    table[name] = torch.zeros(self.lanes, dtype=torch.float64, device=device)
                table[name][lane] = value

    def read(self) -> list[dict[str, float]]:
        """The means by lane since the last call, names without a finite one left out; the tally starts anew."""
        out: list[dict[str, float]] = [{} for _ in range(self.lanes)]
        for name, total in self.sums.items():
            means = (total / self.counts[name].clamp(min=1)).tolist()
            for lane, (mean, count) in enumerate(zip(means, self.counts[name].tolist(), strict=True)):
                if count and math.isfinite(mean):
                    out[lane][name] = mean
        self.sums, self.counts = {}, {}
        return out
