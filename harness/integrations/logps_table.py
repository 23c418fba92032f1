"""The log-prob file: Parquet, one row a pair, split and step, that `harness diagnose --logps` reads.

Columns: `id, prompt_id` (text), `policy_chosen, policy_rejected, reference_chosen, reference_rejected` (nats, summed
over response tokens), `chosen_len, rejected_len` (tokens); here also `gold_margin, split, step, policy`, and whatever
else the user's rows carry.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.metrics.records import Columns
from harness.storage.atomic import write_atomic
from harness.types import InputError


def joined(tables: Sequence[Columns]) -> dict[str, np.ndarray]:
    """The rows of all tables, which have the columns of the first, one table after the other."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def write(path: Path, tables: Sequence[Columns]) -> None:
    """Replace the file at `path` by the rows of `tables`: whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(values) for name, values in joined(tables).items()}), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def read(path: Path) -> dict[str, np.ndarray]:
    """The columns of a log-prob file. Raises InputError naming the file where it is none."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a log-prob file ({error})") from error
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
