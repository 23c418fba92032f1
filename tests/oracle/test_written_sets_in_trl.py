"""Corrupted and cleaned sets in TRL as they are: DPOTrainer trains on them, `harness plan` reads them, the ledger
explains every row that differs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import corrupt_file, plan
from harness.data.export_pairs import Written, export_cleaned
from harness.data.pairs import content_sha256, read_pairs
from harness.types import DataSpec
from tests.models.families import write
from tests.oracle.test_diagnose_against_trl import LINED, settings

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

COUNT = 24
SPEC: dict[str, Any] = {"name": "t", "objectives": [{"name": "dpo"}], "model": {"vocab_size": 300}}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def row(form: str, i: int) -> dict[str, Any]:
    """Pair i in the form; in the implicit one both sides begin with the prompt."""
    prompt, chosen, rejected = f"how are you today {i}", f"yes the cat sat {i}", f"no {i} maybe"
    more = {"gold_margin": 0.5 + i}
    if form == "text":
        return {"prompt": prompt, "chosen": f" {chosen}", "rejected": f" {rejected}", **more}
    if form == "turns":
        said = [user("the mat"), assistant("is a mat"), user(prompt)]
        return {"prompt": said, "chosen": [assistant(chosen)], "rejected": [assistant(rejected)], **more}
    return {"chosen": [user(prompt), assistant(chosen)], "rejected": [user(prompt), assistant(rejected)], **more}


def corrupted(data: Path, out: Path) -> Written:
    steps = [{"kind": "uniform_flip", "rate": 0.25}, {"kind": "truncate", "rate": 0.25, "side": "rejected"}]
    return corrupt_file(data, out, kind="sequence", overrides={"steps": steps})


def dropped(data: Path, out: Path) -> Written:
    return cleaned(data, out, "drop")


def relabelled(data: Path, out: Path) -> Written:
    return cleaned(data, out, "relabel")


def cleaned(data: Path, out: Path, action: str) -> Written:
    """As `harness audit --write` does it, the evidence being given: against every third row."""
    spec = DataSpec(str(data), sha256=content_sha256(data))
    margins = {(p.meta["row"], p.id): -1.0 if p.meta["row"] % 3 == 0 else 1.0 for p in read_pairs(spec).pairs}
    return export_cleaned(spec, action, COUNT // 3, margins, out)


def loss_of_two_steps(path: Path, base: Path, folder: Path) -> float:
    """What DPOTrainer logs of its second step on the file, loaded as TRL's users load it."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    loader = {".jsonl": "json", ".parquet": "parquet"}[path.suffix]
    data = load_dataset(loader, data_files=str(path), split="train", cache_dir=str(folder / "cache"))
    asked = {**settings(folder / "out"), "max_steps": 2, "logging_steps": 1, "save_strategy": "no"}
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=DPOConfig(**asked),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trainer.train()
    return float([entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1])


def explained(data: Path, written: Written) -> None:
    """The file is the source with what the ledger names done to it, and nothing else."""
    before, after = (read_pairs(DataSpec(str(path))).pairs for path in (data, written.out))
    expected: dict[int, tuple[str, str, str]] = {p.meta["row"]: (p.prompt, p.chosen, p.rejected) for p in before}
    ledger = pq.read_table(written.ledger).to_pylist()
    assert ledger
    for line in ledger:
        prompt, chosen, rejected = expected[line["row"]]
        match line["action"]:
            case "drop":
                del expected[line["row"]]
            case "flip":
                expected[line["row"]] = (prompt, rejected, chosen)
            case "truncate":
                expected[line["row"]] = (prompt, line["new_chosen"], line["new_rejected"])
            case other:
                raise AssertionError(other)
    assert [(p.prompt, p.chosen.strip(), p.rejected.strip()) for p in after] == [
        (prompt, chosen.strip(), rejected.strip()) for prompt, chosen, rejected in expected.values()
    ]
    assert len(after) == written.pairs


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("act", [corrupted, dropped, relabelled])
@pytest.mark.parametrize("form", ["text", "turns", "implicit"])
def test_trl_trains_on_what_was_written(form: str, act: Any, ending: str, tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    data.write_text("".join(json.dumps(row(form, i)) + "\n" for i in range(COUNT)), encoding="utf-8")
    written = act(data, tmp_path / f"new.{ending}")
    explained(data, written)
    base = write("llama", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = LINED
    tokenizer.save_pretrained(base)
    loss = loss_of_two_steps(written.out, base, tmp_path)
    assert math.isfinite(loss) and loss != pytest.approx(math.log(2), abs=1e-6)  # the first step has moved it
    spec = tmp_path / "s.yaml"
    spec.write_text(yaml.safe_dump({**SPEC, "data": {"path": str(written.out)}}), encoding="utf-8")
    assert f"{written.pairs} usable pairs" in plan(spec, out=tmp_path / "runs").text
