"""One process of a DPO run, however many there are: `python trl_processes.py MODEL OUT PAIRS_PER_STEP_AND_PROCESS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness.integrations.trl import GeometryCallback
from tests.integrations.trl_world import pairs, trainer_of

if __name__ == "__main__":
    model, out, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    held_out = pairs(7, start=24)
    watcher = GeometryCallback(held_out, every=2, out=out, stop_on={"collapse", "memorised_noise"})
    trainer = trainer_of(
        "dpo", model, out / "trainer", [watcher], pairs(24), held_out,
        per_device_train_batch_size=size, per_device_eval_batch_size=2, eval_strategy="no",
    )  # fmt: skip
    trainer.train()
    points = [line for line in trainer.state.log_history if "geometry/ranking_accuracy" in line]
    place = out / f"points-{trainer.accelerator.process_index}-of-{trainer.accelerator.num_processes}.json"
    place.write_text(json.dumps(points), encoding="utf-8")
