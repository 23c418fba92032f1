"""Which preference objective survives which noise: `harness sweep` asks, `load` opens what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.frames import Frames

__all__ = ["load"]


def load(folder: Path | str) -> Frames:
    """The tables of a sweep's folder, such as `runs/quick`, for pandas. Raises InputError where it holds no sweep."""
    from harness.frames import open_sweep  # here, so that importing harness stays free of pandas

    return open_sweep(folder)
