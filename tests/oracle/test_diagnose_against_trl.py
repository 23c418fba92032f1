"""`harness diagnose` on checkpoints that TRL wrote: the charts it computes are those that TRL logged."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.diagnose.asked import Asked
from harness.diagnose.run import run
from tests.models.families import write
from tests.oracle import world_by_trl

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "a",
    "dog",
    "is",
    "not",
    "yes",
    "no",
    "maybe",
    "so",
    "how",
    "are",
    "you",
    "today",
    "user",
]
LOGGED = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)
BETA, BATCH, PAIRS = 0.3, 4, 16
LINED = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"  # noqa: E501


def rows(form: str) -> list[dict[str, Any]]:
    draw = random.Random(form)

    def text(n: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(n))

    def row(i: int) -> dict[str, Any]:
        if form == "text":
            return {"prompt": f"{text(5)} {i // 2}", "chosen": f" {text(6)}", "rejected": f"{text(4)}"}
        turn = lambda role, content: {"role": role, "content": content}  # noqa: E731
        return {
            "prompt": [turn("user", f"{text(5)} {i // 2}")],
            "chosen": [turn("assistant", text(6))],
            "rejected": [turn("assistant", text(4))],
        }

    return [row(i) for i in range(PAIRS)]


def prompt_length(tokenizer: Any, row: dict[str, Any]) -> int:
    prompt = row["prompt"]
    if not isinstance(prompt, str):
        prompt = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return len(tokenizer(prompt)["input_ids"])


def close(ours: dict[str, float], logged: dict[str, float], names: tuple[str, ...] = LOGGED) -> None:
    for name in names:
        assert ours[name] == pytest.approx(logged[f"eval_{name}"], rel=1e-5, abs=1e-6), name


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": 6, "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH, "learning_rate": 5e-3, "bf16": False, "fp16": False, "use_cpu": True,
        "report_to": [], "disable_tqdm": True, "save_strategy": "steps", "save_steps": 6, "beta": BETA, **more,
    }  # fmt: skip


def diagnosed(tmp_path: Path, data: list[dict[str, Any]], **asked: Any) -> dict[str, float]:
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    found = run(Asked(out=tmp_path / "diagnosis", data=str(path), beta=BETA, device="cpu", **asked), lambda _: None)
    assert found.pairs == len(data)
    return dict(found.policies[0].charts)


@pytest.mark.parametrize("form", ["text", "turns"])
@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("cut", [False, True], ids=["all", "cut"])
def test_dpo(form: str, adapter: bool, cut: bool, tmp_path: Path) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    base = write("llama", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = LINED
    tokenizer.save_pretrained(base)
    data = rows(form)
    # Room for every prompt and for a part of the answers.
    max_length = 4 + max(prompt_length(tokenizer, row) for row in data) if cut else 1024
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=DPOConfig(**settings(tmp_path / "out", max_length=max_length)),
        train_dataset=Dataset.from_list(data),
        eval_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if adapter else None,
    )
    trainer.train()
    logged = trainer.evaluate()
    ours = diagnosed(
        tmp_path, data, policies=[str(tmp_path / "out" / "checkpoint-6")], reference="" if adapter else str(base),
        max_length=max_length,
    )  # fmt: skip
    assert abs(logged["eval_rewards/margins"]) > 1e-3  # it moved
    close(ours, logged)


@pytest.mark.parametrize("form", ["text", "turns"])
def test_kto(form: str, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    base = write("llama", tmp_path / "base")
    data = rows(form)
    single = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in data
        for side in ("chosen", "rejected")
    ]
    trainer = KTOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=KTOConfig(**settings(tmp_path / "out")),
        train_dataset=Dataset.from_list(single),
        eval_dataset=Dataset.from_list(single),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trainer.train()
    logged = trainer.evaluate()
    policy = str(tmp_path / "out" / "checkpoint-6")
    ours = diagnosed(tmp_path, data, policies=[policy], reference=str(base))
    close(ours, logged, tuple(name for name in LOGGED if name != "rewards/accuracies"))


@pytest.mark.parametrize("form", ["text", "turns"])
@pytest.mark.parametrize("method", ["cpo", "simpo", "orpo"])
def test_reference_free(method: str, form: str, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    base = write("llama", tmp_path / "base")
    data = rows(form)
    own = {"loss_type": "simpo", "cpo_alpha": 0.0} if method == "simpo" else {}
    config, kind = (ORPOConfig, ORPOTrainer) if method == "orpo" else (CPOConfig, CPOTrainer)
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=config(**settings(tmp_path / "out", **own)),
        train_dataset=Dataset.from_list(data),
        eval_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trainer.train()
    logged = trainer.evaluate()
    policy = str(tmp_path / "out" / "checkpoint-6")
    ours = diagnosed(tmp_path, data, policies=[policy], reference="none", tokens="cpo")
    prefix = "" if method == "cpo" else "per_token/"
    close({name: ours[prefix + name] for name in LOGGED}, logged)


@pytest.mark.parametrize(("misaligned", "beta", "kind"), [(0.75, 5.0, "premature_convergence"), (0.0, 0.1, "healthy")])
def test_the_world_whose_truth_is_known(misaligned: float, beta: float, kind: str, tmp_path: Path) -> None:
    reference = world_by_trl.write_reference(tmp_path, misaligned)
    world_by_trl.train(reference, world_by_trl.rows("train", 1024), tmp_path / "out", beta, steps=60)

    def found(pairs: int) -> Any:
        data = world_by_trl.write_rows(tmp_path / "heldout.jsonl", world_by_trl.rows("test", pairs))
        policy = str(tmp_path / "out" / "checkpoint-60")
        asked = Asked(tmp_path / "diagnosis", [policy], str(reference), str(data), beta=beta, device="cpu")
        return run(asked, lambda _: None).policies[0]

    said = found(512).verdict
    assert said.kind == kind
    truth = found(4096).estimates["undesirable_zone" if kind == "premature_convergence" else "ranking_accuracy"]
    assert said.interval is not None
    assert said.interval.low <= truth.mean <= said.interval.high
