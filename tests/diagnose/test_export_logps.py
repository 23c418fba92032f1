"""Runs of a sweep as a log-prob file: what the run itself measured, with the tokens it was scored on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.cli import run as command
from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import tokens as mythtokens
from harness.data.mythworld import world as mythworld
from harness.data.mythworld.language import FIRST
from harness.data.rows import token_key
from harness.diagnose.diagnosis import diagnose
from harness.storage.logps_file import read_logps
from harness.storage.runs import load_result, run_folders

SPEC = """
name: exported
question: none
world: {kind: mythworld, version: 1, misaligned: 0.75, pairs: 64, pretrain_steps: 20, pretrain_batch: 16, sft_steps: 10}
objectives: [{name: dpo, beta: [0.5, 5]}]
corruptions: [{kind: uniform_flip, rate: 0.4}]
seeds: 1
training: {steps: 4, batch_size: 8}
evaluation: {checkpoints: 2, heldout: 32, probe: 32, ood: 0, samples: 0}
device: cpu
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    (root / "spec.yaml").write_text(SPEC)
    words = ["sweep", str(root / "spec.yaml"), "--out", str(root / "runs"), "--quiet", "--engine", "inline"]
    assert command(words) == 0
    return root / "runs" / "exported"


def test_the_file_says_what_the_runs_measured(sweep: Path, tmp_path: Path) -> None:
    assert command(["export-logps", str(sweep), "--out", str(tmp_path / "f.parquet")]) == 0
    table = read_logps(tmp_path / "f.parquet")
    found = {one.name: one for one in diagnose(table).policies}
    folders = run_folders(sweep).values()
    assert len(found) == len(list(folders)) == 2
    for folder in folders:
        result = load_result(folder)
        assert result is not None
        one = found[folder.name]
        for name in ("ranking_accuracy", "reward_accuracy", "chosen_displacement", "undesirable_zone"):
            assert one.metrics[name] == pytest.approx(result["results"][name]), name
        assert [point.step for point in one.trajectory] == [0, 4]
        assert one.memorised is not None
        assert 5 < one.memorised.wrong < 20  # of 32 probe pairs, 40 % flipped


def test_a_file_that_exists_is_kept(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f.parquet"
    out.write_text("mine")
    for more in ((), ("--reference",)):
        assert command(["export-logps", str(sweep), "--out", str(out), *more]) == 2
        assert "f.parquet: exists; choose another name, or add --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert command(["export-logps", str(sweep), "--out", str(out), "--force"]) == 0
    assert len(read_logps(out).columns["id"])


def test_a_single_run_knows_its_beta_and_the_tokens_of_every_pair(sweep: Path, tmp_path: Path) -> None:
    folder = next(iter(run_folders(sweep).values()))
    assert command(["export-logps", str(folder), "--out", str(tmp_path / "f.parquet")]) == 0
    table = read_logps(tmp_path / "f.parquet")
    assert table.meta["beta"] in (0.5, 5.0)
    world = mythworld.draw_world(0, 1)
    pairs = [*mythpairs.preference_pairs(world, "train", 64), *mythpairs.preference_pairs(world, "test", 32)]
    encoded = {pair.id: mythtokens.encode_pair(pair, FIRST) for pair in pairs}
    flipped = np.nan_to_num(table.columns["gold_margin"]) < 0
    assert flipped.any()
    for name, key, turned in zip(table.columns["id"], table.columns["tokens"], flipped, strict=True):
        one = encoded[name]
        sides = (one.rejected, one.chosen) if turned else (one.chosen, one.rejected)
        assert key == token_key(one.prompt, *sides)


def test_a_folder_without_finished_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export-logps", str(tmp_path), "--out", str(tmp_path / "f.parquet")]) == 2
    assert "no finished run" in capsys.readouterr().err
