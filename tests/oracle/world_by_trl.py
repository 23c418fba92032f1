"""The embedded world as files for TRL: a reference's folder, pairs as JSONL, and a policy that TRL trained on them.

`python -m tests.oracle.world_by_trl FOLDER` writes the example of docs/diagnose.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from harness.config.load import load_sweep
from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import world as mythworld
from harness.data.mythworld.language import FIRST, SPECIALS
from harness.inputs.mythworld import mythworld_architecture
from harness.inputs.reference_models import build_models, builds, start_weights
from harness.models.architecture import skeleton
from harness.models.export import _world_tokenizer
from harness.models.lane_model import parameter_shapes, unflatten

SMOKE = Path(__file__).parents[2] / "experiments" / "smoke.yaml"
BATCH, LEARNING_RATE = 16, 4e-4


def write_reference(folder: Path, misaligned: float, seed: int = 0) -> Path:
    """The world's reference with this share of topics on which it is wrong, as transformers reads it."""
    spec = load_sweep(SMOKE, [f"world.misaligned={misaligned}", f"seeds=[{seed}]"])
    run = next(iter(spec.runs))
    cache = folder / "cache"
    for stage in builds([run]):
        build_models(cache, stage, torch.device("cpu"))
    assert run.world is not None
    model = skeleton(mythworld_architecture(run.world))
    values = unflatten(start_weights(cache, run), parameter_shapes(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    model.save_pretrained(folder / "reference")
    pad, bos, eos = SPECIALS[:3]
    words = PreTrainedTokenizerFast(
        tokenizer_object=_world_tokenizer(FIRST), pad_token=pad, bos_token=bos, eos_token=eos, model_max_length=64
    )
    words.save_pretrained(folder / "reference")
    return folder / "reference"


def rows(split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs of the world as text; a response begins with the space that parts it from the prompt."""
    pairs = mythpairs.preference_pairs(mythworld.draw_world(seed, 1), split, count)
    answer = SPECIALS[3]
    return [
        {"prompt": f"{p.prompt} {answer}", "chosen": f" {p.chosen}", "rejected": f" {p.rejected}",
         "group": p.meta["group"], "gold_margin": p.gold_margin}
        for p in pairs
    ]  # fmt: skip


def write_rows(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def train(reference: Path, data: list[dict[str, Any]], out: Path, beta: float, steps: int, **more: Any) -> Any:
    """TRL's DPOTrainer on these pairs; checkpoints every `steps / 4` steps. Returns the trainer."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(reference),
        args=DPOConfig(
            output_dir=str(out), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=LEARNING_RATE,
            beta=beta, bf16=False, fp16=False, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="steps",
            save_steps=steps // 4, max_length=64, gradient_checkpointing=False, adam_beta2=0.99, **more,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(reference),
    )  # fmt: skip
    trainer.train()
    return trainer


if __name__ == "__main__":
    root = Path(sys.argv[1])
    start = write_reference(root, 0.75)
    train(start, rows("train", 1024), root / "out", beta=5.0, steps=120)
    write_rows(root / "heldout.jsonl", rows("test", 512))
