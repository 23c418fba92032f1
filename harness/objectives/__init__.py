"""Preference objectives: one file per family, each loss followed by its row; importing them loads no torch."""

from harness.objectives.registry import OBJECTIVES, resolve
from harness.objectives.row import Objective

__all__ = ["OBJECTIVES", "Objective", "resolve"]
