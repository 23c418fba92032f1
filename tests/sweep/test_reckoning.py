"""What a plan reckons with: the data's own tokens, a measured rate, epochs in steps."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from harness.config.load import load_sweep
from harness.data.mythworld.language import LANGUAGES
from harness.data.mythworld.pairs import preference_pairs
from harness.data.mythworld.tokens import encode_pair
from harness.data.mythworld.world import draw_world
from harness.inputs.encoded import open_inputs
from harness.models.shapes import rung
from harness.storage.atomic import read_json, write_json
from harness.sweep import token_counts as module
from harness.sweep.estimates import measured_under, run_seconds, scoring_seconds, step_shape, step_weights, train_flops
from harness.sweep.plan import describe
from harness.sweep.preflight import measure_rate
from harness.sweep.run import SweepOptions, run_sweep
from harness.sweep.token_counts import TokenCounts, token_counts
from harness.types import InputError
from tests.models.families import write
from tests.sweep.test_path_models import SPEC, data, sweep  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def loaded(tmp_path, data):  # noqa: F811
    return sweep(tmp_path, write("llama", tmp_path / "model"), data, model={"lora": {"rank": 4}})


def test_counts_are_those_of_training_and_cached(loaded, tmp_path, monkeypatch):
    run = loaded.runs[0]
    counts = token_counts(run, tmp_path)
    inputs = open_inputs(run, tmp_path)
    everything = [inputs.encode(pair) for pairs in (inputs.train, *inputs.evals.values()) for pair in pairs]
    sizes = sorted((len(one.prompt), len(one.chosen), len(one.rejected)) for one in everything)
    counted = sorted(zip(counts.prompt, counts.chosen, counts.rejected, strict=True))
    assert len(counted) == 50 and set(sizes) <= {(p + extra, c, r) for p, c, r in counted for extra in (0, 1)}  # <bos>
    monkeypatch.setattr(module, "read_pairs", None)
    assert token_counts(run, tmp_path) == counts
    assert step_shape(run, counts).tokens == counts.widest[0] < step_shape(run).tokens


def test_widths_by_hand():
    counts = TokenCounts((5, 5, 20), (3, 4, 10), (2, 6, 10), prompts=2)
    assert counts.widest == (40, 20) and counts.pairs_per_prompt == 1.5
    # Rows of 10, 15 and 40: some batch row is the longest, and no row is wider.
    assert counts.row_tokens(64, skipping=False) == 40 and 12 < counts.row_tokens(1, skipping=False) < 40
    # Without padding a batch takes its tokens and one slot, in multiples of 16, and no more than its rows are wide.
    assert counts.row_tokens(64, skipping=True) == pytest.approx(65 / 3, rel=0.05)
    assert TokenCounts((5,), (3,), (2,), 1).row_tokens(4, skipping=True) == 10
    prompts = (rung(5) + rung(5) + rung(20)) / 1.5
    assert counts.scored_tokens == pytest.approx((prompts + sum(map(rung, (3, 4, 10, 2, 6, 10)))) / 3)


def test_seconds_follow_tokens_and_rate(loaded, tmp_path):
    run = loaded.runs[0]
    counts = token_counts(run, tmp_path)
    one, twice = (run_seconds(run, counts, rate) for rate in (1e9, 2e9))
    assert one.total == pytest.approx(2 * twice.total) and one.training == pytest.approx(train_flops(run, counts) / 1e9)
    assert train_flops(run, counts) < train_flops(run)
    assert 0 < scoring_seconds(loaded.runs, counts, 1e9) < scoring_seconds(loaded.runs, None, 1e9)


def test_a_preflight_measures_the_rate_that_a_plan_names(loaded, tmp_path):
    threads = torch.get_num_threads()
    assert "assumed" in describe(loaded, tmp_path / "runs")["cost_basis"]
    measure_rate(loaded, tmp_path / "runs")
    stored = read_json(tmp_path / "runs" / "cache" / "rate.json")
    assert stored["weights"] == pytest.approx(step_weights(loaded.runs[0]), rel=0.05)
    assert 1e6 < stored["flops_per_second"] < 1e13 and torch.get_num_threads() == threads
    plan = describe(loaded, tmp_path / "runs")
    assert "measured by --preflight" in plan["cost_basis"]
    slow = {**stored, "flops_per_second": stored["flops_per_second"] / 1e4}
    write_json(tmp_path / "runs" / "cache" / "rate.json", slow)
    expected = sum(run_seconds(run, token_counts(run, tmp_path), slow["flops_per_second"]).total for run in loaded.runs)
    assert describe(loaded, tmp_path / "runs")["seconds"]["runs"] == pytest.approx(expected, rel=0.01)
    assert measured_under(tmp_path / "runs").rate(1000 * stored["weights"]) is None  # another size of model


def test_epochs_are_steps_over_the_pairs_that_a_seed_trains_on(tmp_path, data, monkeypatch):  # noqa: F811
    monkeypatch.setitem(SPEC, "training", {})
    model = write("llama", tmp_path / "model")
    training = {"epochs": 2.5, "batch_size": 4}
    loaded = sweep(tmp_path, model, data, training=training, seeds=2)
    assert loaded.resolved["training"]["epochs"] == 2.5 and "steps" not in loaded.resolved["training"]  # read again
    for run in loaded.runs:
        count = len(open_inputs(run, tmp_path).train)
        assert run.training.steps == math.ceil(2.5 * count / 4) and run.training.epochs == 0
    with pytest.raises(InputError, match=r"training\.epochs: given beside steps; expected one of the two"):
        sweep(tmp_path, model, data, training={**training, "steps": 3})


@pytest.mark.parametrize("version", [1, 2])
def test_tokens_of_the_embedded_world_are_those_of_its_pairs(version):
    language = LANGUAGES[version]
    pairs = [encode_pair(pair, language) for pair in preference_pairs(draw_world(0, version), "train", 4096)]
    mean = sum(len(one.prompt) + len(one.chosen) + len(one.rejected) for one in pairs) / len(pairs)
    assert mean == pytest.approx(language.mean_row_tokens, rel=0.01)


@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_a_plan_of_the_embedded_world_reckons_with_the_flops_that_runs_have(tmp_path, mode):
    loaded = load_sweep(ROOT / "experiments/smoke.yaml", [f"training.mode={mode}", "evaluation.samples=8"])
    options = SweepOptions("inline", 60.0, track=False)
    assert run_sweep(loaded, tmp_path, 1, Console(quiet=True), options) == 0
    with (tmp_path / "smoke" / "costs.csv").open() as handle:
        found = [float(row["flops"]) for row in csv.DictReader(handle)]
    assert found == pytest.approx([train_flops(run) for run in loaded.runs], rel=0.02)
