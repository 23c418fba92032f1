"""The command line in the tests' own process: a start of Python and torch costs more CPU than a small sweep.

What only processes can show (workers, signals, kills, a closed pipe) starts them itself.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

from harness.cli import run


def harness(*arguments: object) -> CompletedProcess[str]:
    """One command with its exit code and what it printed; packs train in this process unless an engine is named."""
    words = [*map(str, arguments)]
    if words[0] == "sweep" and "--engine" not in words:
        words += ["--engine", "inline"]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run(words)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())
