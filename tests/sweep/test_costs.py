"""FLOPs of a run by hand: a frozen base costs its forward pass, and the gradient of its activations."""

from __future__ import annotations

import pytest
import torch

from harness.models.architecture import Architecture
from harness.models.folder import Source, base_model
from harness.objectives.registry import resolve
from harness.training.loop import start
from harness.types import CorruptionSpec, EvaluationSpec, LoraSpec, RunSpec, TrainingSpec
from harness.worker.commit import work_done
from tests.evaluation.test_widths import packed
from tests.models.families import write


@pytest.mark.parametrize("lora", [LoraSpec(rank=4), None], ids=["lora", "full"])
def test_flops_of_training_count_the_frozen_base(lora, tmp_path):
    source = Source(str(write("llama", tmp_path)), "costs", lora=lora)
    run = start(packed(Architecture(0, 32, 2, 4, 48, 0, source=source), [0, 3]), torch.device("cpu"))
    base = sum(parameter.numel() for parameter in base_model(source).parameters())
    # Adapters of rank 4 in 2 layers: q, o 32 -> 32; k, v 32 -> 16; gate, up 32 -> 48; down 48 -> 32.
    adapters = 2 * 4 * (2 * 64 + 2 * 48 + 3 * 80)
    pack = run.pack
    tokens = 0
    for batch in pack.lanes[0].batches:  # real tokens and one of padding, in multiples of 16
        tokens += 16 * -(-(int((pack.corpus.segment[batch] >= 0).sum()) + 1) // 16)
    trained, frozen = (adapters, base) if lora else (base, 0)
    training = TrainingSpec()
    spec = RunSpec(resolve("dpo", {}), CorruptionSpec(), training, EvaluationSpec(), seed=0)
    found = work_done(spec, run, run.pack.lanes[0])
    assert found["tokens"] == tokens and found["flops"] == tokens * (6 * trained + 4 * frozen)
