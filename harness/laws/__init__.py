"""What every row of a registry keeps to, built in or of a plug-in: one pure function per law, one file per registry.

A law takes a row and raises `Broken` where the row does not keep it. `harness check-plugin` and the tests call the same
functions.
"""

from __future__ import annotations


class Broken(Exception):  # noqa: N818 - says what happened
    """A row breaks a law; the text says how."""


def hold(condition: bool, text: str) -> None:
    """Raise Broken with `text` unless the condition holds."""
    if not condition:
        raise Broken(text)
