"""A run stopped at any step and begun again gives the same bits; signals stop honestly; a kept run is whole or not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from harness.config.load import load_sweep
from harness.signals import Interrupted
from harness.storage.checkpoints import load_checkpoints, newest_step, save_checkpoint
from harness.storage.journal import read_journal
from harness.storage.runs import find_run, load_result, read_table
from harness.storage.verify import verify
from harness.sweep.run import SweepOptions, run_sweep
from harness.worker import train_pack

SPEC = {
    "name": "long",
    "world": {
        "kind": "mythworld", "misaligned": 0.5, "pairs": 64,
        "pretrain_steps": 10, "pretrain_batch": 8, "sft_steps": 5, "sft_batch": 8,
    },
    # Three families, one with state of the objective (a running shift), one with state by pair.
    "objectives": [{"name": "dpo", "beta": 0.5}, {"name": "kto", "beta": 0.5}, {"name": "beta_dpo", "beta": 0.5}],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.4}],
    "seeds": 1,
    "training": {"steps": 20, "batch_size": 8},
    "evaluation": {"checkpoints": 4, "heldout": 32, "probe": 32, "ood": 16, "samples": 16, "gradient_probe": 2},
    "device": "cpu",
}  # fmt: skip
QUIET = Console(quiet=True)
INLINE = SweepOptions("inline", 0.0, track=False)


def write(folder: Path, **changes: object) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changes}), encoding="utf-8")
    return path


def wait_for_training(folder: Path, runs: int) -> None:
    """Until so many runs have their first records."""
    until = time.monotonic() + 600
    while sum(b"metrics" in path.read_bytes() for path in folder.glob("*/events.jsonl")) < runs:
        assert time.monotonic() < until
        time.sleep(0.1)


def tables(sweep: Path) -> dict[str, pd.DataFrame]:
    found = sorted(sweep.glob("*/*.parquet"))
    return {f"{path.parent.name}/{path.name}": pd.DataFrame(read_table(path)) for path in found}


def curves(journal: Path) -> dict[tuple[int, str], float]:
    """Every metric point of a run."""
    points = [record for record in read_journal(journal) if record["kind"] == "metrics"]
    return {(point["step"], name): value for point in points for name, value in point.items()}


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """The sweep's folder after one undisturbed command that keeps nothing."""
    root = tmp_path_factory.mktemp("calm")
    assert run_sweep(load_sweep(write(root)), root / "runs", 1, QUIET, SweepOptions("inline", 1e9)) == 0
    return root / "runs" / "long"


class Stopper:
    """Raises the stop flag of a pack once `steps` updates are done, as a signal there would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.began = -1, set[int]()
        whole = train_pack.build_trainer

        def build_trainer(*arguments):
            trainer = whole(*arguments)
            self.began.add(trainer.run.step)
            return replace(trainer, train=partial(self.train, trainer))

        monkeypatch.setattr(train_pack, "build_trainer", build_trainer)

    def train(self, trainer, until):
        if until is None:
            yield from trainer.train(None)
            return
        while trainer.run.step < until:  # a look after every single step
            yield from trainer.train(trainer.run.step + 1)
            if trainer.run.step == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
                return


EVERY = [pytest.param([k], marks=pytest.mark.slow) for k in range(1, 20)]


@pytest.mark.parametrize("moments", [[3, 4, 11, 18], *EVERY], ids=str)
def test_stopped_at_a_step_and_begun_again_every_bit_is_the_same(calm, tmp_path, monkeypatch, moments):
    import shutil

    shutil.copytree(calm.parent / "cache", tmp_path / "runs" / "cache")
    sweep = load_sweep(write(tmp_path))
    stopper = Stopper(monkeypatch)
    for moment in moments:
        stopper.at = moment
        with pytest.raises(Interrupted) as stop:
            run_sweep(sweep, tmp_path / "runs", 1, QUIET, INLINE)
        assert stop.value.code == 143
        rows = pd.read_csv(tmp_path / "runs" / "long" / "results.csv")
        assert "stopped" in set(rows.status) and set(rows.status) <= {"stopped", "pending", "done"}
        assert set(rows[rows.status == "stopped"].steps) == {moment}
    stopper.at = -1
    folder = tmp_path / "runs" / "long"
    assert run_sweep(sweep, tmp_path / "runs", 1, QUIET, INLINE) == 0
    assert (folder / "results.csv").read_bytes() == (calm / "results.csv").read_bytes()
    mine, theirs = tables(folder), tables(calm)
    assert list(mine) == list(theirs) and all(mine[name].equals(theirs[name]) for name in mine)
    assert verify(folder) == [] and not list(folder.glob("*/ckpt"))
    attempts = pd.read_csv(folder / "costs.csv").attempt
    assert attempts.max() >= 1 + len(moments) // 3


ROLLOUTS = {"iterations": 5, "prompts": 4}
RL = [
    {"name": "reward_model", "steps": 5, "stop": "none"},  # with validation labels it begins anew
    {"name": "ppo", "epochs": 2, "minibatches": 2, "beta": 0.5, **ROLLOUTS},
    {
        "name": "reinforce", "baseline": "running", "kl_controller": "adaptive", "kl_target": 0.1, "reward": "gold",
        **ROLLOUTS,
    },
    {"name": "constrained_rlhf", "margin": 0.5, "pairs": 12, "reward": "gold", **ROLLOUTS},
]  # fmt: skip


def test_rl_runs_stopped_and_begun_again_are_the_same_to_the_bit(tmp_path, monkeypatch):
    """And the reward model that one of them learns from: it trains as other runs do."""
    changes = {"name": "rl", "objectives": RL}
    undisturbed, folder = tmp_path / "calm" / "rl", tmp_path / "runs" / "rl"
    sweep = load_sweep(write(tmp_path, **changes))
    assert run_sweep(sweep, undisturbed.parent, 1, QUIET, INLINE) == 0
    stopper = Stopper(monkeypatch)
    for moment in (1, 2, 3, 3, 3):
        stopper.at = moment
        with pytest.raises(Interrupted):
            run_sweep(sweep, folder.parent, 1, QUIET, INLINE)
        rows = pd.read_csv(folder / "results.csv")
        assert set(rows[rows.status == "stopped"].steps) == {moment}
    assert stopper.began == {0, 1, 2, 3}
    stopper.at = -1
    assert run_sweep(sweep, folder.parent, 1, QUIET, INLINE) == 0
    assert (folder / "results.csv").read_bytes() == (undisturbed / "results.csv").read_bytes()
    mine, theirs = tables(folder), tables(undisturbed)
    assert list(mine) == list(theirs) and all(mine[name].equals(theirs[name]) for name in mine)
    assert verify(folder) == [] and not list(folder.glob("*/ckpt"))
    journals = [path.relative_to(undisturbed) for path in undisturbed.glob("*/events.jsonl")]
    assert len(journals) == 4 and all(curves(folder / name) == curves(undisturbed / name) for name in journals)


def test_damaged_checkpoints_are_set_aside_for_older_ones_or_a_fresh_start(calm, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(calm.parent / "cache", tmp_path / "runs" / "cache")
    sweep = load_sweep(write(tmp_path))
    stopper = Stopper(monkeypatch)
    stopper.at = 11
    with pytest.raises(Interrupted):
        run_sweep(sweep, tmp_path / "runs", 1, QUIET, INLINE)
    folder = tmp_path / "runs" / "long"
    kept = sorted(folder.glob("*/ckpt/step-11"))
    assert kept
    for number, victim in enumerate(kept):  # one whole, one flipped, one cut, one without its manifest
        name = ["", "state.safetensors", "records.json", "MANIFEST.json"][(number + 1) % 4]
        if name == "MANIFEST.json":
            (victim / name).unlink()
        elif name:
            data = bytearray((victim / name).read_bytes())
            data[len(data) // 2] ^= 4
            (victim / name).write_bytes(bytes(data))
    stopper.at = -1
    assert run_sweep(sweep, tmp_path / "runs", 1, QUIET, INLINE) == 0
    assert (folder / "results.csv").read_bytes() == (calm / "results.csv").read_bytes()


def test_a_run_alone_from_nothing_gives_the_bits_that_it_gave_in_its_pack(calm):
    """`verify --rerun`: bitwise equal; after a change of a stored value, it says which."""
    from harness.sweep.rerun import rerun

    folder = sorted(path.parent for path in calm.glob("*/result.json"))[0]
    found = rerun(folder)
    assert (found.tier, found.lines) == ("T1", ("bitwise equal: every stored value and every result (T1)",))
    assert not list(calm.parent.glob(".rerun-*"))


def test_checkpoints_keep_two_and_choose_the_newest_whole_one(tmp_path):
    for step in (3, 5, 9):
        save_checkpoint(tmp_path, step, {"a": b"x" * step, "b": b""})
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir()) == ["step-5", "step-9"]
    (tmp_path / "ckpt" / "step-40").mkdir()  # an empty newer one, as a torn write leaves elsewhere
    (tmp_path / "ckpt" / "step-41.tmp-0123abcd").mkdir()
    assert newest_step(tmp_path) == 40
    assert [(step, files["a"]) for step, files in load_checkpoints(tmp_path)] == [(9, b"x" * 9), (5, b"x" * 5)]
    assert [path.name.split(".corrupt-")[0] for path in (tmp_path / "ckpt").glob("*.corrupt-*")] == ["step-40"]


@pytest.mark.parametrize("bit", range(0, 4000, 331))
def test_no_flipped_bit_of_a_checkpoint_goes_unseen(tmp_path, bit):
    save_checkpoint(tmp_path, 4, {"a": bytes(range(200)), "b": b"old"})
    files = sorted((tmp_path / "ckpt" / "step-4").iterdir())
    victim = files[bit % len(files)]
    data = bytearray(victim.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    victim.write_bytes(bytes(data))
    found = list(load_checkpoints(tmp_path))
    assert found == [] or found[0][1] == {"a": bytes(range(200)), "b": b"old"}


def test_a_checkpoint_of_another_run_is_not_taken(calm, tmp_path, monkeypatch):
    """Two runs' checkpoint folders change places: neither is believed."""
    import shutil

    shutil.copytree(calm.parent / "cache", tmp_path / "runs" / "cache")
    sweep = load_sweep(write(tmp_path, objectives=[{"name": "dpo", "beta": [0.5, 5]}]))
    stopper = Stopper(monkeypatch)
    stopper.at = 11
    with pytest.raises(Interrupted):
        run_sweep(sweep, tmp_path / "runs", 1, QUIET, INLINE)
    one, two = sorted((tmp_path / "runs" / "long").glob("*/ckpt"))
    one.rename(tmp_path / "held")
    two.rename(one)
    (tmp_path / "held").rename(two)
    stopper.at = -1
    assert run_sweep(sweep, tmp_path / "runs", 1, QUIET, INLINE) == 0
    first = pd.read_csv(calm / "results.csv").set_index("run_key")
    again = pd.read_csv(tmp_path / "runs" / "long" / "results.csv").set_index("run_key")
    shared = first.index.intersection(again.index)
    assert len(shared) == 1
    columns = [name for name in again if name in first and name != "status"]
    assert again.loc[shared, columns].equals(first.loc[shared, columns])


OTHERS = [
    pytest.param(number, code, marks=pytest.mark.slow) for number, code in ((signal.SIGINT, 130), (signal.SIGUSR1, 143))
]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), *OTHERS])
def test_a_signal_stops_at_the_next_boundary_and_says_so(tmp_path, number, code):
    spec = write(tmp_path, training={"steps": 8_000, "batch_size": 8}, objectives=[{"name": "dpo", "beta": [0.5, 5]}])
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "sweep", str(spec), "--out", str(tmp_path / "runs")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    folder = tmp_path / "runs" / "long"
    wait_for_training(folder, 2)
    time.sleep(2 * random.Random(code).random())
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert "2 stopped; run the same command to continue" in output
    rows = pd.read_csv(folder / "results.csv")
    assert set(rows.status) == {"stopped"} and rows.steps.between(1, 7_999).all()
    for key in rows.run_key:
        place = find_run(folder, key)
        result = load_result(place)
        assert result["status"] == "stopped" and newest_step(place) == result["steps"]
        assert json.loads((place / "ckpt" / f"step-{result['steps']}" / "MANIFEST.json").read_text())["files"]
    assert verify(folder) == []
    until = time.monotonic() + 60  # multiprocessing's own tracker ends a moment after the driver
    while left := subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True).stdout:
        assert time.monotonic() < until, f"orphans {left}"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path):
    spec = write(tmp_path, training={"steps": 8_000, "batch_size": 8})
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "sweep", str(spec), "--out", str(tmp_path / "runs")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    wait_for_training(tmp_path / "runs" / "long", 2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    assert verify(tmp_path / "runs" / "long") == []
