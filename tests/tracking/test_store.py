"""The store: files complete or absent, damage detected before use, one result per run, one driver per sweep."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.storage import atomic, runs
from harness.storage.arrays import load_arrays, once, save_arrays
from harness.storage.atomic import read_json, write_atomic, write_json
from harness.storage.journal import Journal
from harness.storage.lock import sweep_lock
from harness.storage.runs import RESULT, commit, find_run, load_result, open_run, read_table, write_table
from harness.storage.verify import verify
from harness.types import InputError

KEY = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
COLUMNS = {
    "step": np.repeat(np.array([0, 12], np.int32), 200),
    "id": np.array([f"pair {i % 200}" for i in range(400)], dtype=object),
    "policy_chosen": np.random.default_rng(0).normal(size=400).astype(np.float32),
    "corrupted": np.arange(400) % 5 == 0,
}
ARRAYS = {
    "chosen": np.random.default_rng(1).normal(size=(40, 7)).astype(np.float32),
    "lengths": np.arange(40, dtype=np.int32),
}


class Killed(BaseException):
    """Stands in for a process that dies at this point."""


def flips(data: bytes, count: int, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """`count` copies of `data`, each with one bit flipped."""
    for bit in random.Random(seed).sample(range(8 * len(data)), count):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(changed)


def result(key: str = KEY, accuracy: float = 0.75) -> dict[str, Any]:
    return {
        "run_key": key,
        "status": "done",
        "steps": 12,
        "results": {"ranking_accuracy": accuracy, "kl": None},
        "costs": {"seconds": 0.125, "pack": 0},
        "config": {"objective": {"name": "dpo", "hyperparameters": [["beta", 0.1]]}},
        "name": "dpo b=0.1 s0",
        "t0_ms": 1_700_000_000_000,
    }


def trained(sweep: Path, key: str = KEY) -> Path:
    """A run folder with everything but its result."""
    folder, _ = open_run(sweep, key, "dpo b=0.1 s0")
    journal = Journal(folder / "events.jsonl")
    journal.append({"kind": "metrics", "step": 12, "loss": 0.5})
    journal.close()
    write_table(folder / "examples.parquet", COLUMNS)
    return folder


def finished(sweep: Path, key: str = KEY) -> Path:
    folder = trained(sweep, key)
    commit(folder, result(key))
    return folder


def die_at(monkeypatch: pytest.MonkeyPatch, target: Any, name: str) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(target, name, dead)


# Single files


@pytest.mark.parametrize("point", ["write_synced", "sync_folder"])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        die_at(patch, atomic, point)
        with pytest.raises(Killed):
            write_atomic(path, b"new")
    assert path.read_bytes() == (b"old" if point == "write_synced" else b"new")


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        die_at(patch, Path, "replace")
        with pytest.raises(Killed):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomic(path, b"newer")  # what the dead writer left is in nobody's way
    assert path.read_bytes() == b"newer"


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    save_arrays(tmp_path / "cache" / "a", ARRAYS, {"key": "k"})
    files = [path for path in (*folder.iterdir(), tmp_path / "cache" / "a") if path.is_file()]
    assert len(files) == 4
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "f", {"a": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "f", {"a": float("nan")})
    assert read_json(tmp_path / "f") == {"a": 1.5}


def test_unreadable_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("{")
    for name in ("f", "absent"):
        with pytest.raises(InputError, match=str(tmp_path / name)):
            read_json(tmp_path / name)


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    write_table(tmp_path / "t", COLUMNS)
    back = read_table(tmp_path / "t")
    assert list(back) == list(COLUMNS)
    for name, values in COLUMNS.items():
        assert back[name].dtype == values.dtype
        assert np.array_equal(back[name], values)


# A run's folder


def test_a_committed_run_loads_and_verifies(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    loaded = load_result(folder)
    assert loaded is not None
    assert loaded["results"] == {"ranking_accuracy": 0.75, "kl": None}
    assert loaded["costs"]["attempt"] == 1
    assert set(loaded["files"]) == {"events.jsonl", "examples.parquet"}
    assert verify(folder) == verify(tmp_path) == []
    assert sorted(path.name for path in folder.iterdir()) == ["events.jsonl", "examples.parquet", "result.json"]


def test_a_moved_folder_still_verifies(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    find_run(tmp_path, KEY).rename(tmp_path / "elsewhere" / "renamed")  # type: ignore[union-attr]
    assert verify(tmp_path / "elsewhere") == []


def test_a_run_is_found_by_its_key(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    assert folder.name.startswith(KEY[:8])
    assert find_run(tmp_path, KEY) == folder
    assert find_run(tmp_path, OTHER) is None


def test_a_new_attempt_starts_clean_and_counts(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    (folder / ".events.jsonl.12345678.tmp").write_bytes(b"left by a killed writer")
    again, attempt = open_run(tmp_path, KEY, "dpo b=0.1 s0")
    assert (again, attempt) == (folder, 2)
    assert [path.name for path in folder.iterdir()] == ["attempt"]


@pytest.mark.parametrize(
    ("target", "name"),
    [(runs, "file_sha256"), (runs, "write_synced"), (os, "link"), (runs, "sync_folder")],
    ids=["before hashing", "before writing", "before publishing", "after publishing"],
)
def test_a_kill_in_commit_leaves_a_whole_result_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Any, name: str
) -> None:
    folder = trained(tmp_path)
    with monkeypatch.context() as patch:
        die_at(patch, target, name)
        with pytest.raises(Killed):
            commit(folder, result())
    published = name == "sync_folder"
    assert (load_result(folder) is not None) == published
    if not published:
        assert load_result(finished(tmp_path)) is not None  # the same command makes the run again
    assert verify(tmp_path) == []


def test_of_two_writers_the_later_one_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second writer publishes while the first stands before its own publication."""
    folder = trained(tmp_path)
    link = os.link

    def overtaken(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "link", link)
        (folder / "attempt").write_text("1")
        commit(folder, result(accuracy=0.25))
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    commit(folder, result(accuracy=0.75))
    loaded = load_result(folder)
    assert loaded is not None
    assert loaded["results"]["ranking_accuracy"] == 0.25
    assert list(folder.glob(".*.tmp")) == []


# Damage


def test_no_flipped_bit_in_a_result_goes_unseen(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    path = folder / RESULT
    data, whole = path.read_bytes(), load_result(folder)
    for bit, changed in flips(data, 300):
        path.write_bytes(changed)
        assert load_result(folder) in (None, whole), bit
        if not path.exists():  # put aside under another name, so that the run is made again
            aside = list(folder.glob(f"{RESULT}.corrupt-*"))
            assert [file.read_bytes() for file in aside] == [changed]
            aside[0].unlink()
    path.write_bytes(data)
    assert load_result(folder) == whole


@pytest.mark.parametrize("kept", [0, 1, 0.5, 0.99])
def test_a_cut_result_is_no_result(tmp_path: Path, kept: float) -> None:
    path = finished(tmp_path) / RESULT
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept != 1 else 1])
    assert load_result(path.parent) is None


@pytest.mark.parametrize("name", ["events.jsonl", "examples.parquet"])
def test_verify_names_every_flipped_file(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path)
    finished(tmp_path, OTHER)
    data = (folder / name).read_bytes()
    for _, changed in flips(data, 60):
        (folder / name).write_bytes(changed)
        for place in (tmp_path, folder):
            assert verify(place) == [f"{KEY} {name}: does not match its checksum"]
    (folder / name).unlink()
    assert verify(tmp_path) == [f"{KEY} {name}: missing"]


def test_no_flipped_bit_in_a_table_changes_a_value(tmp_path: Path) -> None:
    """Reading alone, without the checksum of the whole file: an error, or the values as they were."""
    path = tmp_path / "t"
    write_table(path, COLUMNS)
    data, refused = path.read_bytes(), 0
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # the footer is covered by `verify` alone
    for bit, changed in flips(data[:pages], 120):
        path.write_bytes(changed + data[pages:])
        try:
            back = read_table(path)
        except (OSError, ValueError):
            refused += 1
            continue
        assert all(np.array_equal(back[name], values) for name, values in COLUMNS.items()), bit
    assert refused > 60


# Arrays kept between runs


def test_arrays_come_back_under_their_key_only(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a", ARRAYS, {"key": "k"})
    back = load_arrays(tmp_path / "a", "k")
    assert back is not None
    assert all(np.array_equal(back[name], values) for name, values in ARRAYS.items())
    assert load_arrays(tmp_path / "absent", "k") is None


def test_two_valid_files_that_change_places_are_refused(tmp_path: Path) -> None:
    for key in "ab":
        save_arrays(tmp_path / key, ARRAYS, {"key": key})
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    assert load_arrays(tmp_path / "a", "a") is None
    assert not (tmp_path / "a").exists()


def test_no_flipped_bit_in_arrays_goes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_arrays(path, ARRAYS, {"key": "k"})
    data, refused = path.read_bytes(), 0
    for bit, changed in flips(data, 300):
        path.write_bytes(changed)
        back = load_arrays(path, "k")
        if back is None:
            refused += 1
        else:
            assert list(back) == list(ARRAYS), bit
            assert all(np.array_equal(back[name], values) for name, values in ARRAYS.items()), bit
    assert refused > 200


def test_of_several_callers_one_builds_and_all_get_it(tmp_path: Path) -> None:
    path, built, got = tmp_path / "cache" / "a", [], []
    begin = threading.Barrier(4)

    def build() -> None:
        built.append(1)
        save_arrays(path, ARRAYS, {"key": "k"})

    def call() -> None:
        begin.wait()
        got.append(once(path, lambda: load_arrays(path, "k"), build))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(built), len(got)) == (1, 4)
    assert all(np.array_equal(arrays["chosen"], ARRAYS["chosen"]) for arrays in got)


def test_a_damaged_cache_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_arrays(path, ARRAYS, {"key": "k"})
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x00")
    back = once(path, lambda: load_arrays(path, "k"), lambda: save_arrays(path, ARRAYS, {"key": "k"}))
    assert np.array_equal(back["chosen"], ARRAYS["chosen"])


# One starter a sweep

HOLD = """
import sys, time
from pathlib import Path
from harness.storage.lock import sweep_lock
with sweep_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_starter_is_told_who_holds_the_sweep_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid} "), sweep_lock(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    with sweep_lock(tmp_path):
        pass
    with sweep_lock(tmp_path):  # and one that ended holds nothing either
        pass
