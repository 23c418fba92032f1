"""One lane spread over two processes by FSDP2 gives the single process's numbers, with the same trainer."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.models.pack import Lane
from harness.training.loop import Training, start, train
from harness.types import TrainingSpec
from tests.training.worlds import CPU, lane, pack

# A pair-wise one, one that looks at the batch as a whole, one that needs a live reference and other pairs' responses.
CASES = {"dpo": {"beta": 0.5}, "beta_dpo": {"beta": 0.5}, "kto": {"beta": 0.5}}
# All with logits in parts, and a state taken and put back; one in the fast tier.
TIERS = ["dpo", *(pytest.param(name, marks=pytest.mark.cluster) for name in ("beta_dpo", "kto"))]
STEPS = 10


def the_lane(name: str) -> Lane:
    # Seven pairs: two processes cannot share them evenly.
    training = TrainingSpec(steps=STEPS, batch_size=7, learning_rate=3e-3, warmup_steps=2, max_grad_norm=0.5)
    return lane(name, name, CASES[name], training=training, flip=0.25)


def trained(run: Training) -> dict[str, np.ndarray]:
    """What the records of a run say, and its last weights."""
    found = {f"{r.step}/{column}": values for r in train(run) for column, values in r.columns.items()}
    return found | {"weights": run.model.weights(0).numpy()}


def process(rank: int, count: int, folder: str, name: str) -> None:
    """One of `count` processes of a run."""
    from harness.models import logps
    from harness.training.sharded import build_sharded
    from harness.training.state import lane_state

    torch.set_num_threads(1)
    logps.WHOLE = logps.PART = 2000  # logits: computed in parts, and again in the backward pass
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    try:
        made = pack([the_lane(name)], checkpoints=(0, STEPS))
        run = start(made, CPU, build=build_sharded)
        first = {f"{r.step}/{column}": values for r in train(run, STEPS // 2) for column, values in r.columns.items()}
        run = start(made, CPU, [lane_state(run, 0)], build_sharded)
        found = first | trained(run)
        share = np.array(run.model.flat.shape[1])
        np.savez(Path(folder) / f"{rank}.npz", share=share, **{key.replace("/", "|"): v for key, v in found.items()})
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", TIERS)
def test_two_processes_give_the_numbers_of_one(name: str, tmp_path: Path) -> None:
    """Losses and log-probs within 1e-5 relative, final weights within 1e-4; each process holds a share of them."""
    alone = trained(start(pack([the_lane(name)], checkpoints=(0, STEPS)), CPU))
    context = multiprocessing.get_context("spawn")
    group = [context.Process(target=process, args=(rank, 2, str(tmp_path), name)) for rank in range(2)]
    for member in group:
        member.start()
    for member in group:
        member.join(180)
        member.kill()
    assert [member.exitcode for member in group] == [0, 0]
    moved = np.abs(alone["weights"] - the_lane(name).weights.numpy()).max()
    assert moved > 1e-3
    shares = 0
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as found:
            shares += int(found["share"])
            for key, values in alone.items():
                there = found[key.replace("/", "|")]
                # A reward is a difference of two log-probs: their rounding is its.
                size = values if "reward" not in key else alone[f"{key.partition('/')[0]}/policy_chosen"]
                error = np.abs(there - values).max() / max(np.abs(size).max(), 1e-3)
                # Adam divides by the root of a gradient's square: a weight that has hardly any moves by its rounding.
                assert error < (1e-4 if key == "weights" else 1e-5), (key, error)
    assert shares == len(alone["weights"])


def test_a_sharded_model_holds_one_lane() -> None:
    from harness.models.architecture import skeleton
    from harness.training.sharded import build_sharded
    from tests.training.worlds import ARCHITECTURE

    with pytest.raises(ValueError, match="one lane, not 2"):
        build_sharded(skeleton(ARCHITECTURE), [torch.zeros(1), torch.zeros(1)], CPU)
