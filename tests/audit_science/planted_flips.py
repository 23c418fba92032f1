"""Audits of a file in which a fifth of the labels was turned round first: the table of real sets in docs/audit.md.

`python -m tests.audit_science.planted_flips DATA FOLDER [OPTION=VALUE ...]` prints one row; options are those of
`harness.audit`, `rate=0.2` how much is turned round. What was wrong before is not known, so the share of planted
flips among the most suspect rows is the least that is wrong there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from harness import audit, corrupt_file
from harness.metrics.statistics.intervals import wilson_ends
from harness.metrics.suspicion import auroc


def main() -> None:
    data, folder = Path(sys.argv[1]), Path(sys.argv[2])
    options: dict[str, Any] = {
        name: yaml.safe_load(value) for name, _, value in (a.partition("=") for a in sys.argv[3:])
    }
    rate, limit, more = options.pop("rate", 0.2), options.pop("limit", 0), {}
    if limit:
        more["data.limit"] = limit
    noisy = folder / f"{data.name.split('.')[0]}-{rate:g}.jsonl"
    if rate:
        corrupt_file(data, noisy, kind="uniform_flip", rate=rate, force=True, overrides=more)
    else:
        corrupt_file(data, noisy, kind="none", force=True, overrides=more)
    start, cpu = time.monotonic(), time.process_time()
    found = audit(noisy, out=folder / f"audit-{noisy.stem}", force=True, **options)
    print(f"{time.monotonic() - start:.0f} s, {time.process_time() - cpu:.0f} CPU s")
    table = found.table
    flipped = set(pq.read_table(noisy.with_suffix(".ledger.parquet"))["out_row"].to_pylist())
    wrong = table["row"].isin(flipped).to_numpy()
    facts = found.facts
    order = np.argsort(-table["suspicion"].to_numpy(), kind="stable")
    print(f"pairs {len(wrong)}, planted {wrong.mean():.3f}")
    print("answer:", found.answer)
    print("AUROC suspicion", round(auroc(table["suspicion"].to_numpy(), wrong), 3), end="; ")
    for name in ("reference", *facts["audited"]["evidence"]):
        print(name, round(auroc(-table[f"{name}_margin"].to_numpy(), wrong), 3), end="; ")
    print("\nshare", facts["estimated_share"], "own planting", facts["planted"]["auroc"])
    for cut in facts["cuts"]:
        true = float(wrong[order[: cut["rows"]]].mean())
        low, high = wilson_ends(true, float(cut["rows"]))
        print(f"cut {cut['share']}: predicted {cut['precision_interval']}, planted {true:.3f} [{low:.3f}, {high:.3f}]")
    if found.rows:
        true = float(wrong[order[: found.rows]].mean())
        low, high = wilson_ends(true, float(found.rows))
        print(f"advised {found.action} {found.rows}: planted among them {true:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
