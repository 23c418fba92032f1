"""Reading speed of every form: `python -m tests.benchmarks.bench_formats [--rows N] [--only NAME ...]`.

Each form is read from JSONL, a JSON array and Parquet by a process of its own; rows per CPU second and the peak
resident memory. Exits 1 where a form is read below 20,000 rows a CPU second or beyond 500 MB.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LEAST, MOST = 20_000, 500_000_000
KINDS = ("jsonl", "json", "parquet")
_WORDS = ("lantern", "kettle", "gently", "careful", "question", "answer", "river", "why", "how", "the", "of", "and")


# Texts of the registry's examples, each to become one of usual length that differs from row to row.
TEXTS = ("Where is the key?", "In the drawer.", "Find it yourself.", "My key is gone since Monday.", "Key gone.")


def write(path: Path, name: str, rows: int) -> None:
    """A file of `rows` rows of one form, made of its example with longer texts."""
    from harness.data.formats.registry import FORMATS

    words, example = random.Random(0), json.dumps(list(FORMATS[name].example))
    made: list[Any] = []
    while len(made) < rows:
        grown = example
        for text in TEXTS:
            told = " ".join(words.choices(_WORDS, k=60))
            grown = grown.replace(text, f"{told} {len(made)}{text[-1]}")
        made += json.loads(grown)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(made), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(made))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in made))


def read(path: str, name: str) -> dict[str, Any]:
    """CPU seconds and peak memory of reading one file, in this process."""
    from harness.data.pairs import read_pairs
    from harness.types import DataSpec

    if path.endswith(".parquet"):
        import pyarrow.parquet  # noqa: F401 - its import is no part of a row's cost
    began = time.process_time()
    table = read_pairs(DataSpec(path, format=name))
    seconds = time.process_time() - began
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return {
        "rows": table.rows,
        "pairs": len(table.pairs),
        "rows_per_second": table.rows / seconds,
        "peak_bytes": int(peak.split()[1]) * 1024,
    }


def main() -> int:
    """All forms in all kinds of file, a line each."""
    from harness.data.formats.registry import FORMATS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--only", nargs="*", default=list(FORMATS))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--child", nargs=2)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(read(*asked.child)))
        return 0
    slow = 0
    for name in asked.only:
        for kind in asked.kinds:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"p.{kind}"
                write(path, name, asked.rows)
                command = [sys.executable, "-m", "tests.benchmarks.bench_formats", "--child", str(path), name]
                found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                size = path.stat().st_size
            bad = found["rows_per_second"] < LEAST or found["peak_bytes"] > MOST
            slow += bad
            print(
                f"{name:<22}{kind:<9}{found['rows']:>7} rows {found['pairs']:>7} pairs {size / 1e6:>6.0f} MB "
                f"{found['rows_per_second']:>8.0f} rows/s {found['peak_bytes'] / 1e6:>5.0f} MB peak"
                f"{'  too slow or too large' if bad else ''}",
                flush=True,
            )
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
