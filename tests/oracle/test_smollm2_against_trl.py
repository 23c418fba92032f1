"""`harness diagnose` on SmolLM2-135M with adapters that TRL trained: the charts it computes are those that TRL logged.

Needs the model's wheel, as `harness init --model smollm2` does; skipped where it is not there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.diagnose.asked import Asked
from harness.diagnose.run import run
from harness.model_files.known import known_file
from harness.model_files.location import local_folder, locate
from harness.types import InputError
from tests.integrations.trl_world import pairs
from tests.oracle.test_diagnose_against_trl import LOGGED

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

BETA, BATCH, PAIRS, STEPS = 0.1, 4, 8, 3


@pytest.fixture(scope="module")
def base() -> Path:
    """The converted folder of the model."""
    try:
        place, identity = locate(str(known_file("smollm2", Path.cwd())), "", Path.cwd(), {})
    except InputError as error:
        pytest.skip(f"SmolLM2-135M is not here: {error}")
    return local_folder(place, identity, weights=True)


def rows() -> list[dict[str, Any]]:
    """Conversations of an invented town, with the prompt on its own."""
    return [
        {"prompt": row["chosen"][:1], "chosen": row["chosen"][1:], "rejected": row["rejected"][1:]}
        for row in pairs(PAIRS, conversational=True)
    ]


def trainer_of(method: str, base: Path, out: Path) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    config, kind, own = {
        "dpo": (DPOConfig, DPOTrainer, {}),
        "kto": (KTOConfig, KTOTrainer, {}),
        "cpo": (CPOConfig, CPOTrainer, {}),
        "simpo": (CPOConfig, CPOTrainer, {"loss_type": "simpo", "cpo_alpha": 0.0}),
        "orpo": (ORPOConfig, ORPOTrainer, {}),
    }[method]
    data = rows()
    if method == "kto":
        data = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in data
            for side in ("chosen", "rejected")
        ]
    args = config(
        output_dir=str(out), max_steps=STEPS, per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH,
        learning_rate=2e-3, bf16=False, fp16=False, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="steps", save_steps=STEPS, beta=BETA, gradient_checkpointing=False, **own,
    )  # fmt: skip
    return kind(
        model=AutoModelForCausalLM.from_pretrained(base, dtype="float32"),
        args=args,
        train_dataset=Dataset.from_list(data),
        eval_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


@pytest.mark.parametrize("method", ["dpo", "kto", "cpo", "simpo", "orpo"])
def test_charts(method: str, base: Path, tmp_path: Path) -> None:
    trainer = trainer_of(method, base, tmp_path / "out")
    trainer.train()
    logged = trainer.evaluate()
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    referenced = method in ("dpo", "kto")
    asked = Asked(
        tmp_path / "diagnosis", [str(tmp_path / "out" / f"checkpoint-{STEPS}")], "" if referenced else "none",
        str(tmp_path / "eval.jsonl"), beta=BETA, device="cpu", tokens="dpo" if referenced else "cpo",
    )  # fmt: skip
    found = run(asked, lambda _: None)
    assert found.pairs == PAIRS
    ours = found.policies[0].charts
    prefix = "per_token/" if method in ("simpo", "orpo") else ""
    names = [name for name in LOGGED if (method, name) != ("kto", "rewards/accuracies")]
    assert abs(logged["eval_rewards/margins"]) > 1e-2
    for name in names:
        assert ours[prefix + name] == pytest.approx(logged[f"eval_{name}"], rel=1e-5), name
