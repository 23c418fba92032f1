"""Where the time goes: seconds by name (of CPU time on a CPU), and the speed of a machine's matrix products."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Spans:
    """Seconds spent by name. `on` False measures nothing and costs nothing; on a GPU measuring waits for the device."""

    on: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`. Blocks may nest: the inner one's time is in both."""
        if not self.on:
            yield
            return
        began = now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + now() - began

    @contextmanager
    def within(self, module: nn.Module | None, name: str) -> Iterator[None]:
        """Add the time of every forward of `module` inside the block to `name`."""
        if not self.on or module is None:
            yield
            return
        starts: list[float] = []

        def end(*_: object) -> None:
            self.seconds[name] = self.seconds.get(name, 0.0) + now() - starts.pop()

        handles = [
            module.register_forward_pre_hook(lambda *_: starts.append(now())),
            module.register_forward_hook(end),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def now() -> float:
    """CPU seconds of this process, which other load does not stretch; with a GPU those of the wall, once it is done."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def gemm_ceiling(device: torch.device, seconds: float = 0.2) -> float:
    """Flops a second of a matrix product of 1024 x 1024 x 1024 in float32, the best of those that fit in `seconds`."""
    size = 1024
    a, b = (torch.rand(size, size, device=device) for _ in range(2))
    torch.mm(a, b)
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = now()
        torch.mm(a, b)
        fastest = min(fastest, now() - began)
    return 2 * size**3 / fastest
