"""`python -m harness` and the `harness` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code (0 ok, 1 failed or damaged, 2 bad input, 130/143 interrupted)."""
    try:
        from harness.cli import run  # inside: Ctrl-C while importing exits with 130 as well

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
