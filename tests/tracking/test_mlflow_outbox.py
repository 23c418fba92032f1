"""MLflow's history is the journals' points, each once, whatever was killed, sent twice or away for a while."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.storage.journal import read_journal
from harness.storage.plan_file import PRIVATE
from harness.storage.runs import find_run, load_result
from harness.tracking import connection as mlflow_store
from harness.tracking import outbox as outbox_module
from harness.tracking.connection import SHORT, default_uri, network_kind, open_client
from harness.tracking.outbox import ACKS, Outbox, sync
from harness.tracking.rows import Point, read_plan, run_row, thinned
from harness.types import InputError
from tests.tracking.sweeps import POINTS, T0, commit_run, make_sweep, read_runs, write_plan


def runs_of(out: Path, name: str = "tiny", kind: str = "run") -> list[Any]:
    """The active MLflow runs of a sweep."""
    client = open_client(default_uri(out))
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id], filter_string=f"tags.`harness.kind` = '{kind}'"))


def history(out: Path, name: str = "tiny") -> list[tuple[str, str, int, int, float]]:
    """Every metric point of every active run as (run key, name, step, timestamp, value)."""
    client = open_client(default_uri(out))
    return sorted(
        (run.data.tags["harness.run_key"], m.key, m.step, m.timestamp, m.value)
        for run in runs_of(out, name)
        for key in run.data.metrics
        for m in client.get_metric_history(run.info.run_id, key)
    )


def journals(sweep: Path, t0: int = T0) -> list[tuple[str, str, int, int, float]]:
    """The same points as the journals of the planned runs have them."""
    found = []
    for run in read_runs(sweep):
        folder = find_run(sweep, run["run_key"])
        assert folder is not None
        for record in read_journal(folder / "events.jsonl"):
            if record["kind"] == "metrics":
                step = record["step"]
                names = set(record) - {"kind", "step"}
                found += [(run["run_key"], name, step, t0 + step, record[name]) for name in names]
    return sorted(found)


def test_the_history_is_the_journal_and_a_replay_changes_nothing(out: Path) -> None:
    sweep = make_sweep(out)
    outbox = Outbox(out / "tiny")
    sent = [outbox.deliver(path.parent) for path in sorted(sweep.glob("*/result.json"))]
    assert sent == [POINTS] * 4
    assert history(out) == journals(sweep)
    assert outbox.finish() == 0
    (sweep / ACKS).unlink()  # as if the process had been killed before any acknowledgement
    assert Outbox(sweep).finish() == 0
    assert history(out) == journals(sweep)
    assert len(runs_of(out)) == 4
    (own,) = runs_of(out, kind="sweep")
    client = open_client(default_uri(out))
    assert "report/index.html" in [file.path for file in client.list_artifacts(own.info.run_id, "report")]
    experiment = client.get_experiment(own.info.experiment_id)
    link = f"#/experiments/{experiment.experiment_id}/runs/{own.info.run_id}/artifacts/report/index.html"
    assert f"[Report]({link})" in experiment.tags["mlflow.note.content"]


def test_another_writer_may_name_the_same_data_at_the_same_moment(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's server fails where a data set's row came to be between its look and its insert."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    sweep, real, failed = make_sweep(out), MlflowClient.log_inputs, []

    def log_inputs(self: MlflowClient, run_id: str, *given: Any) -> None:
        if run_id not in failed:
            failed.append(run_id)
            raise MlflowException('UniqueViolation: duplicate key value violates unique constraint "dataset_pk"')
        real(self, run_id, *given)

    monkeypatch.setattr(MlflowClient, "log_inputs", log_inputs)
    outbox = Outbox(out / "tiny")
    assert (outbox.finish(), outbox.reason, len(failed)) == (0, "", 4)
    assert history(out) == journals(sweep)
    assert all(run.inputs.dataset_inputs for run in runs_of(out))


def test_a_run_carries_what_the_contract_names(out: Path) -> None:
    sweep = make_sweep(out, objectives=["dpo"], rates=[0.4])
    Outbox(sweep).finish()
    (run,) = runs_of(out)
    (planned,) = read_runs(sweep)
    wanted = {
        "harness.sweep": "tiny",
        "harness.kind": "run",
        "harness.run_key": planned["run_key"],
        "harness.objective": "dpo",
        "harness.beta": "0.5",
        "harness.corruption": "uniform_flip",
        "harness.rate": "0.4",
        "harness.seed": "0",
        "harness.state": "done",
        "harness.current": "true",
        "mlflow.runColor": "#0072B2",
        "mlflow.runName": "dpo b=0.5 r=0.4 s0",
    }
    assert wanted.items() <= run.data.tags.items()
    params = {"objective.name": "dpo", "objective.beta": "0.5", "objective.log10_beta": "-0.30103"}
    params |= {"corruption.kind": "uniform_flip", "corruption.rate": "0.4", "world.misaligned": "0.75"}
    assert (params | {"train.learning_rate": "0.001", "seed": "0"}).items() <= run.data.params.items()
    (data,) = run.inputs.dataset_inputs
    assert len(data.dataset.digest) == 36
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", T0, T0 + 1500)


@pytest.mark.parametrize(("status", "shown"), [("diverged", "FINISHED"), ("failed", "FAILED"), ("stopped", "KILLED")])
def test_every_outcome_ends_its_run(out: Path, status: str, shown: str) -> None:
    sweep = make_sweep(out, objectives=["dpo"], rates=[0.0])
    (planned,) = read_runs(sweep)
    commit_run(sweep, planned, 0, status=status)
    Outbox(sweep).finish()
    (run,) = runs_of(out)
    assert (run.info.status, run.data.tags["harness.state"]) == (shown, status)


def test_a_kill_in_the_middle_of_a_run_is_completed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the run was made and part of its points were sent: the same MLflow run gets the rest."""
    sweep = make_sweep(out)
    monkeypatch.setattr(outbox_module, "METRICS_PER_CALL", 40)  # 51 points beside some 15 params: two calls

    class Killed(BaseException):
        """Stands for the end of the process."""

    outbox = Outbox(out / "tiny")
    client = outbox._connect().client
    calls = []
    log_batch = client.log_batch

    def dying(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        log_batch(*args, **kwargs)

    monkeypatch.setattr(client, "log_batch", dying)
    with pytest.raises(Killed):
        outbox.finish()
    (half,) = runs_of(out)
    assert half.info.status == "RUNNING"
    assert 0 < len(history(out)) < POINTS
    assert Outbox(sweep).finish() == 0
    assert history(out) == journals(sweep)
    assert half.info.run_id in [run.info.run_id for run in runs_of(out)]


def test_a_store_that_fails_in_the_middle_gets_no_second_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(out)
    outbox = Outbox(out / "tiny")
    client = outbox._connect().client
    with monkeypatch.context() as patch:
        patch.setattr(client, "log_inputs", lambda *_: (_ for _ in ()).throw(OSError("the server went away")))
        assert outbox.finish() == 4 * POINTS
    assert outbox.reason.endswith("the server went away")
    assert len(runs_of(out)) == 1
    assert outbox.finish() == 0
    assert history(out) == journals(sweep)
    assert len(runs_of(out)) == 4


def test_a_run_made_anew_replaces_the_old_one(out: Path) -> None:
    sweep = make_sweep(out, objectives=["dpo"], rates=[0.0])
    Outbox(sweep).finish()
    (planned,) = read_runs(sweep)
    commit_run(sweep, planned, seed=99, t0=T0 + 5000)
    assert Outbox(sweep).finish() == 0
    assert history(out) == journals(sweep, T0 + 5000)


def test_runs_that_left_the_plan_are_marked_and_come_back(out: Path) -> None:
    sweep = make_sweep(out)
    runs = read_runs(sweep)
    Outbox(sweep).finish()
    write_plan(sweep, runs[2:])  # dpo leaves: ipo keeps the colour it has in every sweep
    Outbox(sweep).finish()
    tags = {run.data.tags["harness.run_key"]: run.data.tags for run in runs_of(out)}
    assert [tags[run["run_key"]]["harness.current"] for run in runs] == ["false", "false", "true", "true"]
    assert tags[runs[2]["run_key"]]["mlflow.runColor"] == "#009E73"
    write_plan(sweep, runs)
    Outbox(sweep).finish()
    tags = {run.data.tags["harness.run_key"]: run.data.tags for run in runs_of(out)}
    assert {tags[run["run_key"]]["harness.current"] for run in runs} == {"true"}
    assert tags[runs[2]["run_key"]]["mlflow.runColor"] == "#009E73"


def test_a_store_that_was_deleted_is_filled_again(out: Path, schema: Path) -> None:
    sweep = make_sweep(out)
    Outbox(sweep).finish()
    for path in out.glob("mlflow.db*"):
        path.unlink()
    (out / "mlflow.db").write_bytes(schema.read_bytes())
    # MLflow keeps one store object per address and process, so another process looks at the new file.
    script = "import sys; from pathlib import Path; from harness.tracking.outbox import sync"
    script += "; sys.exit(sync(Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", script, str(sweep)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "tiny: everything delivered\n"), done.stderr
    assert history(out) == journals(sweep)


def test_the_report_is_the_summary_runs_artifact(out: Path) -> None:
    sweep = make_sweep(out)
    Outbox(sweep).finish()
    (sweep / "report" / "index.html").write_text("<p>newer</p>", encoding="utf-8")
    Outbox(sweep).finish()
    (summary,) = runs_of(out, kind="sweep")
    (page,) = (out / "mlartifacts" / summary.info.run_id).rglob("index.html")
    assert page.read_text(encoding="utf-8") == "<p>newer</p>"


def test_the_private_page_is_uploaded_only_where_the_plan_says_so(out: Path) -> None:
    sweep = make_sweep(out)
    (sweep / "report" / PRIVATE).write_text("<p>a row</p>", encoding="utf-8")
    (sweep / "report" / "figures").mkdir()
    (sweep / "report" / "figures" / "plane.svg").write_text("<svg/>", encoding="utf-8")

    def uploaded() -> set[str]:
        Outbox(sweep).finish()
        (summary,) = runs_of(out, kind="sweep")
        root = out / "mlartifacts" / summary.info.run_id / "artifacts" / "report"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    assert uploaded() == {"index.html", "figures/plane.svg"}
    plan = json.loads((sweep / "plan.json").read_text(encoding="utf-8"))
    (sweep / "plan.json").write_text(json.dumps(plan | {"report": {"upload_texts": True}}), encoding="utf-8")
    assert uploaded() == {"index.html", "figures/plane.svg", PRIVATE}


def test_the_error_of_a_run_on_data_is_named_not_quoted(out: Path) -> None:
    sweep = make_sweep(out)
    plan = read_plan(sweep)
    folder = next(path.parent for path in sweep.glob("*/result.json"))
    failed = {**(load_result(folder) or {}), "error": "ValueError: row 3: a private sentence", "reason": "error"}
    on_data = failed | {"config": failed["config"] | {"world": None, "data": {"path": "p.jsonl"}}}
    shown = run_row(folder, on_data, plan).tags["harness.error"]
    assert shown == "error; the traceback is in errors.log of the sweep's folder"
    asked = replace(plan, upload_texts=True)
    for result, own in ((failed, plan), (on_data, asked)):
        assert run_row(folder, result, own).tags["harness.error"].endswith("a private sentence")


def test_params_and_data_sets_name_no_place_of_this_machine(out: Path) -> None:
    sweep = make_sweep(out)
    folder = next(sweep.glob("*/result.json")).parent
    result = json.loads((folder / "result.json").read_text())
    data = {"path": "/home/me/secret/prefs.jsonl", "format": "auto"}
    config = result["config"] | {"world": None, "data": data, "model": {"kind": "path", "path": "/home/me/models/base"}}
    row = run_row(folder, result | {"config": config}, read_plan(sweep))
    assert row.params["model.path"] == "base" and "prefs.jsonl" in row.data["source"]
    assert "/home" not in json.dumps([row.params, row.data, row.tags])


def test_a_damaged_journal_is_said_and_the_others_are_sent(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make_sweep(out)
    folder = find_run(sweep, read_runs(sweep)[0]["run_key"])
    assert folder is not None
    lines = (folder / "events.jsonl").read_bytes().replace(b'"loss": 0.', b'"loss": 1.')
    (folder / "events.jsonl").write_bytes(lines)
    assert sync(sweep) == 1
    assert "events.jsonl:2" in capsys.readouterr().err
    assert len(runs_of(out)) == 3


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The client's time-out at each attempt to reach a server, as the attempts are made."""
    found: list[str] = []
    whole = mlflow_store.probe

    def probe(uri: str) -> None:
        found.append(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])
        whole(uri)

    monkeypatch.setattr(mlflow_store, "probe", probe)
    return found


def test_a_dead_server_costs_little_and_sync_delivers_later(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tries: list[str]
) -> None:
    sweep = make_sweep(out)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hunter2@127.0.0.1:{free_port()}")
    outbox = Outbox(out / "tiny")
    assert [outbox.deliver(path.parent) for path in sweep.glob("*/result.json")] == [0] * 4
    assert len(tries) == 1  # the other three deliveries did not ask
    assert outbox.finish() == 4 * POINTS
    assert len(tries) == 2
    assert sync(sweep) == 1
    told = capsys.readouterr()
    assert f"{4 * POINTS} points waiting, run harness sync {sweep}" in told.out
    assert "hunter2" not in told.out + told.err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(sweep) == 0
    assert history(out) == journals(sweep)


def test_after_a_failure_deliveries_rest(out: Path, monkeypatch: pytest.MonkeyPatch, tries: list[str]) -> None:
    """A server that accepts and never answers: one attempt with the short time-out, then none for a while."""
    sweep = make_sweep(out)
    monkeypatch.setitem(SHORT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        held: list[socket.socket] = []
        threading.Thread(target=_accept, args=(server, held), daemon=True).start()
        outbox = Outbox(out / "tiny")
        folders = [path.parent for path in sweep.glob("*/result.json")]
        assert outbox.deliver(folders[0]) == 0
        assert tries == ["1"]
        assert [outbox.deliver(folder) for folder in folders] == [0] * 4
        assert tries == ["1"]
        for connection in held:
            connection.close()
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ  # the user's own calls keep their settings


def _accept(server: socket.socket, held: list[socket.socket]) -> None:
    while True:
        try:
            held.append(server.accept()[0])
        except OSError:  # closed: the test is over
            return


def test_nothing_is_opened_before_the_first_delivery(tmp_path: Path) -> None:
    code = "import sys, pathlib; from harness.tracking.outbox import Outbox; Outbox(pathlib.Path('x'))"
    code += "; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_sync_wants_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no plan\.json"):
        sync(tmp_path)


def test_big_sweeps_send_fewer_points_and_the_first_and_last_are_among_them() -> None:
    """Above 1000 runs a metric sends at most 50 points; the journal is not touched."""
    whole = [Point(key, float(step), T0 + step, step) for step in range(200) for key in ("loss", "kl")]
    whole.append(Point("final/kl", 1.0, T0 + 200, 200))
    assert thinned(whole, 1000) == tuple(whole)
    fewer = thinned(whole, 1001)
    for key in ("loss", "kl"):
        steps = [point.step for point in fewer if point.key == key]
        assert len(steps) == 50 and steps[0] == 0 and steps[-1] == 199 and steps == sorted(steps)
        assert max(b - a for a, b in pairwise(steps)) <= 5
    assert fewer[-1] == whole[-1]
    short = [Point("loss", 0.0, T0 + step, step) for step in range(6)]
    assert thinned(short, 10_000) == tuple(short)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/data/runs", ""),
        ("/data/shared/runs", "nfs4"),
        ("/data/shared2/runs", ""),
        ("/home/a b/runs", "fuse.sshfs"),
        ("/", ""),
    ],
)
def test_file_systems_whose_locks_do_not_hold_are_known(place: str, kind: str) -> None:
    mounts = (
        "/dev/sda1 / ext4 rw 0 0\n"
        "/dev/sdb1 /data xfs rw 0 0\n"
        "server:/x /data/shared nfs4 rw 0 0\n"
        "a@b: /home/a\\040b fuse.sshfs rw 0 0\n"
    )
    assert network_kind(Path(place), mounts) == kind
