"""lm-eval through the harness: rendered choices, ties and order, paired intervals, and its own command's numbers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from harness.cli import run as command
from harness.config.load import load_sweep
from harness.data.rows import TokenisedPair
from harness.evaluation import lm_eval
from harness.evaluation.benchmarks import check_tasks
from harness.evaluation.preference_task import preference_docs, write_task
from harness.identity import run_key
from harness.metrics.benchmarks import document_values, paired_change, tie_share
from harness.metrics.statistics import newcombe_paired
from harness.storage.evaluations import read_evaluations, read_samples
from harness.storage.journal import read_journal
from harness.storage.runs import read_table
from harness.storage.verify import verify
from harness.types import InputError
from tests.commands import harness

WORDS = [
    "red",
    "green",
    "blue",
    "round",
    "square",
    "small",
    "large",
    "warm",
    "cold",
    "quiet",
    "loud",
    "old",
    "new",
    "soft",
]
SPEC: dict[str, Any] = {
    "name": "real",
    "data": {"path": "pairs.jsonl", "max_length": 48, "max_prompt_length": 20, "heldout": 0.4},
    "model": {"kind": "tiny", "vocab_size": 300, "hidden_size": 16, "layers": 1, "sft_steps": 10, "sft_batch": 8},
    "objectives": [{"name": "dpo", "beta": [0.1, 1.0]}],
    "training": {"steps": 8, "batch_size": 8, "learning_rate": 0.01},
    "evaluation": {
        "checkpoints": 2, "heldout": 24, "probe": 8, "ood": 0, "samples": 0, "keep": "final",
        "lm_eval": {"tasks": ["preference"], "limit": 20},
    },
    "device": "cpu",
}  # fmt: skip


def write_pairs(path: Path, count: int = 60) -> None:
    """Pairs whose chosen response names the prompt's words; some are longer than they may be."""
    lines = []
    for i in range(count):
        words = [WORDS[(i * 3 + k) % len(WORDS)] for k in range(3 + i % 4)]
        row = {
            "prompt": f"Say {i}: {' '.join(words)}",
            "chosen": f" {' '.join(words)}.",
            "rejected": f" no {words[0]}.",
        }
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep whose spec asks for lm-eval."""
    root = tmp_path_factory.mktemp("swept")
    write_pairs(root / "pairs.jsonl")
    (root / "spec.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    done = harness("sweep", root / "spec.yaml", "--out", root / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "runs" / "real"


def run_folders(swept: Path) -> list[Path]:
    return sorted(path.parent for path in swept.glob("*/result.json"))


def test_choices_are_rendered_and_scored_as_the_records_score_them(swept: Path) -> None:
    for folder in run_folders(swept):
        (found,) = read_evaluations(folder)
        samples = read_samples(folder, found)
        table = read_table(folder / "examples.parquet")
        last = (table["step"] == 8) & (table["split"] == "eval_clean")
        recorded = {
            name: (chosen, rejected)
            for name, chosen, rejected in zip(
                table["id"][last], table["policy_chosen"][last], table["policy_rejected"][last], strict=True
            )
        }
        assert found.n == len(samples) == 20 and found.limit == 20
        for sample in samples:
            label, doc = sample["doc"]["label"], sample["doc"]
            asked = [sample["arguments"][f"gen_args_{i}"] for i in (0, 1)]
            assert [one["arg_1"] for one in asked] == doc["choices"] and "{{" not in str(doc["choices"])
            assert {one["arg_0"] for one in asked} == {doc["prompt"]} and doc["prompt"].startswith("<bos>")
            scores = [float(response[0]) for response in sample["filtered_resps"]]
            assert (scores[label], scores[1 - label]) == pytest.approx(recorded[doc["id"]], rel=1e-4)
        assert [sample["doc"]["label"] for sample in samples] == [0, 1] * 10


def test_numbers_and_samples_are_those_of_lm_evals_own_command(swept: Path, tmp_path: Path) -> None:
    folder = run_folders(swept)[0]
    assert command(["export", str(folder), "--to", str(tmp_path / "model")]) == 0
    (include,) = {path.parent for path in (swept.parent / "cache" / "lm_eval").glob("*/preference.yaml")}
    arguments = [
        *("--model", "hf", "--model_args", f"pretrained={tmp_path / 'model'}", "--tasks", "preference"),
        *("--include_path", str(include), "--limit", "20", "--device", "cpu", "--batch_size", "16"),
        *("--log_samples", "--output_path", str(tmp_path / "own")),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *arguments],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "HF_DATASETS_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = (tmp_path / "own").rglob("results_*.json")
    theirs = json.loads(results.read_text(encoding="utf-8"))["results"]["preference"]
    (found,) = read_evaluations(folder)
    assert found.metrics["acc"] == theirs["acc,none"] and found.metrics["acc_norm"] == theirs["acc_norm,none"]
    (path,) = (tmp_path / "own").rglob("samples_preference_*.jsonl")
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    own = read_samples(folder, found)
    for mine, other in zip(own, sorted(written, key=lambda sample: sample["doc_id"]), strict=True):
        assert mine.keys() == other.keys()
        for name in ("doc", "doc_hash", "prompt_hash", "target_hash", "arguments", "target", "acc", "acc_norm"):
            assert mine[name] == other[name], name
        scores = [[float(response[0]) for response in one["filtered_resps"]] for one in (mine, other)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_changes_are_paired_with_the_reference_on_the_same_documents(swept: Path) -> None:
    (base,) = (swept / "references").iterdir()
    (reference,) = read_evaluations(base)
    assert reference.change == {} and reference.n == 20
    before = document_values(read_samples(base, reference), "acc")
    for folder in run_folders(swept):
        (found,) = read_evaluations(folder)
        after = document_values(read_samples(folder, found), "acc")
        assert found.data_hash == reference.data_hash and found.config_hash == reference.config_hash
        both = sum(after[i] * before[i] for i in after) / 20
        expected = newcombe_paired(sum(after.values()) / 20, sum(before.values()) / 20, both, 20)
        change = found.change["acc"]
        assert (change.mean, change.low, change.high) == (expected.mean, expected.low, expected.high)
        assert change.both == both and change.reference == reference.metrics["acc"]


def test_points_stand_in_the_journal_and_in_mlflow(swept: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{swept.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("real")
    assert experiment is not None
    runs = {run.data.tags.get("harness.run_key"): run for run in client.search_runs([experiment.experiment_id])}
    for folder in run_folders(swept):
        records = read_journal(folder / "lm_eval.jsonl")
        (point,) = [record for record in records if record["kind"] == "metrics"]
        key = json.loads((folder / "result.json").read_text())["run_key"]
        assert point["step"] == 8
        for name in ("lm_eval/preference/acc", "lm_eval/preference/acc_norm", "lm_eval/preference/acc_change"):
            assert runs[key].data.metrics[name] == pytest.approx(point[name], rel=1e-12)


def test_eval_prints_flat_metrics_and_does_nothing_twice(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folders(swept)[0]
    before = (folder / "lm_eval.jsonl").stat().st_mtime_ns
    assert command(["eval", str(folder), "--limit", "20", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (found,) = read_evaluations(folder)
    assert printed["lm_eval/preference/acc"] == found.metrics["acc"]
    assert printed["tasks"]["preference"]["library"] and printed["tasks"]["preference"]["num_fewshot"] == 0
    assert (folder / "lm_eval.jsonl").stat().st_mtime_ns == before
    assert command(["eval", str(folder), "--limit", "20", "--quiet"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["report"]
    assert command(["eval", str(folder), "--limit", "5"]) == 2  # of the same weights on fewer documents
    assert "--limit 5: preference of " in capsys.readouterr().err
    assert (folder / "lm_eval.jsonl").stat().st_mtime_ns == before


def test_the_report_and_the_checks_know_of_evaluations(swept: Path) -> None:
    assert verify(swept) == []
    samples = run_folders(swept)[1] / "samples_preference.jsonl"
    whole = samples.read_bytes()
    samples.write_bytes(whole.replace(b'"acc": 1', b'"acc": 0', 1))
    try:
        (line,) = verify(swept)
        assert "samples_preference.jsonl: does not match its checksum" in line
    finally:
        samples.write_bytes(whole)


def test_the_block_moves_no_run_key(swept: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl")
    keys = []
    for block in (None, {"tasks": ["preference"]}, {"tasks": ["preference", "arc_easy"], "limit": 3, "runs": "best"}):
        evaluation = {name: value for name, value in SPEC["evaluation"].items() if name != "lm_eval"}
        spec = {**SPEC, "evaluation": evaluation | ({"lm_eval": block} if block else {})}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec))
        loaded = load_sweep(tmp_path / "s.yaml")
        (tmp_path / "again.yaml").write_text(yaml.safe_dump(dict(loaded.resolved)))
        assert load_sweep(tmp_path / "again.yaml").lm_eval == loaded.lm_eval
        keys.append([run_key(run) for run in loaded.runs])
    assert keys[0] == keys[1] == keys[2]


# --- ties, order, what may run ---


def tiny() -> tuple[Any, Any]:
    """A model of zeros, to which every token is as likely as any other, and a byte tokenizer."""
    from transformers import PreTrainedTokenizerFast

    from harness.data.tokenize import train_tokenizer
    from harness.models.architecture import Architecture, skeleton

    model = skeleton(Architecture(300, 16, 1, 2, 32, 64)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    own = train_tokenizer(["x"], 300)
    made = PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    return model, made


def ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32)


def evaluated(tmp_path: Path, pairs: list[tuple[str, str, str]]) -> Any:
    docs = preference_docs(
        [TokenisedPair(str(i), *map(ids, pair)) for i, pair in enumerate(pairs)], lambda own: bytes(own).decode()
    )
    model, tokenizer = tiny()
    tasks = lm_eval.open_tasks(["preference"], write_task(tmp_path, docs))
    (result,) = lm_eval.evaluate(lm_eval.wrap(model, tokenizer), tasks, None)
    return result


def test_a_model_that_cannot_tell_is_right_half_the_time_and_its_ties_are_counted(tmp_path: Path) -> None:
    result = evaluated(tmp_path, [(f"prompt {i}:", " abc", " xyz") for i in range(10)])
    assert result.metrics["acc"] == 0.5 and tie_share(result.samples) == 1.0


def test_neither_place_is_better(tmp_path: Path) -> None:
    """The shorter response is likelier to a uniform model, wherever it stands."""
    result = evaluated(tmp_path, [(f"prompt {i}:", " ab", " abcdef") for i in range(10)])
    assert result.metrics["acc"] == 1.0 and tie_share(result.samples) == 0.0
    result = evaluated(tmp_path, [(f"prompt {i}:", " abcdef", " ab") for i in range(10)])
    assert result.metrics["acc"] == 0.0


def test_braces_in_the_data_are_data(tmp_path: Path) -> None:
    result = evaluated(tmp_path, [("{{ 7 * 7 }}:", " {{prompt}}", " {% raw %}"), ("b:", " {{choices}}", " plain")])
    asked = [[one["arg_1"] for one in sample["arguments"].values()] for sample in result.samples]
    assert asked == [[" {{prompt}}", " {% raw %}"], [" plain", " {{choices}}"]]
    assert result.samples[0]["arguments"]["gen_args_0"]["arg_0"] == "{{ 7 * 7 }}:"


def test_only_tasks_of_the_list_run() -> None:
    assert check_tasks(["preference", "arc_easy", "preference"], "tasks") == ("preference", "arc_easy")
    for name, why in {"humaneval": "runs code that a model wrote", "arc_eazy": "did you mean 'arc_easy'"}.items():
        with pytest.raises(InputError, match=why):
            check_tasks([name], "tasks")


def test_a_task_that_runs_code_is_refused_even_where_it_is_allowed(tmp_path: Path) -> None:
    folder = write_task(tmp_path, [{"id": "1", "prompt": "p", "choices": ["a", "b"], "label": 0}])
    config = yaml.safe_load((folder / "preference.yaml").read_text())
    (folder / "preference.yaml").write_text(yaml.safe_dump({**config, "unsafe_code": True}))
    with pytest.raises(InputError, match="asks for code to be run"):
        lm_eval.open_tasks(["preference"], folder)


def test_no_task_file_of_the_working_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "arc_easy.yaml").write_text("task: arc_easy\ndoc_to_text: !function mark.mark\n")
    (tmp_path / "mark.py").write_text("open('marker', 'w').close()\ndef mark(doc): return 'x'\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"'arc_easy' cannot be loaded .* offline, its data must already be in"):
        lm_eval.open_tasks(["arc_easy"])
    assert not (tmp_path / "marker").exists()


def test_a_document_metric_that_is_no_share_has_a_t_interval() -> None:
    change, both = paired_change({1: 2.0, 2: 4.0, 3: 0.5}, {1: 1.0, 2: 1.0, 3: 0.5, 4: 9.0})
    assert both is None and change.n == 3 and change.mean == pytest.approx(4 / 3)
    assert document_values([{"doc_id": 0, "f1": 0.5, "filter": "none"}], "f1") == {0: 0.5}


@pytest.mark.parametrize(
    ("evaluation", "line"),
    [
        ({"lm_eval": {"tasks": "humaneval"}, "keep": "final"}, "evaluation.lm_eval.tasks: 'humaneval' runs code"),
        ({"lm_eval": {"tasks": ["preference"]}}, "evaluation.lm_eval: the weights of a model that the sweep builds"),
        ({"lm_eval": {"taks": ["preference"]}}, "evaluation.lm_eval.taks: unknown key; .*did you mean 'tasks'"),
        ({"lm_eval": {"limit": 0}}, r"evaluation.lm_eval.limit: 0; expected an integer in \[1, "),
        ({"lm_eval": {"tasks": []}}, r"evaluation.lm_eval.tasks: \[\]; expected a list of task names"),
        ({"lm_eval": {"runs": "some"}}, "evaluation.lm_eval.runs: 'some'; expected one of all, best, flagged"),
        ({"lm_eval": [1]}, "evaluation.lm_eval: .* is not a mapping"),
    ],
)
def test_bad_blocks_stop_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluation: dict[str, Any], line: str
) -> None:
    write_pairs(tmp_path / "pairs.jsonl")
    spec = {**SPEC, "evaluation": {"checkpoints": 2, "heldout": 8, "samples": 0, **evaluation}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec))
    assert command(["sweep", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "runs")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(line, lines[0]), lines
