"""`nox -s faults`: every campaign, its counts, and exit code 1 where anything was lost, made twice or wrong."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", HF_HUB_OFFLINE="1")
os.environ.pop("MLFLOW_TRACKING_URI", None)

from tests.faults.campaigns import CAMPAIGNS, ground


def main() -> int:
    """Run the campaigns named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("campaigns", nargs="*", help=f"of {', '.join(CAMPAIGNS)}; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of faults")
    parser.add_argument("--selection", action="store_true", help="the few faults of every test run")
    given = parser.parse_args()
    unknown = set(given.campaigns) - set(CAMPAIGNS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected some of {', '.join(CAMPAIGNS)}")
    failed = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harness-faults-") as folder:
        on = ground(Path(folder))
        print(f"undisturbed: {on.seconds:.1f} s of one core", flush=True)
        print(f"{'campaign':<15}{'injected':>9}{'lost':>6}{'twice':>7}{'wrong':>7}{'seconds':>9}  note", flush=True)
        for name in given.campaigns or CAMPAIGNS:
            campaign, full, selected = CAMPAIGNS[name]
            count = selected if given.selection else max(round(given.scale * full), 1)
            if not count:
                continue
            since = time.monotonic()
            tally = campaign(on, count, given.seed)
            spent = time.monotonic() - since
            counts = f"{tally.injected:>9}{tally.lost:>6}{tally.duplicated:>7}{len(tally.wrong):>7}{spent:>9.0f}"
            print(f"{name:<15}{counts}  {tally.note}", flush=True)
            for line in tally.wrong[:10]:
                print(f"    {line}", flush=True)
            failed += not tally.held
    print(f"{time.monotonic() - began:.0f} s in all; {'everything held' if not failed else f'{failed} did not hold'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
