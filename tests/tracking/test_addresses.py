"""Folders with any name; addresses that cannot be used: asked before training, one line each, no password in it."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from harness.cli import run as command
from harness.commands import doctor
from harness.evaluation import lm_eval
from harness.evaluation.preference_task import write_task
from harness.storage.databases import driver_problem, sqlite_file, sqlite_url
from harness.study.storage import storage_problem
from harness.tracking.connection import default_uri, open_client, tracking_problem
from harness.tracking.outbox import Outbox, sync
from harness.types import InputError
from tests.commands import harness
from tests.tracking.sweeps import make_sweep

ODD = "a ?b#c%20d'é\"[x]{SCHEMA_VERSION}&k=v;+*"
MISSING = "postgresql://someone:hunter2@127.0.0.1:1/mlflow"  # SQLAlchemy takes it for psycopg, which is not installed
SPEC: dict[str, Any] = {
    "name": "tiny",
    "world": {
        "kind": "mythworld", "pairs": 32, "pretrain_steps": 2, "pretrain_batch": 8, "sft_steps": 2, "sft_batch": 8,
    },
    "objectives": [{"name": "dpo"}],
    "training": {"steps": 2, "batch_size": 8},
    "evaluation": {"checkpoints": 2, "heldout": 16, "probe": 8, "ood": 0, "samples": 0},
    "device": "cpu",
}  # fmt: skip


def spec(folder: Path, **changes: object) -> Path:
    (folder / "s.yaml").write_text(yaml.safe_dump({**SPEC, **changes}), encoding="utf-8")
    return folder / "s.yaml"


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    out = tmp_path / ODD
    out.mkdir()
    sweep = make_sweep(out, objectives=("dpo",), rates=(0.0,))
    assert Outbox(sweep).finish() == 0
    client = open_client(default_uri(out))
    (experiment,) = [one for one in client.search_experiments() if one.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    assert [file.path for run in runs for file in client.list_artifacts(run.info.run_id, "report")] == [
        "report/index.html"
    ]
    optuna.create_study(study_name="one", storage=sqlite_url(out / "optuna.db"))
    include = write_task(out / "cache", [{"id": "1", "prompt": "p", "choices": ["a", "b"], "label": 0}])
    assert lm_eval.open_tasks(["preference"], include)["preference"].eval_docs[0]["prompt"] == "p"
    for name in ("mlflow.db", "optuna.db", "mlartifacts"):
        assert (out / name).exists(), name
    assert [path.name for path in tmp_path.iterdir()] == [ODD]  # nothing lies beside it
    assert sqlite_file(sqlite_url(out / "optuna.db")) == (out / "optuna.db").resolve()
    with pytest.raises(InputError, match="is MLflow's database"):
        storage_problem(default_uri(out), tmp_path, tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        (MISSING, r"its driver psycopg is not installed; write postgresql\+psycopg2://"),
        ("mysql://h/x", "its driver MySQLdb is not installed; pip install mysqlclient"),
        ("mysql+pymysql://h/x", "its driver pymysql is not installed; pip install pymysql"),
        ("postgresql+bogus://h/x", "SQLAlchemy knows no database 'postgresql"),
        ("postgresql://h:port/x", "not the URL of a database"),
        ("bogus://me:hunter2@h/x", "unsupported URI 'bogus://h/x'"),
        ("http:/h", "no address of a server"),
        ("http://h:port", "no address of a server"),
        ("http://127.0.0.1:5000", "^$"),
        ("sqlite:///x.db", "^$"),
    ],
)
def test_what_an_address_lacks_is_said_without_connecting(uri: str, problem: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", None)
        said = tracking_problem(uri)
    assert re.search(problem, said), said
    assert "hunter2" not in said and "\n" not in said


def test_a_sweep_whose_tracking_driver_is_missing_ends_with_results_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", MISSING)
    done = harness("sweep", spec(tmp_path), "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    warnings = [line for line in lines if "its driver psycopg is not installed" in line]
    assert len(warnings) == 1 and lines.index(warnings[0]) <= 1, done.stdout
    folder = tmp_path / "runs" / "tiny"
    assert any(line.endswith(f"points waiting, run harness sync {folder}") for line in lines), done.stdout
    assert (folder / "results.csv").is_file() and (folder / "report" / "index.html").is_file()
    again = harness("sync", folder)
    assert again.returncode == 1
    assert [line for line in again.stderr.splitlines() if "psycopg is not installed" in line] == [
        again.stderr.strip()
    ], again.stderr
    assert "hunter2" not in done.stdout + done.stderr + again.stdout + again.stderr
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert harness("sync", folder).returncode == 0


def test_artifacts_whose_client_is_missing_cost_a_line(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    sweep = make_sweep(out, rates=(0.0,))
    monkeypatch.setattr(MlflowClient, "log_artifact", missing)
    assert Outbox(sweep).finish() == 0
    assert "No module named 'boto3'" in capsys.readouterr().err
    assert sync(sweep) == 1  # the report is still to be sent
    monkeypatch.undo()
    assert sync(sweep) == 0


@pytest.mark.parametrize("url", ["postgresql://h/x", "mysql://h/x", "postgresql+bogus://h/x"])
def test_a_study_whose_storage_cannot_be_opened_is_refused_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    searched = {"storage": url, "trials": 1, "targets": [{"measure": "ranking_accuracy"}]}
    assert command(["study", str(spec(tmp_path, **searched)), "--out", str(tmp_path / "runs")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"storage: {url}: {driver_problem(url)}" in line
    assert not (tmp_path / "runs").exists()


def test_doctor_asks_for_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", MISSING)
    finding = doctor.tracking(tmp_path)
    assert finding.state == doctor.BAD and "driver psycopg is not installed" in finding.text
    assert "hunter2" not in finding.text + finding.fix


def test_the_dashboard_needs_no_folder_where_a_server_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://me:hunter2@127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setattr("harness.tracking.server.open_client", lambda uri: Empty())
        assert command(["dashboard"]) == 0
    assert capsys.readouterr().out.startswith("no sweep yet: http://")
    assert command(["dashboard"]) == 1  # it has gone
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("MLFLOW_TRACKING_URI http://127.0.0.1") and "hunter2" not in line
    monkeypatch.setenv("MLFLOW_TRACKING_URI", MISSING)
    assert command(["dashboard"]) == 2
    assert "driver psycopg is not installed" in capsys.readouterr().err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert command(["dashboard"]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class Empty:
    """A client of a server without sweeps."""

    def search_experiments(self, **_: object) -> list[object]:
        return []
