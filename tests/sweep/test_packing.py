"""Pack sizes: bounded by memory, settled once, and never any part of a result."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from harness.config.load import load_sweep
from harness.corruptions.registry import resolve
from harness.model_files.location import ModelShape
from harness.objectives.registry import resolve as resolve_objective
from harness.run_names import planned_runs
from harness.storage.atomic import write_json
from harness.sweep import packing, resources
from harness.sweep.estimates import StepShape, lane_bytes, lanes_within, pack_bytes, shape_of, step_shape
from harness.sweep.packing import PACK_SIZE, pack_key, plan_packs
from harness.types import DataSpec, ModelSpec

TEXT = """
name: t
world: {kind: mythworld}
corruptions: [{kind: none}]
objectives: [{name: dpo, beta: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}]
seeds: 2
"""


@pytest.fixture
def runs(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(TEXT)
    return planned_runs(load_sweep(path).runs)


def test_parameters_are_those_of_the_model_that_is_built(runs):
    from harness.models.architecture import Architecture, initial_weights

    shape = ModelShape(50, 32, 3, 2, 48)
    assert shape.parameters == len(initial_weights(Architecture(50, 32, 3, 2, 48, 64), 0))
    # SmolLM2-135M: tied, 9 query heads, 3 key-value heads; 134,515,008 parameters.
    assert ModelShape(49152, 576, 30, 9, 1536, key_value_heads=3).parameters == 134_515_008
    assert replace(shape, tied=False).parameters - shape.parameters == 50 * 32
    assert step_shape(runs[0].run).trained == shape_of(runs[0].run).parameters


def test_a_lane_costs_its_state_and_what_grows_with_each_size():
    small = StepShape(32, 2, 64, 100, 8, 32, 24, trained=1000)
    base = lane_bytes(small)
    for name in ("hidden_size", "layers", "intermediate_size", "vocab_size", "pairs", "tokens", "responses", "trained"):
        assert lane_bytes(replace(small, **{name: 2 * getattr(small, name)})) > base
    assert lane_bytes(replace(small, trained=2000)) - base == 4 * 5 * 1000
    assert lane_bytes(replace(small, width=2)) == (base - 20_000) // 2 + 20_000
    assert lane_bytes(replace(small, layers=8, recomputed=True)) < lane_bytes(replace(small, layers=8))
    # Without padding: queries, keys, values and what they attend to by rows; in short fp32 rows attention's shares.
    rows, shares = 4 * 8 * 32 * 4 * 32 * 2, 4 * 8 * 4 * 32**2 * (2 + 2)
    skipping = replace(small, skips=True, heads=4)
    assert lane_bytes(skipping) - base == rows + shares
    assert lane_bytes(replace(skipping, width=2)) - lane_bytes(replace(small, width=2)) == rows // 2
    assert lane_bytes(replace(skipping, tokens=257)) - lane_bytes(replace(small, tokens=257)) == rows // 32 * 257
    assert lanes_within(small, 10 * base) == 10
    assert lanes_within(replace(small, frozen=base // 4), 10 * base) == 9
    assert lanes_within(small, 0) == 1
    assert pack_bytes(replace(small, frozen=1000), 3) == 4000 + 3 * base


def test_packs_shrink_to_the_memory_there_is(runs):
    tight = packing.Packing(PACK_SIZE, 3 * lane_bytes(step_shape(runs[0].run)), "")
    sizes = [len(pack.runs) for pack in plan_packs(runs, 2, tight.size, 0, partial(tight.room, {}))]
    assert sum(sizes) == len(runs) and max(sizes) == 3
    plenty = packing.Packing(PACK_SIZE, 2**40, "")
    assert plan_packs(runs, 2, plenty.size, 0, partial(plenty.room, {})) == plan_packs(runs, 2)


def test_on_data_lanes_of_a_pack_see_the_same_batches(runs):
    run = replace(runs[0].run, world=None, data=DataSpec(path="x"), model=ModelSpec())
    flips = replace(run, corruption=resolve({"kind": "uniform_flip", "rate": 0.2}))
    assert pack_key(run) == pack_key(flips)  # other labels, the same rows
    others = [
        replace(run, seed=1),
        replace(run, replica=1),
        replace(run, corruption=resolve({"kind": "truncate", "rate": 0.2})),
    ]
    assert len({pack_key(one) for one in (run, *others)}) == 4


def test_in_fast_mode_lanes_of_a_pack_see_the_same_batches(runs):
    run = runs[0].run
    fast = replace(run, training=replace(run.training, mode="fast"))
    flips = resolve({"kind": "uniform_flip", "rate": 0.2})
    assert pack_key(run) == pack_key(replace(run, seed=1))
    assert pack_key(fast) == pack_key(replace(fast, corruption=flips)) != pack_key(replace(fast, seed=1))


def test_micro_batches_part_objectives_that_see_the_batch(runs):
    run = replace(runs[0].run, training=replace(runs[0].run.training, micro_batch=2))
    names = ("dpo", "ipo", "bco")
    one, two, three = (pack_key(replace(run, objective=resolve_objective(name, {}))) for name in names)
    assert one == two != three
    assert step_shape(run).pairs == 2


def test_the_plan_is_settled_once(tmp_path, runs, monkeypatch):
    first = packing.settle(tmp_path, 2)
    assert first.size == PACK_SIZE and first.bytes > 0
    plan = {"name": "t", "runs": [{"run_key": run.key, "name": "x", "config": {}} for run in runs]}
    write_json(tmp_path / "plan.json", {**plan, "packing": packing.as_plan(first)})
    monkeypatch.setattr(packing, "memory", lambda: 1)
    assert packing.settle(tmp_path, 8) == first
    (tmp_path / "plan.json").unlink()
    assert max(len(pack.runs) for pack in plan_packs(runs, 1, room=partial(packing.settle(tmp_path, 8).room, {}))) == 1


def test_a_gpu_takes_what_its_memory_holds(tmp_path, runs):
    found = packing.settle(tmp_path, 1, gpu_bytes=80 * 2**30)
    assert found.size == packing.GPU_LANES
    assert len(plan_packs(runs, 1, found.size, 0, partial(found.room, {}))) == 1


def test_memory_is_the_container_s_where_it_has_a_limit(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(resources, "CGROUP", limit)
    whole = resources.memory()
    limit.write_text("max\n")
    assert resources.memory() == whole
    limit.write_text("1000000\n")
    assert resources.memory() == 1_000_000


def test_packs_of_large_models_share_the_cores(tmp_path, runs, monkeypatch):
    few = [planned for planned in runs if planned.run.seed == 0][:1]
    assert packing.settle(tmp_path, 4, 0, few, cores=4).threads == 1  # a small model waits for threads
    monkeypatch.setattr(packing, "THREADED", 1)
    assert packing.settle(tmp_path, 4, 0, few, cores=4).threads == 4
    assert packing.settle(tmp_path, 4, 0, runs, cores=4).threads == 1  # four packs at work
    assert packing.settle(tmp_path, 2, 0, runs, cores=8).threads == 4
    assert packing.settle(tmp_path, 1, 80 * 2**30, few, cores=8).threads == 1
