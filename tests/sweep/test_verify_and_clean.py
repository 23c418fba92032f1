"""`verify` names what is not as it was written, `clean` removes what nothing needs and touches nothing else."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import run
from harness.identity import plain, run_key
from harness.objectives.registry import resolve
from harness.report.data.tables import write_results
from harness.run_names import planned_runs
from harness.storage.atomic import write_json
from harness.storage.checkpoints import save_checkpoint
from harness.storage.lock import sweep_lock
from harness.storage.runs import commit, load_result, open_run, write_table
from harness.sweep.clean import clean
from harness.sweep.rerun import Comparison, compare, run_of
from harness.sweep.scheduler import retried
from harness.sweep.status import read_status
from harness.sweep.verify import check
from harness.types import CorruptionSpec, EvaluationSpec, InputError, RunSpec, TrainingSpec, WorldSpec
from harness.worker.protocol import FailureKind, PackTask

BASE = RunSpec(
    resolve("dpo", {"beta": 2.0}), CorruptionSpec(), TrainingSpec(), EvaluationSpec(), seed=0, world=WorldSpec()
)
RUNS = tuple(replace(BASE, seed=seed) for seed in range(3))
COLUMNS = {"step": [0, 8], "id": ["a", "b"], "policy_chosen": [-1.0, -2.0]}


def results(run: RunSpec, value: float = 0.75, status: str = "done") -> dict:
    return {
        "run_key": run_key(run), "status": status, "steps": 200, "results": {"ranking_accuracy": value},
        "costs": {"seconds": 1.0}, "config": plain(run), "name": f"s{run.seed}", "t0_ms": 1,
    }  # fmt: skip


def finish(sweep: Path, run: RunSpec, value: float = 0.75) -> Path:
    import numpy as np

    folder, _ = open_run(sweep, run_key(run), f"s{run.seed}")
    columns = {n: np.array(v, dtype=object if n == "id" else None) for n, v in COLUMNS.items()}
    write_table(folder / "examples.parquet", columns | {"policy_chosen": np.array([-1.0, -2.0 * value])})
    write_json(folder / "provenance.json", {"code": {"commit": "abc"}, "machine": {"threads": 1}})
    commit(folder, results(run, value))
    return folder


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Two of three runs done, tables written."""
    folder = tmp_path / "runs" / "s"
    folder.mkdir(parents=True)
    runs = [{"run_key": run_key(r), "name": f"s{r.seed}", "config": plain(r)} for r in RUNS]
    write_json(folder / "plan.json", {"name": "s", "question": "", "notes": [], "runs": runs})
    for one in RUNS[:2]:
        finish(folder, one)
    write_results(folder)
    return folder


def test_a_whole_sweep_verifies_and_what_is_left_is_noted(sweep, capsys):
    assert check(sweep) == ([], ["incomplete: 1 of 3 runs have no outcome yet; run the sweep again"])
    assert run(["verify", str(sweep)]) == 0
    assert "ok: all files" in capsys.readouterr().out
    assert read_status(sweep)["states"]["pending"] == 1


def test_every_kind_of_difference_is_a_line_with_run_key_and_file(sweep, capsys):
    first, second = sorted(path.parent for path in sweep.glob("*/result.json"))
    key = json.loads((first / "result.json").read_text())["run_key"]
    (first / "examples.parquet").write_bytes((first / "examples.parquet").read_bytes()[:-5])
    other = json.loads((second / "result.json").read_text())["run_key"]
    (second / "provenance.json").unlink()
    table = sweep / "results.csv"
    table.write_text(table.read_text().replace("0.75", "0.76", 1))
    plan = json.loads((sweep / "plan.json").read_text())
    plan["runs"][2]["config"]["seed"] = 77
    write_json(sweep / "plan.json", plan)
    assert run(["verify", str(sweep)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"{key} examples.parquet: does not match its checksum" in lines
    assert f"{other} provenance.json: missing" in lines
    assert any(
        line.endswith("results.csv: its row differs from its files; harness report rewrites it") for line in lines
    )
    assert any(line.startswith(run_key(RUNS[2])) and "plan.json: its config does not match" in line for line in lines)
    assert run(["report", str(sweep)]) == 0


def test_clean_lists_what_nothing_needs_and_removes_it_only_when_told(sweep, capsys):
    done = next(path.parent for path in sweep.glob("*/result.json"))
    save_checkpoint(done, 4, {"a": b"x"})
    begun, _ = open_run(sweep, run_key(RUNS[2]), "s2")
    save_checkpoint(begun, 4, {"a": b"x"})
    (begun / "ckpt" / "step-9.tmp-0123abcd").mkdir()
    (begun / ".events.jsonl.0123abcd.tmp").write_bytes(b"half")
    (begun / "result.json.corrupt-1700000000000").write_bytes(b"x")
    unused = finish(sweep, replace(BASE, seed=9))
    cache = sweep.parent / "cache" / "models"
    cache.mkdir(parents=True)
    (cache / "a.safetensors").write_bytes(b"kept")
    (cache / "a.safetensors.corrupt-17").write_bytes(b"bad")
    precious = sweep.parent / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (sweep / "89abcdef-link").symlink_to(precious)
    wanted = {
        done / "ckpt", begun / "ckpt" / "step-9.tmp-0123abcd", begun / ".events.jsonl.0123abcd.tmp",
        begun / "result.json.corrupt-1700000000000", unused, cache / "a.safetensors.corrupt-17",
        sweep / "89abcdef-link",
    }  # fmt: skip
    before = sorted(sweep.parent.rglob("*"))
    assert {item.path for item in clean(sweep, remove=False)} == {path.absolute() for path in wanted}
    assert [p for p in sorted(sweep.parent.rglob("*")) if p.name not in (".lock", ".holder")] == before
    assert run(["clean", str(sweep), "--yes"]) == 0
    assert "7 files and folders" in capsys.readouterr().out
    assert not any(os.path.lexists(path) for path in wanted)
    assert (begun / "ckpt" / "step-4" / "a").exists() and (precious / "file").exists()
    assert (cache / "a.safetensors").exists() and check(sweep)[0] == []
    assert run(["clean", str(sweep)]) == 0 and "nothing to remove" in capsys.readouterr().out


def test_clean_refuses_while_a_sweep_under_the_same_folder_runs(sweep):
    """In another process, as locks of one process are its own."""
    import subprocess
    import sys

    code = (
        "import sys, time; from pathlib import Path; from harness.storage.lock import sweep_lock\n"
        "with sweep_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    for held in (sweep, sweep.parent / "other"):
        held.mkdir(exist_ok=True)
        holder = subprocess.Popen([sys.executable, "-c", code, str(held)], stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(InputError, match=f"process {holder.pid} "):
                clean(sweep, remove=True)
        finally:
            holder.kill()
            holder.wait(10)
    with sweep_lock(sweep):
        pass


def test_comparisons_have_a_tier_and_say_what_differs(tmp_path):
    def made(name: str, value: float, shift: float = 0.0) -> tuple[Path, dict]:
        (tmp_path / name).mkdir()
        folder = finish(tmp_path / name, BASE, value)
        loaded = load_result(folder)
        assert loaded is not None
        loaded["results"]["ranking_accuracy"] += shift
        return folder, loaded

    one, two, near, far = made("a", 0.5), made("b", 0.5), made("c", 0.5, 5e-5), made("d", 0.9)
    assert compare(*one, *two) == Comparison("T1", 0.0, ("bitwise equal: every stored value and every result (T1)",))
    close = compare(*one, *near)
    assert close.tier == "T2" and close.largest == pytest.approx(5e-5) and "within tolerance" in close.lines[0]
    write_json(far[0] / "provenance.json", {"code": {"commit": "def"}, "machine": {"threads": 1}})
    apart = compare(*one, *far)
    assert apart.tier == "" and apart.largest == pytest.approx(0.4)
    assert apart.lines == (
        "different",
        "examples.parquet: values differ",
        "ranking_accuracy: 0.5, again 0.9",
        "provenance code.commit: 'abc', again 'def'",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": resolve("kto", {"beta": 0.5}), "replica": 3},
        {"corruption": CorruptionSpec("uniform_flip", 0.25)},
        {"objective": resolve("rloo", {"beta": 0.1}), "reward_model": resolve("reward_model", {})},
    ],
    ids=str,
)
def test_a_run_comes_back_from_its_stored_config(changes):
    one = replace(BASE, **changes)
    assert run_of(json.loads(json.dumps(plain(one)))) == one


def test_a_config_of_another_version_is_refused():
    with pytest.raises(InputError, match="cannot read it"):
        run_of({**plain(BASE), "of_the_future": 1})


def test_packs_are_cut_in_halves_where_that_can_help():
    oom, lost = FailureKind.OUT_OF_MEMORY, FailureKind.LOST_PROCESS
    runs = planned_runs(RUNS)
    pack = PackTask(0, runs, "group")
    for kind in (oom, lost):
        assert retried(pack, kind, 5, [pack]) == [PackTask(5, runs[:1], "group"), PackTask(6, runs[1:], "group")]
    assert retried(pack, FailureKind.ERROR, 5, [pack]) == []
    assert retried(PackTask(0, ()), lost, 5, [pack]) == []
    alone = PackTask(1, runs[:1])
    assert retried(alone, oom, 5, [pack, alone]) == []
    assert retried(alone, lost, 5, [pack, alone]) == [PackTask(5, runs[:1])]
    assert retried(alone, lost, 6, [pack, alone, PackTask(5, runs[:1])]) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "s", "runs": []}', '{"name": "s", "packing": 1, "runs": [5]}'])
def test_a_damaged_plan_is_no_obstacle_to_the_command_that_writes_it_anew(sweep, text):
    from harness.sweep.packing import settle

    fresh = settle(sweep.parent, 1)
    (sweep / "plan.json").write_text(text)
    assert settle(sweep, 1) == fresh
