"""The open log-prob file: what is written is read, what cannot be true is refused by column and row."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.data.rows import response_key, token_key
from harness.storage.logps_file import REQUIRED, read_logps, write_logps
from harness.types import InputError
from tests.diagnose.planted_logps import columns, margins, table, written


def rows(n: int = 6, **more: Any) -> dict[str, Any]:
    return columns(margins(0.5, n), np.ones(n), **more)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    keys = [token_key([1, 2], [3, i], [4]) for i in range(6)]
    given = rows(step=7, policy="a", gold_margin=0.5, category="x", row=3, tokens="") | {"tokens": keys}
    read = read_logps(written(tmp_path / "f.parquet", given, beta=0.2))
    assert read.meta == {"version": 1, "beta": 0.2}
    assert read.slices == ("category",)
    for name, values in given.items():
        assert read.columns[name].tolist() == list(values), name


def test_a_foreign_file_of_the_required_columns_alone_is_enough(tmp_path: Path) -> None:
    given = {name: pa.array(values) for name, values in rows().items() if name in REQUIRED}
    pq.write_table(pa.table(given), tmp_path / "f.parquet")
    read = read_logps(tmp_path / "f.parquet")
    assert set(read.columns["policy"]) == {"policy"}
    assert set(read.columns["split"]) == {"heldout"}
    assert read.columns["step"].tolist() == [-1] * 6


def test_without_a_reference(tmp_path: Path) -> None:
    given = {name: values for name, values in rows().items() if not name.startswith("reference_")}
    assert not read_logps(written(tmp_path / "f.parquet", given)).referenced


def test_keys_are_blake2b_over_lengths_and_ids() -> None:
    raw = b"\x02" + b"\0" * 7 + b"\x01\0\0\0\x02\0\0\0" + b"\x01" + b"\0" * 7 + b"\x03\0\0\0"
    assert response_key([1, 2], [3]) == hashlib.blake2b(raw, digest_size=16).hexdigest()
    assert response_key([1], [2, 3]) != response_key([1, 2], [3])
    assert token_key([1], [2], [3]) == response_key([1], [2]) + response_key([1], [3])


def spoil(name: str, value: Any, at: int = 2) -> dict[str, Any]:
    given = rows()
    values = list(given[name])
    values[at] = value
    return given | {name: values}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({k: v for k, v in rows().items() if k != "prompt_id"}, "no column prompt_id"),
        (spoil("id", "p0"), "stands twice under one policy, step and split in row 3 (id p0)"),
        (spoil("policy_chosen", 0.5), "policy_chosen is above 0 in row 3 (id p2)"),
        (spoil("policy_rejected", float("nan")), "policy_rejected is not a finite number in row 3 (id p2)"),
        (spoil("reference_chosen", float("-inf")), "reference_chosen is not a finite number in row 3"),
        (spoil("chosen_len", 0), "chosen_len is no token count of at least 1 in row 3"),
        (spoil("rejected_len", 2.5), "rejected_len is no token count of at least 1 in row 3"),
        (spoil("policy_chosen", "x"), "column policy_chosen holds something else than numbers"),
        (spoil("prompt_id", None), "column prompt_id: empty in row 3"),
        (rows(step=1.5), "step is no whole number"),
        ({k: [] for k in REQUIRED}, "no rows"),
    ],
)
def test_what_cannot_be_true_is_refused(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        write_logps(tmp_path / "f.parquet", given)
    assert said in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_reference_in_some_rows_is_refused() -> None:
    given = rows()
    for name in ("reference_chosen", "reference_rejected"):
        given[name] = [None, *list(given[name])[1:]]
    with pytest.raises(InputError, match="no reference log-probs in row 1"):
        table(given)


@pytest.mark.parametrize(("name", "value"), [("chosen_len", 21), ("tokens", "0" * 64), ("prompt_id", "other")])
def test_one_pair_scored_on_two_token_sequences_is_refused(name: str, value: Any) -> None:
    both = [rows(policy=policy, tokens="f" * 64) for policy in ("a", "b")]
    both[1][name] = [value, *list(both[1][name])[1:]]
    with pytest.raises(InputError, match="another tokenizer, chat template or length limit"):
        table({key: [*both[0][key], *both[1][key]] for key in both[0]})


def test_no_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_text("no")
    for name, said in (("f.parquet", "no Parquet file"), ("g.parquet", "no such file")):
        with pytest.raises(InputError, match=said):
            read_logps(tmp_path / name)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="version 2 of the log-prob format"):
        read_logps(written(tmp_path / "f.parquet", rows(), version=2))


def test_the_format_needs_numpy_and_pyarrow_alone_and_a_diagnosis_of_a_file_no_torch(tmp_path: Path) -> None:
    written(tmp_path / "f.parquet", rows(30))
    code = """
import sys
import harness.storage.logps_file
heavy = {"torch", "pandas", "scipy", "transformers", "tokenizers", "typer", "jinja2", "matplotlib", "yaml", "filelock"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from harness.cli import run
assert run(["diagnose", "--logps", sys.argv[1], "--beta", "1", "--out", sys.argv[2]]) == 0
assert not {"torch", "transformers", "mlflow"} & set(sys.modules)
"""
    words = [sys.executable, "-c", code, str(tmp_path / "f.parquet"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
