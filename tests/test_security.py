"""What others wrote is data: it runs no code, leads to no other path; no secret of the user's goes into any file."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.cli import run
from harness.config.load import load_sweep
from harness.storage.arrays import load_arrays
from harness.storage.checkpoints import load_checkpoints, save_checkpoint
from harness.storage.runs import open_run
from harness.sweep.run import SweepOptions, run_sweep
from harness.text import slug
from harness.tracking.server import serve
from harness.types import InputError
from harness.worker.checkpointing import HEADS, RECORDS, STATE, resume

CANARY = "canary-4f1c9e77d2"
SPEC = {
    "name": "secret",
    "world": {
        "kind": "mythworld", "misaligned": 0.5, "pairs": 32,
        "pretrain_steps": 4, "pretrain_batch": 8, "sft_steps": 2, "sft_batch": 8,
    },
    "objectives": [{"name": "dpo", "beta": 0.5}],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.4}],
    "training": {"steps": 4, "batch_size": 8},
    "evaluation": {"checkpoints": 2, "heldout": 16, "probe": 16, "ood": 8, "samples": 4},
    "seeds": 1,
    "device": "cpu",
}  # fmt: skip


class Payload:
    """Unpickled, it would make the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


# No pickle


def test_a_crafted_checkpoint_is_refused_and_runs_nothing(tmp_path):
    """A manifest that fits, around files that are pickles: whole, but not believed."""
    marker, key = tmp_path / "marker", "0" * 64
    bad = pickle.dumps(Payload(marker))
    heads = json.dumps({"run_key": key, "seconds": 1.0, "records": []}).encode()
    for step, files in enumerate([{STATE: bad, RECORDS: bad, HEADS: heads}, {STATE: bad, RECORDS: bad, HEADS: bad}], 1):
        save_checkpoint(tmp_path, step, files)
    assert len(list(load_checkpoints(tmp_path))) == 2
    assert resume([(tmp_path, key)], together=False) == [None]
    assert not marker.exists()
    pickle.loads(bad)  # the payload itself works
    assert marker.exists()


@pytest.mark.parametrize("name", ["model.safetensors", ".metadata", "adapter_model.bin", "data.pkl"])
def test_crafted_caches_run_nothing(tmp_path, name):
    marker = tmp_path / "marker"
    (tmp_path / name).write_bytes(pickle.dumps(Payload(marker)))
    assert load_arrays(tmp_path / name, "key") is None
    assert not marker.exists()


@pytest.mark.parametrize(
    ("file", "fragment"),
    [
        ("pytorch_model.bin", "could run code"),
        ("model.pt", "could run code"),
        ("adapter_model.bin", ""),
        (".metadata", ""),  # of a torch distributed checkpoint
    ],
)
def test_a_model_folder_with_pickles_is_refused_before_anything_is_loaded(tmp_path, file, fragment, capsys):
    marker, folder = tmp_path / "marker", tmp_path / "model"
    folder.mkdir()
    (folder / file).write_bytes(pickle.dumps(Payload(marker)))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    spec = {k: v for k, v in SPEC.items() if k != "world"}
    spec |= {"data": {"path": "p.jsonl"}, "model": {"path": str(folder)}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec))
    assert run(["plan", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert fragment in said and "model.path" in said and "Traceback" not in said
    assert not marker.exists()


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal"])
def test_a_model_that_brings_code_is_refused(tmp_path, key, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", key: {"AutoModel": "evil.Model"}}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    spec = {k: v for k, v in SPEC.items() if k != "world"}
    spec |= {"data": {"path": "p.jsonl"}, "model": {"path": str(folder)}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec))
    assert run(["plan", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "runs")]) == 2
    assert key in capsys.readouterr().err
    assert not (tmp_path / "marker").exists()


# Names never become paths


@given(st.text(max_size=400))
def test_any_name_becomes_one_plain_part_of_a_path(text):
    part = slug(text)
    assert (
        1 <= len(part) <= 64
        and not part.startswith(".")
        and set(part) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    )


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "..", "a/../../b", "CON", "x" * 300, "a\0b", "a\u2215b", "~", "-rf", "$HOME"]
)
def test_odd_names_stay_inside(tmp_path, name):
    folder, _ = open_run(tmp_path, "0123456789abcdef", name)
    assert folder.parent == tmp_path and folder.resolve().is_relative_to(tmp_path.resolve())


def test_a_run_folder_that_is_a_link_is_refused_and_what_it_points_to_stays(tmp_path):
    elsewhere, sweep = tmp_path / "elsewhere", tmp_path / "sweep"
    elsewhere.mkdir()
    sweep.mkdir()
    (elsewhere / "precious").write_text("x")
    (sweep / "01234567-run").symlink_to(elsewhere)
    with pytest.raises(InputError, match="symbolic link"):
        open_run(sweep, "0123456789abcdef", "run")
    assert (elsewhere / "precious").exists()


# Secrets


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A sweep with a secret in the environment, and one in the address of its tracking server."""
    root = tmp_path_factory.mktemp("secret")
    (root / "s.yaml").write_text(yaml.safe_dump(SPEC))
    names = {"HF_TOKEN": CANARY, "OPENAI_API_KEY": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY}
    names["MLFLOW_TRACKING_URI"] = f"http://someone:{CANARY}@127.0.0.1:9"
    before = os.umask(0o077)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        with (root / "said").open("w") as said, patch.context() as inner:
            inner.setattr(sys, "stderr", said)
            code = run_sweep(load_sweep(root / "s.yaml"), root / "runs", 1, Console(file=said), SweepOptions("inline"))
        assert code == 0
        patch.delenv("MLFLOW_TRACKING_URI")
        assert run(["sync", str(root / "runs" / "secret")]) == 0
    os.umask(before)
    return root


def test_no_file_database_or_page_holds_a_secret(swept):
    files = [path for path in swept.rglob("*") if path.is_file()]
    assert {"index.html", "mlflow.db", "provenance.json", "events.jsonl", "said"} <= {path.name for path in files}
    assert "points waiting" in (swept / "said").read_text()
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_only_the_owner_reads_or_writes(swept):
    open_to_others = [path for path in (swept / "runs").rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_the_database_has_no_row_with_a_path_of_another_user_or_environment(swept):
    with sqlite3.connect(swept / "runs" / "mlflow.db") as connection:
        text = "\n".join(connection.iterdump())
    assert CANARY not in text and "AWS_SECRET" not in text


def test_a_study_keeps_the_password_of_its_storage_to_itself(tmp_path, capsys):
    study = {k: v for k, v in SPEC.items() if k not in ("seeds",)} | {
        "name": "s", "objectives": [{"name": "dpo"}], "seeds": 1, "fresh_seeds": 1, "trials": 2,
        "targets": [{"measure": "ranking_accuracy"}], "storage": f"postgresql://u:{CANARY}@127.0.0.1:1/x",
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    assert run(["study", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert "holds a password" in told and "PGPASSWORD" in told and CANARY not in told
    assert not (tmp_path / "runs").exists()


# Servers


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "8.8.8.8"])
def test_a_server_that_other_machines_reach_is_refused(tmp_path, host):
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(InputError, match="other machines can reach it"):
        serve(tmp_path, host=host)


def ask(url: str, headers: dict[str, str], body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


@pytest.mark.slow
def test_the_running_server_refuses_foreign_hosts_origins_and_parts(swept, tmp_path):
    shutil.copytree(swept / "runs", tmp_path / "runs")
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "dashboard", "--out", str(tmp_path / "runs")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    try:
        line = ""
        until = time.monotonic() + 120
        while "http://127.0.0.1:" not in line and time.monotonic() < until:
            line = process.stdout.readline()
        base = "http://127.0.0.1:" + line.partition("http://127.0.0.1:")[2].partition("/")[0].strip()
        port = base.rpartition(":")[2]
        assert ask(f"{base}/", {}) == 200
        search = f"{base}/ajax-api/2.0/mlflow/experiments/search"
        plain = {"Content-Type": "application/json"}
        assert ask(search, plain, b'{"max_results": 5}') == 200
        for host in ("evil.example", "192.168.1.5", f"192.168.1.5:{port}", "10.0.0.1"):
            assert ask(search, {**plain, "Host": host}, b"{}") == 403, host
        for origin in ("https://evil.example", "http://localhost:3000", "null", "http://192.168.1.5"):
            assert ask(search, {**plain, "Origin": origin}, b"{}") == 403, origin
        create = f"{base}/ajax-api/2.0/mlflow/experiments/create"
        body = json.dumps({"name": "x", "artifact_location": "file:///etc"}).encode()
        assert ask(create, plain, body) == 403
        for closed in ("ajax-api/3.0/jobs/search", "ajax-api/3.0/mlflow/assistant/message", "gateway/x"):
            assert ask(f"{base}/{closed}", plain, b"{}") == 404, closed
        listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True).stdout.splitlines()
        own = [row for row in listening if f":{port} " in row]
        assert own and all("127.0.0.1:" in row.split()[3] for row in own)
    finally:
        process.terminate()
        process.wait(30)


# Reports


def test_the_report_forbids_everything_that_is_not_in_it(swept):
    page = (swept / "runs" / "secret" / "report" / "index.html").read_text()
    assert "default-src 'none'" in page and "Content-Security-Policy" in page
    assert page.count("<script") == 1 and "script-src 'sha256-" in page, "the one script that the policy names"
    for word in ("javascript:", "http://", "https://"):
        assert word not in page.replace("http://www.w3.org/", ""), word
