"""`nox -s faults`: every campaign, its counts, and exit code 1 where anything was lost, made twice or wrong."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", HF_HUB_OFFLINE="1")
os.environ.pop("MLFLOW_TRACKING_URI", None)

from tests.faults.campaigns import ALONE, CAMPAIGNS, Ground, Tally, ground

Work = tuple[str, int, int]  # a campaign's name, how many faults, the seed


def main() -> int:
    """Run the campaigns named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("campaigns", nargs="*", help=f"of {', '.join(CAMPAIGNS)}; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of faults")
    parser.add_argument("--selection", action="store_true", help="the few faults of every test run")
    parser.add_argument("--jobs", type=int, default=2, help="campaigns at a time; those that time something run alone")
    given = parser.parse_args()
    unknown = set(given.campaigns) - set(CAMPAIGNS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected some of {', '.join(CAMPAIGNS)}")
    work = []
    for name in given.campaigns or CAMPAIGNS:
        _, full, selected = CAMPAIGNS[name]
        count = selected if given.selection else max(round(given.scale * full), 1)
        if count:
            work.append((name, count, given.seed))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harness-faults-") as folder:
        on = ground(Path(folder))
        print(f"undisturbed: {on.seconds:.1f} s of one core", flush=True)
        print(
            f"{'campaign':<15}{'injected':>9}{'lost':>6}{'twice':>7}{'wrong':>7}{'clock':>8}{'core':>7}  note",
            flush=True,
        )
        together = [one for one in work if one[0] not in ALONE]
        tallies = task_events(on, together, given.jobs) + task_events(on, [one for one in work if one[0] in ALONE], 1)
    sums = [sum(getattr(t, n) for t in tallies) for n in ("injected", "lost", "duplicated")]
    wrong, cores = sum(len(t.wrong) for t in tallies), _cores()
    print(f"{'total':<15}{sums[0]:>9}{sums[1]:>6}{sums[2]:>7}{wrong:>7}{time.monotonic() - began:>9.0f}{cores:>8.0f}")
    failed = sum(not tally.held for tally in tallies)
    print(
        f"faults injected {sums[0]}, lost {sums[1]}, made twice {sums[2]}, wrong {wrong}: "
        f"{'everything held' if not failed else f'{failed} campaigns did not hold'}"
    )
    return 1 if failed else 0


def task_events(on: Ground, work: Sequence[Work], jobs: int) -> list[Tally]:
    """Run campaigns in processes of their own, `jobs` at a time in the order given, and print each when it ends."""
    left, running, tallies = list(work), dict[int, tuple[str, float]](), []
    while left or running:
        while left and len(running) < jobs:
            one = left.pop(0)
            running[start(on, one)] = (one[0], time.monotonic())
        child, status, spent = os.wait4(-1, 0)
        name, since = running.pop(child)
        note = on.root / f"{name}.tally"
        if os.waitstatus_to_exitcode(status) == 0:
            tally = Tally(**json.loads(note.read_text()))
        else:
            tally = Tally(wrong=[f"the campaign itself ended with {os.waitstatus_to_exitcode(status)}"])
        counts = f"{tally.injected:>9}{tally.lost:>6}{tally.duplicated:>7}{len(tally.wrong):>7}"
        seconds = f"{time.monotonic() - since:>9.0f}{spent.ru_utime + spent.ru_stime:>8.0f}"
        print(f"{name:<15}{counts}{seconds}  {tally.note}", flush=True)
        for line in tally.wrong[:10]:
            print(f"    {line}", flush=True)
        tallies.append(tally)
    return tallies


def start(on: Ground, one: Work) -> int:
    """Begin a campaign in a forked child, which leaves its tally in a file; returns the process id."""
    name, count, seed = one
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        tally = CAMPAIGNS[name][0](on, count, seed)
        (on.root / f"{name}.tally").write_text(json.dumps(asdict(tally)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _cores() -> float:
    """Processor seconds of this process and of all that it started."""
    usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    sys.exit(main())
