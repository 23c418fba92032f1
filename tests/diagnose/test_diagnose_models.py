"""Small random models scored end to end: equal to transformers' own forward, and what cannot be scored is refused."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.cli import run as command
from harness.diagnose import scoring
from harness.diagnose.asked import Asked
from harness.diagnose.run import run
from harness.storage.logps_file import read_logps
from harness.types import InputError
from tests.models.families import write

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
SECRET = "xylophone"  # in every text, and on no page


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write("llama", folder / "base", 0)
    write("llama", folder / "checkpoint-10", 1)
    write("llama", folder / "checkpoint-200", 2)
    return folder


def write_pairs(path: Path, column: str, seed: int = 0) -> Path:
    draw = random.Random(seed)
    text = lambda n: " ".join([SECRET, *(draw.choice(WORDS) for _ in range(n))])  # noqa: E731
    turn = lambda role, n: [{"role": role, "content": text(n)}]  # noqa: E731
    asked = [turn("user", 5) for _ in range(12)]
    rows = [
        {"prompt": asked[i // 2], "chosen": turn("assistant", 6), "rejected": turn("assistant", 3), column: f"k{i % 2}"}
        for i in range(24)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", "kind")


def asked(out: Path, data: Path, models: Path, **more: Any) -> Asked:
    given = {"policies": [str(models / "checkpoint-10")], "reference": str(models / "base"), "beta": 0.1, **more}
    return Asked(out=out, data=str(data), device="cpu", **given)


def quiet(_: str) -> None:
    pass


def direct(folder: Path, row: dict[str, Any], side: str) -> tuple[float, int]:
    """Summed log-prob and token count of an answer by one plain forward."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*row["prompt"], *row[side]], tokenize=False)
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logps = model.double()(ids).logits.log_softmax(-1)[0, start - 1 : -1]
    return float(logps.gather(-1, ids[0, start:, None]).sum()), ids.shape[1] - start


def test_scores_are_those_of_a_plain_forward(models: Path, data: Path, tmp_path: Path) -> None:
    run(asked(tmp_path, data, models), quiet)
    read = read_logps(tmp_path / "pairs.parquet").columns
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for at in (0, 7, 23):
        row = rows[read["row"][at] - 1]
        for model, folder in (("policy", models / "checkpoint-10"), ("reference", models / "base")):
            for side in ("chosen", "rejected"):
                logp, length = direct(folder, row, side)
                assert read[f"{model}_{side}"][at] == pytest.approx(logp, rel=1e-5)
                assert read[f"{side}_len"][at] == length


def test_the_four_files_and_a_page_without_texts(models: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["diagnose", "--policy", models / "checkpoint-10", "--policy", models / "checkpoint-200", "--reference",
             models / "base", "--data", data, "--beta", "0.1", "--slices", "kind",
             "--out", out, "--device", "cpu"]  # fmt: skip
    assert command([str(word) for word in words]) == 0
    assert {"diagnosis.json", "pairs.parquet", "index.html", "report.md"} <= {path.name for path in out.iterdir()}
    for path in out.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    found = json.loads((out / "diagnosis.json").read_text())
    assert found["pairs"] == 24
    assert [one["name"] for one in found["policies"]] == [str(models / f"checkpoint-{n}") for n in (10, 200)]
    assert {one["value"] for one in found["policies"][0]["slices"]} == {"k0", "k1"}
    assert {one["measure"] for one in found["comparisons"]} >= {"ranking_accuracy", "reward_margin"}
    page = (out / "index.html").read_text()
    assert "row " in page
    assert "<script" not in page
    # The file that was written is read again, to the same answer.
    assert (
        command(["diagnose", "--logps", str(out / "pairs.parquet"), "--slices", "kind", "--out", str(tmp_path / "b")])
        == 0
    )
    again = json.loads((tmp_path / "b" / "diagnosis.json").read_text())
    assert again["policies"] == found["policies"]


def test_a_pattern_is_one_policy_over_its_steps(models: Path, data: Path, tmp_path: Path) -> None:
    found = run(asked(tmp_path, data, models, policies=[str(models / "checkpoint-*")]), quiet)
    [policy] = found.policies
    assert [point.step for point in policy.trajectory] == [10, 200]
    assert policy.step == 200
    assert "Over the checkpoints" in (tmp_path / "index.html").read_text()


def test_a_tracked_diagnosis_is_a_run_with_a_point_per_checkpoint(models: Path, data: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run(asked(tmp_path, data, models, policies=[str(models / "checkpoint-*")], track=True), quiet)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("diagnosis")
    [found] = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(found.info.run_id, "geometry/ranking_accuracy")
    assert [point.step for point in points] == [10, 200]
    assert found.data.tags["harness.verdict"] == json.loads((tmp_path / "diagnosis.json").read_text())["policies"][0][
        "verdict"]["kind"]  # fmt: skip
    assert {file.path for file in client.list_artifacts(found.info.run_id, "diagnosis")} >= {"diagnosis/index.html"}


@pytest.mark.parametrize("as_training", [True, False])
def test_the_ledger_of_corrupt_finds_the_flipped_pairs(
    as_training: bool, models: Path, data: Path, tmp_path: Path
) -> None:
    noisy = tmp_path / "noisy.jsonl"
    words = ["corrupt", "--data", str(data), "--kind", "uniform_flip", "--rate", "0.5", "--out", str(noisy)]
    assert command(words) == 0
    texts = {line["chosen"][0]["content"] for line in map(json.loads, data.read_text().splitlines())}
    rows = [json.loads(line) for line in noisy.read_text().splitlines()]
    flipped = [row for row in rows if row["chosen"][0]["content"] not in texts]
    assert 6 < len(flipped) < 18
    given = {"ledger": tmp_path / "noisy.ledger.parquet", "train_data": str(noisy) if as_training else ""}
    found = run(asked(tmp_path / "out", data if as_training else noisy, models, **given), quiet)
    assert found.policies[0].memorised is not None
    assert found.policies[0].memorised.wrong == len(flipped)
    assert found.policies[0].memorised.n == (24 if as_training else len(flipped))
    assert found.pairs == (24 if as_training else 24 - len(flipped))


def test_an_interrupted_scoring_goes_on_where_it_stopped(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 4)
    monkeypatch.setattr(scoring, "SAVED", 0.0)
    whole, scored = scoring.score_responses, []

    def counted(architecture: Any, weights: Any, pairs: Any, device: Any, ladder: bool) -> Any:
        if len(scored) == 4:
            raise KeyboardInterrupt
        scored.append(len(pairs))
        return whole(architecture, weights, pairs, device, ladder)

    monkeypatch.setattr(scoring, "score_responses", counted)
    with pytest.raises(KeyboardInterrupt):
        run(asked(tmp_path, data, models), quiet)
    assert scored == [4] * 4
    monkeypatch.setattr(
        scoring, "score_responses", lambda *given, **more: scored.append(len(given[2])) or whole(*given, **more)
    )
    first = run(asked(tmp_path, data, models), quiet)
    assert scored == [4] * 12  # 24 pairs under two models, none of them twice
    again = run(asked(tmp_path, data, models), quiet)
    assert len(scored) == 12
    assert again.policies[0].estimates == first.policies[0].estimates


def adapter(base: Path, folder: Path, **config: Any) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(
            r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", init_lora_weights=False, **config
        ),
    )
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("config", [{}, {"use_rslora": True, "rank_pattern": {"q_proj": 2}}, {"use_dora": True}])
def test_an_adapter_is_scored_over_the_base_it_names(
    config: dict[str, Any], models: Path, data: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    trained = adapter(models / "base", tmp_path / "adapter", **config)
    merged = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(models / "base"), trained
    ).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(models / "base").save_pretrained(tmp_path / "merged")
    run(asked(tmp_path / "a", data, models, policies=[str(trained)], reference=""), quiet)
    run(asked(tmp_path / "b", data, models, policies=[str(tmp_path / "merged")]), quiet)
    one, other = (read_logps(tmp_path / name / "pairs.parquet").columns for name in "ab")
    for name in ("policy_chosen", "policy_rejected", "reference_chosen"):
        assert one[name] == pytest.approx(other[name], rel=1e-5)
    assert abs(one["policy_chosen"] - one["reference_chosen"]).max() > 0.1


def refused(given: Asked) -> str:
    with pytest.raises(InputError) as error:
        run(given, quiet)
    assert not (given.out / "diagnosis.json").exists()
    return str(error.value)


def test_an_adapter_without_its_base(models: Path, data: Path, tmp_path: Path) -> None:
    trained = adapter(models / "base", tmp_path / "adapter")
    config = json.loads((trained / "adapter_config.json").read_text())
    (trained / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/nowhere/base"}))
    said = refused(asked(tmp_path / "out", data, models, policies=[str(trained)], reference=""))
    assert "its base (base_model_name_or_path of its config): no such folder: /nowhere/base" in said


def test_what_is_given_wrongly_is_said_in_a_line(models: Path, data: Path, tmp_path: Path) -> None:
    def said(**more: Any) -> str:
        return refused(asked(tmp_path / "out", data, models, **more))

    assert "matches no folder" in said(policies=[str(models / "step-*")])
    assert "name the model that training started from" in said(reference="")
    assert "x.gguf: cannot be read (No such file" in said(policies=[str(models / "x.gguf")])
    assert "no pair is left at 5 tokens" in said(max_length=5)
    assert "no column colour" in said(slices=["colour"])
    assert "given twice" in said(policies=[str(models / "checkpoint-10")] * 2)
    assert "one of the two" in refused(Asked(out=tmp_path / "out"))


def test_two_vocabularies_are_refused(models: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(models / "base", other)
    tokens = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    one, two = sorted(vocabulary, key=vocabulary.get)[50:52]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    assert "have different vocabularies (2 tokens have other ids)" in refused(
        asked(tmp_path / "out", data, models, reference=str(other))
    )


def test_a_template_that_refuses_the_turns(models: Path, data: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict"
    shutil.copytree(models / "checkpoint-10", strict)
    tokenizer = AutoTokenizer.from_pretrained(strict)
    tokenizer.chat_template = "{{ raise_exception('no users here') }}"
    tokenizer.save_pretrained(strict)
    assert "the chat template refuses these turns (no users here)" in refused(
        asked(tmp_path / "out", data, models, policies=[str(strict)])
    )


def test_pairs_beyond_the_context_are_refused(models: Path, data: Path, tmp_path: Path) -> None:
    short = write("llama", tmp_path / "short", max_position_embeddings=16)
    said = refused(asked(tmp_path / "out", data, models, policies=[str(short)]))
    assert "the model has 16 positions" in said
    assert "--max-length" in said


def test_reference_scores_of_a_file_are_used_only_for_the_tokens_they_are_of(
    models: Path, data: Path, tmp_path: Path
) -> None:
    first = run(asked(tmp_path / "a", data, models), quiet)
    scores = tmp_path / "a" / "pairs.parquet"
    other = asked(tmp_path / "b", data, models, reference=str(scores))
    assert run(other, quiet).policies[0].estimates == first.policies[0].estimates
    assert "holds 0 of the 48 responses" in refused(
        asked(tmp_path / "c", data, models, reference=str(scores), tokens="cpo")
    )
    changed = tmp_path / "changed.jsonl"
    changed.write_text(data.read_text().replace("cat", "dog", 1))
    assert "of the 48 responses with these token ids" in refused(
        asked(tmp_path / "d", changed, models, reference=str(scores))
    )
    bare = pq.read_table(scores).drop_columns(["tokens"])
    pq.write_table(bare, tmp_path / "bare.parquet")
    assert "rows without `tokens`" in refused(
        asked(tmp_path / "e", data, models, reference=str(tmp_path / "bare.parquet"))
    )


def test_template_arguments_reach_the_template(
    models: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("base", "checkpoint-10"):
        shutil.copytree(models / name, tmp_path / name)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        tokenizer.chat_template = "{{ 'so ' if thinking is defined and not thinking }}" + tokenizer.chat_template
        tokenizer.save_pretrained(tmp_path / name)

    def keys(out: str, *more: str) -> list[str]:
        words = ["diagnose", "--policy", str(tmp_path / "checkpoint-10"), "--reference", str(tmp_path / "base")]
        assert command([*words, "--data", str(data), "--limit", "4", "--out", str(tmp_path / out), *more]) == 0
        return read_logps(tmp_path / out / "pairs.parquet").columns["tokens"].tolist()

    plain = keys("plain")
    assert keys("same", "--template-arguments", "{thinking: true}") == plain
    assert not set(keys("other", "--template-arguments", '{"thinking": false}')) & set(plain)
    assert command(["diagnose", "--data", str(data), "--template-arguments", "no mapping"]) == 2
    assert "--template-arguments: 'no mapping' is no mapping" in capsys.readouterr().err
