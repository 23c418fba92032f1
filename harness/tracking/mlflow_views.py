"""views"""

from typing import Any


def write_views(client: Any, experiment: str, plan: Any) -> None:
    """x"""
