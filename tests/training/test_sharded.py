"""One lane spread over two processes by FSDP2 gives the single process's numbers, with the same trainer."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.rows import TokenisedPair, pack_rows
from harness.models.architecture import Architecture
from harness.models.folder import Source, start_weights
from harness.models.logps import build_corpus
from harness.models.pack import EvalSet, Lane, Pack
from harness.objectives.registry import resolve
from harness.training.loop import Training, start, train
from harness.types import LoraSpec, TrainingSpec
from tests.models.families import write as write_model
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


def small_pack(name: str) -> Pack:
    return pack([the_lane(name)], checkpoints=(0, STEPS))


def smollm2_pack(folder: str, lora: LoraSpec) -> Pack:
    """Two steps on pairs of random tokens, with the model of a folder."""
    rng, training = np.random.default_rng(0), TrainingSpec(steps=2, batch_size=3, learning_rate=1e-4, warmup_steps=0)
    drawn = [[rng.integers(3, 49_000, n).astype(np.int32) for n in rng.integers(4, 12, 3)] for _ in range(6)]
    corpus = build_corpus([pack_rows([TokenisedPair(str(n), *row) for n, row in enumerate(drawn)])], None, CPU)
    architecture = Architecture(49_152, 576, 30, 9, 1536, 0, source=Source(folder, "smollm2", lora=lora))
    order, rows = torch.arange(6).view(2, 3), torch.arange(4)
    split = EvalSet("eval_clean", tuple("0123"), rows, rows < 1)
    weights = start_weights(architecture.source, 0)
    # A small beta: it is what a loss has of the rounding of log-probs, which are of 100 nats here.
    one = Lane("one", resolve("dpo", {"beta": 0.01}), training, weights, order, order < 1, (split,))
    return Pack(architecture, corpus, (one,), (0, 2), ladder=True)


def process(rank: int, count: int, folder: str, make: Callable[[], Pack]) -> None:
    """One of `count` processes of a run, which begins anew from its state half-way."""
    from harness.models import logps
    from harness.training.sharded import build_sharded
    from harness.training.state import lane_state

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    try:
        made = make()
        if made.architecture.source is None:
            logps.WHOLE = logps.PART = 2000  # logits: computed in parts, and again in the backward pass
        run = start(made, CPU, build=build_sharded)
        half = made.lanes[0].training.steps // 2
        first = {f"{r.step}/{column}": values for r in train(run, half) for column, values in r.columns.items()}
        run = start(made, CPU, [lane_state(run, 0)], build_sharded)
        found = first | trained(run)
        share = np.array(run.model.flat.shape[1])
        np.savez(Path(folder) / f"{rank}.npz", share=share, **{key.replace("/", "|"): v for key, v in found.items()})
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", TIERS)
def test_two_processes_give_the_numbers_of_one(name: str, tmp_path: Path) -> None:
    assert_as_alone(partial(small_pack, name), tmp_path, moved=1e-3)


@pytest.mark.slow
def test_adapters_on_the_shape_of_smollm2_train_as_in_one_process(tmp_path: Path) -> None:
    """30 layers of width 576, 9 heads over 3, a vocabulary of 49,152, tied: random weights."""
    shape = {
        "vocab_size": 49_152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "intermediate_size": 1536, "head_dim": 64, "tie_word_embeddings": True,
    }  # fmt: skip
    folder = str(write_model("llama", tmp_path / "model", **shape))
    assert_as_alone(partial(smollm2_pack, folder, LoraSpec(rank=16)), tmp_path, moved=5e-5, weights=1e-3)


def assert_as_alone(make: Callable[[], Pack], folder: Path, moved: float, weights: float = 1e-4) -> None:
    """Losses and log-probs within 1e-5 relative, final weights within `weights`; each process holds a share of them."""
    made = make()
    alone = trained(start(made, CPU))
    context = multiprocessing.get_context("spawn")
    group = [context.Process(target=process, args=(rank, 2, str(folder), make)) for rank in range(2)]
    for member in group:
        member.start()
    for member in group:
        member.join(600)
        member.kill()
    assert [member.exitcode for member in group] == [0, 0]
    assert np.abs(alone["weights"] - made.lanes[0].weights.numpy()).max() > moved
    shares = 0
    for rank in range(2):
        with np.load(folder / f"{rank}.npz") as found:
            shares += int(found["share"])
            for key, values in alone.items():
                there = found[key.replace("/", "|")]
                # Rewards and losses are functions of a difference of two log-probs: their rounding is theirs.
                own = "reward" not in key and "loss" not in key
                size = values if own else alone[f"{key.partition('/')[0]}/policy_chosen"]
                error = np.abs(there - values).max() / max(np.abs(size).max(), 1e-3)
                # Adam divides by the root of a gradient's square: a weight that has hardly any moves by its rounding.
                assert error < (weights if key == "weights" else 1e-5), (key, error)
    assert shares == len(alone["weights"])


def test_a_sharded_model_holds_one_lane() -> None:
    from harness.models.architecture import skeleton
    from harness.training.sharded import build_sharded
    from tests.training.worlds import ARCHITECTURE

    with pytest.raises(ValueError, match="one lane, not 2"):
        build_sharded(skeleton(ARCHITECTURE), [torch.zeros(1), torch.zeros(1)], CPU)
