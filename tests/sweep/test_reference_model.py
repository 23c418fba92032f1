"""`model.reference`: policies that are compared with another model than the one they start from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.config.load import load_sweep
from harness.data.splits import data_notes
from harness.identity import run_key
from harness.inputs.encoded import encode_inputs, open_inputs
from harness.inputs.reference_cache import scorer
from harness.models.logps import pair_logps, reference_logps
from harness.models.reference_logps import score_responses
from harness.run_names import planned_runs
from harness.storage.runs import read_table
from harness.sweep.packing import plan_packs
from harness.training.loop import start
from harness.types import InputError, PathModelSpec
from harness.worker.prepare import Worker, open_pack
from harness.worker.protocol import WorkerConfig
from tests.models.families import write
from tests.sweep.test_path_models import data as data  # a fixture
from tests.sweep.test_path_models import pair_texts, plain_logp, sweep, trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write("llama", folder / "start", 0)
    write("qwen2", folder / "other", 1)  # of the same tokenizer, laid out otherwise
    return folder


def opened(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_records_compare_the_policy_with_the_named_reference(models: Path, data: Path, tmp_path: Path) -> None:
    loaded = sweep(
        tmp_path, models / "start", data,
        model={"path": str(models / "start"), "lora": [{"rank": 4}, None], "reference": str(models / "other")},
        objectives=[{"name": "dpo", "beta": 0.5}],
    )  # fmt: skip
    folders = trained(loaded, tmp_path / "runs")
    rows = {(r["prompt"], r["chosen"]): r for r in map(json.loads, (data / "plain.jsonl").read_text().splitlines())}
    for run in loaded.runs:
        assert isinstance(run.model, PathModelSpec)
        folder, texts = folders[run_key(run)], pair_texts(loaded, run, rows)
        table = read_table(folder / "examples.parquet")
        held = table["split"] == "eval_clean"
        for step in (0, 3):
            assert (table["step"][held] == step).sum() > 4
        first = np.flatnonzero(held & (table["step"] == 0))
        for column, name in (("policy", "start"), ("reference", "other")):
            model, tokenizer = opened(models / name)
            for at in first[:3]:
                for side in ("chosen", "rejected"):
                    row = texts[table["id"][at]]
                    expected = plain_logp(model, tokenizer, row["prompt"], row[side])
                    assert table[f"{column}_{side}"][at] == pytest.approx(expected, rel=1e-5)
        # The loss is DPO's between these two, and no log 2.
        margin = sum(
            sign * table[f"{who}_{side}"][first]
            for who, side, sign in (("policy", "chosen", 1), ("policy", "rejected", -1),
                                    ("reference", "chosen", -1), ("reference", "rejected", 1))
        )  # fmt: skip
        assert table["loss"][first] == pytest.approx(np.log1p(np.exp(-0.5 * margin)), rel=1e-4)
        assert np.abs(table["loss"][first] - np.log(2)).min() > 1e-3
        samples = read_table(folder / "samples.parquet")
        assert np.abs(samples["k1"]).min() > 0.1  # far from the reference, as the start is
        provenance = json.loads((folder / "provenance.json").read_text())
        assert provenance["reference"]["sha256"]


def test_its_table_is_that_of_sweeps_that_start_there(models: Path, data: Path, tmp_path: Path) -> None:
    near = {"path": str(models / "start"), "lora": {"rank": 4}, "reference": str(models / "other")}
    there = {"path": str(models / "other"), "lora": {"rank": 4}}
    tables = []
    for model in (near, there):
        run = sweep(tmp_path, models / "start", data, model=model).runs[0]
        made = encode_inputs(open_inputs(run, tmp_path), scorer(tmp_path, CPU))
        made.pairs.score_rows(range(6))
        tables.append((made.inputs.reference_sha256, made.pairs.reference[0][:6]))
    assert tables[0][0] == tables[1][0]
    assert np.array_equal(tables[0][1], tables[1][1])
    assert len(list((tmp_path / "reference").glob("*.safetensors"))) == 1
    plain = score_responses(made.inputs.architecture, made.inputs.weights, made.pairs.tokenised[:6], CPU, True)
    assert len(plain.keys) == 12


def test_what_reads_distributions_reads_those_of_the_reference(models: Path, data: Path, tmp_path: Path) -> None:
    loaded = sweep(
        tmp_path, models / "start", data,
        model={"path": str(models / "start"), "lora": None, "reference": str(models / "other")},
        objectives=[{"name": "tdpo2"}],
    )  # fmt: skip
    [task] = plan_packs(planned_runs(loaded.runs), workers=1)
    (tmp_path / "runs").mkdir()
    _, pack = open_pack(task, Worker(WorkerConfig(tmp_path / "cache", tmp_path / "runs", "cpu"), CPU), 0)
    live = start(pack, CPU).live
    assert live is not None
    index = pack.lanes[0].batches[:1]
    scored, stored = pair_logps(live, pack.corpus, index), reference_logps(pack.corpus, index)
    assert torch.allclose(scored.chosen, stored.chosen, rtol=1e-5)
    assert not torch.allclose(pair_logps(start(pack, CPU).model, pack.corpus, index).chosen, stored.chosen, rtol=1e-2)


def test_it_is_an_axis_that_names_no_path_in_keys_and_reads_back(models: Path, data: Path, tmp_path: Path) -> None:
    model = {"path": str(models / "start"), "lora": {"rank": 4}, "reference": ["", str(models / "other")]}
    loaded = sweep(tmp_path, models / "start", data, model=model, objectives=[{"name": "dpo"}])
    assert len({run_key(run) for run in loaded.runs}) == 2
    names = [planned.name for planned in planned_runs(loaded.runs)]
    assert len(set(names)) == 2 and not any(str(models) in name for name in names)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(loaded.resolved), encoding="utf-8")
    assert load_sweep(tmp_path / "again.yaml").runs == loaded.runs
    said = f"policies start from {models / 'start'} and are compared with the reference {models / 'other'}"
    assert said in data_notes(loaded.runs) and said not in data_notes(loaded.runs[:1])
    (models / "other").rename(models / "moved")
    try:
        model["reference"] = ["", str(models / "moved")]
        moved = sweep(tmp_path, models / "start", data, model=model, objectives=[{"name": "dpo"}])
        assert list(map(run_key, moved.runs)) == list(map(run_key, loaded.runs))
    finally:
        (models / "moved").rename(models / "other")


def test_references_that_cannot_be_compared_with_are_refused(models: Path, data: Path, tmp_path: Path) -> None:
    def said(reference: Path | str, **sections) -> str:
        model = {"path": str(models / "start"), "lora": {"rank": 4}, "reference": str(reference)}
        with pytest.raises(InputError) as caught:
            sweep(tmp_path, models / "start", data, model=model, **sections)
        return "\n".join(caught.value.problems)

    other = tmp_path / "tokens"
    write("llama", other, 2)
    tokens = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    one, two = sorted(vocabulary, key=vocabulary.get)[50:52]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    assert "model.reference: 2 tokens have other ids" in said(other)
    assert "model.reference: is a file" in said(models / "start" / "config.json")
    assert "objective 'rloo': samples from the reference" in said(models / "other", objectives=[{"name": "rloo"}])
    write("llama", tmp_path / "short", 2, max_position_embeddings=32)
    assert "40 tokens, the model has 32 positions" in said(tmp_path / "short")
