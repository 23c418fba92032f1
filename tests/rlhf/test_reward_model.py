"""Reward models in the one trainer: scores at the last token, gaps that recover the truth, storage, and the spec."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.config.load import load_sweep, reward_run
from harness.identity import run_key
from harness.metrics.reward_model import validation_accuracy
from harness.models.architecture import skeleton, with_score
from harness.models.lane_model import build_lanes
from harness.models.logps import pair_logps, pair_rewards, pair_scores
from harness.models.pack import Pack
from harness.objectives.budget import budget, per_nat, scalar_head
from harness.objectives.registry import resolve
from harness.training.loop import start, train
from harness.types import CorruptionSpec, EvaluationSpec, InputError, RunSpec, TrainingSpec
from harness.worker.reward_models import Stopping, load_reward, reward_key, save_rewards
from tests.models.test_models import plain
from tests.training.worlds import ARCHITECTURE, CPU, PAIRS, corpus, lane, world

SPEC = """
name: r
world: {kind: mythworld, misaligned: [0, 0.75], pairs: 64}
objectives:
  - {name: dpo}
  - {name: rloo, beta: [0.2, 0.5], prompts: 8}
  - {name: best_of_n}
corruptions:
  - {kind: none}
  - {kind: uniform_flip, rate: 0.4}
seeds: 2
"""


def reward_lane(name, seed=0, **given):
    spec = resolve("reward_model", {"steps": 40, "batch_size": 16, "learning_rate": 3e-3, **given})
    training = budget(spec, TrainingSpec(steps=1, batch_size=1, learning_rate=1.0, warmup_steps=3))
    own = replace(lane(name, "dpo", {}, seed=seed, offset=PAIRS * seed, training=training), objective=spec)
    return replace(own, weights=with_score(ARCHITECTURE, own.weights)[1]) if scalar_head(spec) else own


def pack(lanes):
    scalar = scalar_head(lanes[0].objective)
    return Pack(replace(ARCHITECTURE, score=scalar), corpus((0, 1)), tuple(lanes), (0, 40))


def trained(lanes):
    run = start(pack(lanes), CPU)
    return run, list(train(run))


def rewards_of(run, rows):
    """Rewards of the first lane's model, of the pairs in the corpus rows `rows`."""
    price = per_nat(run.pack.lanes[0].objective)
    with torch.no_grad():
        return pair_rewards(run.model, run.pack.corpus, rows[None], None if price is None else torch.tensor([[price]]))


HEADS = pytest.mark.parametrize("head", ["lm", "scalar"])


def test_a_pair_is_scored_where_each_response_ends():
    """Both responses share a row; each is read as in a row of its own."""
    weights = with_score(ARCHITECTURE, world(0)[0])[1]
    weights[-ARCHITECTURE.hidden_size :] = torch.randn(
        ARCHITECTURE.hidden_size, generator=torch.Generator().manual_seed(0)
    )
    model = build_lanes(skeleton(replace(ARCHITECTURE, score=True)), [weights], CPU)
    with torch.no_grad():
        scores = pair_scores(model, corpus((0,)), torch.arange(8)[None])
        base = plain(0)
        for i, pair in enumerate(world(0)[1][:8]):
            for side in ("chosen", "rejected"):
                row = torch.tensor([[*pair.prompt, *getattr(pair, side)]])
                expected = base.model(row).last_hidden_state[0, -1] @ weights[-ARCHITECTURE.hidden_size :]
                assert getattr(scores, side)[0, i].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)


def test_an_implicit_reward_is_the_price_of_the_log_ratio():
    """Of each lane at its own price; the stored reference is world 0's, the models are those of worlds 0 and 1."""
    model = build_lanes(skeleton(ARCHITECTURE), [world(0)[0], world(1)[0]], CPU)
    own, rows = corpus((0,)), torch.arange(8).expand(2, -1)
    prices = torch.tensor([[0.5], [0.1]])
    with torch.no_grad():
        found, logps = pair_rewards(model, own, rows, prices), pair_logps(model, own, rows)
    for side in ("chosen", "rejected"):
        expected = getattr(logps, side) - getattr(own, f"reference_{side}")[rows]
        torch.testing.assert_close(getattr(found, side), prices * expected)
    assert found.chosen[0].abs().max() < 1e-4 < found.chosen[1].abs().min()  # a model that is the reference says 0


@HEADS
def test_it_learns_the_labels_in_packs_as_alone(head):
    lanes = [
        reward_lane("a", head=head), reward_lane("b", seed=1, shrink=0.0, head=head),
        reward_lane("c", margin=0.5, center=0.01, per_nat=0.2, head=head),
    ]  # fmt: skip
    run, records = trained(lanes)
    first = [record for record in records if record.step == 0]
    assert all(np.abs(record.columns["chosen_reward"]).max() < 1e-4 for record in first)  # every reward starts at zero
    last = records[-3].columns
    assert (last["chosen_reward"] > last["rejected_reward"]).mean() > 0.9
    for position, own in enumerate(lanes):
        alone, _ = trained([own])
        assert torch.equal(alone.model.flat[0], run.model.flat[position])


@HEADS
def test_on_bradley_terry_labels_its_gaps_are_the_gold_gaps(head):
    """One pair in n copies, labelled right in a share sigmoid(gap): the gap is learnt, the level stays free."""
    gap = 1.2
    share = 1 / (1 + math.exp(-gap))
    own = reward_lane("a", steps=300, batch_size=64, learning_rate=1e-2, shrink=0.0, weight_decay=0.0, head=head)
    turned = torch.arange(64) >= round(64 * share)
    own = replace(own, batches=torch.zeros(300, 64, dtype=torch.int64), flipped=turned.expand(300, -1), evals=())
    run = start(Pack(replace(ARCHITECTURE, score=head == "scalar"), corpus((0,)), (own,)), CPU)
    assert list(train(run)) == []
    scores = rewards_of(run, torch.zeros(1, dtype=torch.int64))
    realised = math.log((64 - turned.sum().item()) / turned.sum().item())
    assert (scores.chosen - scores.rejected).item() == pytest.approx(realised, abs=0.02)
    assert realised == pytest.approx(gap, abs=0.1)


@HEADS
def test_a_stored_model_is_found_by_its_recipe(tmp_path, head):
    (tmp_path / "spec.yaml").write_text(SPEC, encoding="utf-8")
    runs = [run for run in load_sweep(tmp_path / "spec.yaml").runs if run.objective.name == "reward_model"]
    own = reward_lane("a", head=head)
    run, _ = trained([own])
    save_rewards(tmp_path, runs[:1], run.pack, run.model, [False])
    found = load_reward(tmp_path, runs[0])
    assert torch.equal(found.weights, run.model.weights(0)) and not found.broken
    seen = rewards_of(run, torch.unique(own.batches))
    scores = torch.cat([seen.chosen, seen.rejected], 1)
    assert found.scale == pytest.approx(scores.std(correction=0).item(), rel=1e-5)
    assert len({reward_key(one) for one in runs}) == len(runs) == 8
    assert load_reward(tmp_path, runs[1]) is None
    # What a model is measured by decides where it stops, and nothing else.
    other = replace(runs[0].evaluation, samples=8, ood=8, probe=8)
    assert reward_key(replace(runs[0], evaluation=other)) == reward_key(runs[0])
    again = replace(runs[0], evaluation=replace(other, heldout=8))
    assert reward_key(again) != reward_key(runs[0])
    whole = [replace(one, objective=resolve("reward_model", {"stop": "none"})) for one in (runs[0], again)]
    assert reward_key(whole[0]) == reward_key(whole[1])
    for path in (tmp_path / "models").glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    assert load_reward(tmp_path, runs[0]) is None


def test_a_sweep_gains_one_reward_model_for_each_set_of_labels(tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC, encoding="utf-8")
    sweep = load_sweep(tmp_path / "spec.yaml")
    names = [run.objective.name for run in sweep.runs]
    assert names.count("reward_model") == 8 and len(names) == 40  # 2 dials x 2 sets x 2 seeds
    keys = [run_key(run) for run in sweep.runs]
    for place, run in enumerate(sweep.runs):
        if run.objective.name in ("rloo", "best_of_n"):
            assert keys.index(run_key(reward_run(run))) < place
        else:
            assert run.reward_model is None
    assert not any("merged" in note for note in sweep.notes)


def test_its_settings_are_an_entry_of_the_objectives(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.replace("  - {name: dpo}\n", "  - {name: reward_model, steps: 7, batch_size: 4}\n"))
    models = [run for run in load_sweep(path).runs if run.objective.name == "reward_model"]
    assert len(models) == 8 and {dict(run.objective.hyperparameters)["steps"] for run in models} == {7}
    path.write_text(SPEC.replace("  - {name: dpo}\n", "  - {name: reward_model, steps: [7, 8]}\n"))
    with pytest.raises(InputError, match=r"reward_model.*2 settings, but RL objectives.*also"):
        load_sweep(path)
    path.write_text(SPEC.replace("prompts: 8", "prompts: 100"))
    with pytest.raises(InputError, match=r"objective 'rloo': prompts 100 is more than world\.pairs 64"):
        load_sweep(path)


def test_a_model_that_breaks_is_stored_as_broken(tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC, encoding="utf-8")
    [first, *_] = [run for run in load_sweep(tmp_path / "spec.yaml").runs if run.objective.name == "reward_model"]
    own = reward_lane("a")
    own = replace(own, training=replace(own.training, learning_rate=float("inf")))
    run, _ = trained([own])
    assert run.diverged_at[0, 0] >= 0
    save_rewards(tmp_path, [first], run.pack, run.model, [True])
    found = load_reward(tmp_path, first)
    assert found.broken and found.scale == 1.0  # what learns from it counts as diverged from the start


def evaluation(right):
    """Columns of held-out pairs of which a model ranks `right` as their noisy labels say."""
    label = np.where(np.arange(len(right)) % 2, 1, -1)
    return {
        "validation_label": label,
        "chosen_reward": np.where(right, label, -label).astype(np.float32),
        "rejected_reward": np.zeros(len(right), np.float32),
    }


def test_validation_is_by_the_noisy_labels():
    assert validation_accuracy(evaluation(np.arange(100) >= 30)) == pytest.approx(0.7)
    assert validation_accuracy(evaluation(np.arange(100) >= 0) | {"validation_label": np.zeros(100)}) == 0


def test_stopping_puts_the_best_weights_back():
    run, _ = trained([reward_lane("a"), reward_lane("b", seed=1)])
    specs = [
        RunSpec(own.objective, CorruptionSpec(), TrainingSpec(), EvaluationSpec(), seed=0)
        for own in (reward_lane("a"), reward_lane("b", stop="none"))
    ]
    stopping = Stopping.of_pack(["a", "b"], specs)
    assert stopping.wanted == {"a"}
    early, late = np.arange(100) >= 10, np.arange(100) >= 30
    earlier = torch.full_like(run.model.weights(0), 0.5)
    other, final = run.model.weights(1), run.model.weights(0)
    stopping.update("a", 20, evaluation(early), earlier)
    stopping.update("a", 40, evaluation(late), final)
    assert stopping.keep("a", run.model, 0) == 20 and torch.equal(run.model.weights(0), earlier)
    assert stopping.keep("b", run.model, 1) is None and torch.equal(run.model.weights(1), other)
    fresh = Stopping.of_pack(["a", "b"], specs)
    fresh.update("a", 0, evaluation(early), other)  # the untrained model is no candidate
    fresh.update("a", 20, evaluation(np.arange(100) >= 11), earlier)
    fresh.update("a", 40, evaluation(early), final)
    assert fresh.keep("a", run.model, 0) is None
    fresh.update("a", 60, evaluation(early), earlier)  # no better: the earlier one stays
    assert fresh.keep("a", run.model, 0) == 40 and torch.equal(run.model.weights(0), final)
