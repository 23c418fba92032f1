"""Runs in several processes (`training.shards`): the lone run's numbers, resumed to the bit, or refused by name."""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from harness import api
from harness.cli import run
from harness.config.load import load_sweep
from harness.identity import run_key
from harness.run_names import planned_runs
from harness.signals import Interrupted
from harness.storage.runs import find_run, load_result, read_table
from harness.storage.verify import verify
from harness.sweep import resources
from harness.sweep.engines import THIS_MACHINE, Cluster
from harness.sweep.engines.slurm import _settings
from harness.sweep.estimates import lane_bytes, measured_under, pack_bytes, step_shape, train_flops
from harness.sweep.packing import counts_of, plan_packs, source_of
from harness.sweep.run import SweepOptions, run_sweep
from harness.types import InputError
from harness.worker.shard_group import ShardGroup
from tests.models.families import write as write_model

SPEC = {
    "name": "shards",
    "world": {
        "kind": "mythworld", "misaligned": 0.5, "pairs": 32,
        "pretrain_steps": 6, "pretrain_batch": 8, "sft_steps": 3, "sft_batch": 8,
    },
    # Of pairs, and of a whole batch with a live reference.
    "objectives": [{"name": "dpo", "beta": 0.5}, {"name": "kto", "beta": 0.5}],
    "training": {"steps": 8, "batch_size": 7, "learning_rate": 1e-3, "warmup_steps": 2},
    "evaluation": {"checkpoints": 3, "heldout": 16, "probe": 16, "ood": 8, "samples": 8},
    "device": "cpu",
}  # fmt: skip
QUIET = Console(quiet=True)
INLINE = SweepOptions("inline", 0.0, track=False)
WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "is", "not", "yes", "no", "maybe")


def write(folder: Path, **changes: object) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changes}), encoding="utf-8")
    return path


def of_two(**changes: object) -> dict[str, object]:
    """The spec's training in two processes."""
    return {**SPEC["training"], "shards": 2, **changes}


def tables(sweep: Path) -> dict[str, pd.DataFrame]:
    """Every table of the runs by the rest of their names: run keys differ where shards do."""
    found = sorted(sweep.glob("*/*.parquet"))
    return {f"{path.parent.name[9:]}/{path.name}": pd.DataFrame(read_table(path)) for path in found}


def assert_close(mine: Path, theirs: Path) -> None:
    """Records and samples of two sweeps agree within 1e-5 of a column's largest value."""
    ours, others = tables(mine), tables(theirs)
    assert sorted(ours) == sorted(others) and ours
    for name, other in others.items():
        for column in other:
            own = ours[name][column]
            if other[column].dtype.kind != "f":
                assert own.equals(other[column]), (name, column)
                continue
            values, expected = own.to_numpy(), other[column].to_numpy()
            assert np.array_equal(np.isnan(values), np.isnan(expected)), (name, column)
            apart = np.abs(np.nan_to_num(values - expected)).max(initial=0.0)
            assert apart <= 1e-5 * np.abs(np.nan_to_num(expected)).max(initial=1.0), (name, column, apart)


def assert_same(mine: Path, theirs: Path) -> None:
    """Results and every table are equal bit for bit."""
    assert (mine / "results.csv").read_bytes() == (theirs / "results.csv").read_bytes()
    ours, others = tables(mine), tables(theirs)
    assert list(ours) == list(others) and all(ours[name].equals(others[name]) for name in ours)


# Against the lone run


def test_a_sweep_of_sharded_runs_ends_in_the_report_of_the_lone_ones(tmp_path):
    for shards in (1, 2):
        spec = write(tmp_path, training=of_two(shards=shards))
        out = tmp_path / str(shards)
        assert run(["sweep", str(spec), "--out", str(out), "--workers", "1", "--quiet"]) == 0
        assert (out / "shards" / "report" / "index.html").is_file()
    assert_close(tmp_path / "2" / "shards", tmp_path / "1" / "shards")
    rows = [pd.read_csv(tmp_path / name / "shards" / "results.csv") for name in "12"]
    assert set(rows[1].status) == {"done"} and not set(rows[0].run_key) & set(rows[1].run_key)
    assert np.allclose(rows[0].train_loss_last, rows[1].train_loss_last, rtol=1e-5)
    assert verify(tmp_path / "2" / "shards") == []


def on_data(folder: Path, place: Path, /, **changes: object) -> Path:
    """A spec on pairs of words with a model of ours, adapters and all weights."""
    draw = random.Random(0)

    def words(least: int, most: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, most)))

    rows = [{"prompt": words(3, 5), "chosen": words(2, 6), "rejected": words(2, 6)} for _ in range(40)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    spec = {name: value for name, value in SPEC.items() if name != "world"} | {
        "data": {"path": str(folder / "pairs.jsonl"), "max_length": 40, "max_prompt_length": 24},
        "model": {"path": str(place), "lora": [{"rank": 3, "alpha": 6}, None]},
        "objectives": [{"name": "dpo", "beta": 0.5}],
        "evaluation": {"checkpoints": 3, "heldout": 8, "probe": 8, "samples": 4},
        **changes,
    }
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def assert_sharded_as_alone(folder: Path, place: Path, training: dict[str, object], /, **changes: object) -> None:
    for shards in (1, 2):
        loaded = load_sweep(on_data(folder, place, training={**training, "shards": shards}, **changes))
        assert run_sweep(loaded, folder / str(shards), 1, QUIET, INLINE) == 0
    assert_close(folder / "2" / "shards", folder / "1" / "shards")
    costs = pd.read_csv(folder / "2" / "shards" / "costs.csv").set_index("run_key").flops
    counts = counts_of(loaded.runs, folder / "2" / "cache")
    for planned in planned_runs(loaded.runs):
        assert costs[planned.key] == pytest.approx(train_flops(planned.run, counts[source_of(planned.run)]), rel=0.1)
        table = read_table(find_run(folder / "2" / "shards", planned.key) / "examples.parquet")
        last = table["step"] == training["steps"]
        assert np.abs(table["policy_chosen"] - table["reference_chosen"])[last].max() > 1e-3


def test_adapters_and_whole_models_train_as_in_one_process(tmp_path):
    """Llama with grouped heads; micro-batches of three that two processes share, layers recomputed in the backward."""
    model = write_model("llama", tmp_path / "model")
    settings = {"path": str(model), "lora": [{"rank": 3, "alpha": 6}, None], "gradient_checkpointing": True}
    training = {**SPEC["training"], "steps": 4, "micro_batch": 3}
    assert_sharded_as_alone(tmp_path, model, training, model=settings)


# When a process ends


class Killer:
    """Kills the other process of a group, or signals this one, as often as asked, once `step` updates are done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, times: int = 1, stop: bool = False) -> None:
        self.step, self.times, self.stop = step, times, stop
        self.began: list[int] = []
        self.trainer = ShardGroup.trainer
        monkeypatch.setattr(ShardGroup, "trainer", lambda *given: self.watched(*given))

    def watched(self, group, *given):
        made = self.trainer(group, *given)
        self.began.append(made.run.step)
        return replace(made, train=partial(self.train, group, made))

    def train(self, group, made, until):
        while until is not None and made.run.step < until:  # a step at a time, so that there are checkpoints between
            if made.run.step == self.step and self.times:
                self.times -= 1
                if not self.stop:
                    group.members[0].process.kill()
                else:
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            yield from made.train(made.run.step + 1)
        if until is None:
            yield from made.train(None)


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """The folder of an undisturbed sharded sweep."""
    root = tmp_path_factory.mktemp("calm")
    sweep = load_sweep(write(root, training=of_two(), objectives=SPEC["objectives"][1:]))
    assert run_sweep(sweep, root / "runs", 1, QUIET, SweepOptions("inline", 1e9, track=False)) == 0
    return root / "runs" / "shards"


@pytest.mark.parametrize("stop", [False, True], ids=["killed", "stopped"])
def test_a_disturbed_group_goes_on_to_the_undisturbed_result(calm, tmp_path, monkeypatch, stop):
    """A process killed in mid-run: the run is tried again from its checkpoint. A signal: the next command goes on."""
    killer = Killer(monkeypatch, 6, stop=stop)
    sweep = load_sweep(write(tmp_path, training=of_two(), objectives=SPEC["objectives"][1:]))
    if stop:
        with pytest.raises(Interrupted):
            run_sweep(sweep, tmp_path / "runs", 1, QUIET, INLINE)
    assert run_sweep(sweep, tmp_path / "runs", 1, QUIET, INLINE) == 0
    assert killer.began[0] == 0 and 0 < killer.began[1] <= 6 and len(killer.began) == 2
    assert_same(tmp_path / "runs" / "shards", calm)


def test_a_run_whose_process_is_killed_again_fails_with_a_line_of_its_own(tmp_path, monkeypatch):
    killer = Killer(monkeypatch, 2, times=2)
    sweep = load_sweep(write(tmp_path, training=of_two(), objectives=SPEC["objectives"][:1]))
    assert run_sweep(sweep, tmp_path / "runs", 1, QUIET, SweepOptions("inline", 1e9, track=False)) == 1
    assert killer.began == [0, 0]
    result = load_result(find_run(tmp_path / "runs" / "shards", run_key(sweep.runs[0])))
    assert (result["status"], result["reason"]) == ("failed", "lost")
    assert result["error"] == "process 1 of the run's 2 was killed by SIGKILL (out of memory?)"


# Spec, plan, machines


def test_the_default_leaves_run_keys_as_they_were():
    """The key of the first run of the default sweep as it was before the setting came."""
    path = Path(__file__).parents[2] / "experiments" / "smoke.yaml"
    alone, of_one = load_sweep(path), load_sweep(path, ["training.shards=1"])
    assert [run_key(one) for one in alone.runs] == [run_key(one) for one in of_one.runs]
    assert run_key(alone.runs[0]) == SMOKE_KEY
    assert not {run_key(one) for one in load_sweep(path, ["training.shards=2"]).runs} & {*map(run_key, alone.runs)}


SMOKE_KEY = "b58a00ff2446c031c6a6b02849bd586df56aa38c9ccb7ab58496c4b089831768"


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"objectives": [{"name": "rloo"}]}, "'rloo' is an RLHF run, which trains in one process"),
        ({"objectives": [{"name": "reward_model"}]}, "'reward_model' is a reward model"),
        ({"training": of_two(mode="fast")}, "needs training.mode: strict, not fast"),
        ({"evaluation": {"keep": "best"}}, "expected evaluation.keep: final or none"),
        ({"evaluation": {"gradient_probe": 4}}, "expected evaluation.gradient_probe: 0"),
        ({"device": "cuda:1"}, "device: cuda:1 names one; expected device: cuda"),
        ({"training": of_two(shards=0)}, "0; expected an integer in [1, 1024]"),
    ],
)
def test_what_cannot_be_sharded_is_refused_by_name(tmp_path, changes, fragment):
    with pytest.raises(InputError) as refused:
        load_sweep(write(tmp_path, **{"training": of_two(), **changes}))
    assert any("training.shards: " in line and fragment in line for line in refused.value.problems)


def test_a_model_of_another_layout_is_refused_with_the_spec(tmp_path):
    model = write_model("gpt2", tmp_path / "model")
    with pytest.raises(InputError, match=r"training\.shards: 2 needs a decoder laid out like Llama's .*, not gpt2"):
        load_sweep(on_data(tmp_path, model, training=of_two()))


def test_a_plan_says_how_many_processes_and_refuses_more_than_there_are_gpus(tmp_path, monkeypatch, capsys):
    spec = str(write(tmp_path, training=of_two()))
    assert run(["plan", spec, "--out", str(tmp_path)]) == 0
    assert "processes 2 per run (training.shards)" in capsys.readouterr().out
    monkeypatch.setattr(resources, "_has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,8")
    for device, shards, code in (("cuda", 4, 2), ("auto", 4, 2), ("cuda", 3, 0), ("cpu", 4, 0)):
        assert (
            run(
                [
                    "plan",
                    spec,
                    "--out",
                    str(tmp_path),
                    "--set",
                    f"training.shards={shards}",
                    "--set",
                    f"device={device}",
                ]
            )
            == code
        )
        said = capsys.readouterr().err
        assert ("training.shards: 4 needs as many GPUs" in said and "3 are visible" in said) == (code == 2)
    more = ["--set", "training.shards=4", "--set", "device=cuda", "--engine", "slurm"]
    assert run(["plan", spec, "--out", str(tmp_path), *more]) == 0  # the GPUs are on its nodes


def test_a_worker_has_the_gpus_of_one_group(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 5)
    monkeypatch.setattr(resources, "core_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert resources.gpu_groups("cuda", 2) == ("0,1", "2,3") and resources.gpu_groups("cpu", 2) == ()
    sweep = load_sweep(write(tmp_path, training=of_two(), device="cuda"))
    assert resources.worker_count(sweep, None) == 2
    assert resources.worker_count(load_sweep(write(tmp_path, training=of_two())), None) == 4
    assert _settings(THIS_MACHINE, 1, "cuda", 4)["gpus_per_node"] == 4


def test_a_plan_counts_the_gpus_of_a_run(tmp_path):
    """Eight GPUs take eight runs of one process at a time, four of two, one of five; a run of nine has no place."""
    spec = write(tmp_path, seeds=8, training=of_two(steps=2000))

    def planned(shards: int, gpus: int) -> dict[str, Any]:
        found = api.plan(spec, out=tmp_path, overrides={"training.shards": shards}, engine="slurm", gpus=gpus)
        return found.facts["forecast"]

    alone, of_two_gpus, of_five = planned(1, 8), planned(2, 8), planned(5, 8)
    assert [one["places"] for one in (alone, of_two_gpus, of_five)] == [8, 4, 1]
    # A run's work is shared out over its GPUs, but three of eight stand idle beside a group of five.
    assert alone["hours"] < of_five["hours"] and of_two_gpus["hours"] < of_five["hours"]
    with pytest.raises(
        InputError, match=r"training\.shards: 9 makes a run take 9 GPUs of one machine, and --gpus is 8"
    ):
        planned(9, 8)


def test_seconds_of_earlier_runs_are_those_of_all_their_processes(tmp_path):
    for shards in (1, 2):
        key, folder = str(shards) * 8, tmp_path / str(shards)
        config = {"training": {"steps": 8} if shards == 1 else {"steps": 8, "shards": shards}}
        folder.mkdir()
        plan = {"name": "x", "runs": [{"run_key": key, "name": "a", "config": config}]}
        (folder / "plan.json").write_text(json.dumps(plan))
        (folder / "costs.csv").write_text(f"run_key,seconds,flops\n{key},10,1000\n")
    assert sorted(measured_under(tmp_path).runs) == [(1000.0, 10.0), (1000.0, 20.0)]


def test_a_pack_on_a_cluster_has_a_gpu_for_each_process_or_is_refused():
    assert _settings(Cluster(gpus=2.0), 1, "cuda", 2)["gpus_per_node"] == 2
    with pytest.raises(InputError, match=r"--gpus-per-pack 1: training\.shards: 2 needs as many GPUs for each pack"):
        _settings(Cluster(gpus=1.0), 1, "cuda", 2)


def test_each_process_needs_its_part_of_the_memory(tmp_path):
    alone, shared = (load_sweep(write(tmp_path, training=of_two(shards=n, batch_size=8))).runs[0] for n in (1, 4))
    one, four = step_shape(alone), step_shape(shared)
    assert lane_bytes(four) - lane_bytes(replace(four, trained=0)) == 6 * 4 * one.trained // 4
    gathered = 2 * 4 * one.vocab_size * one.hidden_size  # the embeddings and their gradient, as FSDP needs them
    assert lane_bytes(replace(four, trained=0)) - gathered == lane_bytes(replace(one, trained=0, pairs=2))
    assert pack_bytes(replace(four, frozen=4000), 1) - lane_bytes(four) == 4000
    packs = plan_packs(planned_runs([shared, replace(shared, seed=1)]), 1)
    assert [len(pack.runs) for pack in packs] == [1, 1]
