"""Preference objectives: a torch-free table of rows, each naming one pure function."""

from harness.objectives.registry import OBJECTIVES, Objective, resolve

__all__ = ["OBJECTIVES", "Objective", "resolve"]
