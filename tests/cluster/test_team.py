"""A team's tracking: eight processes write to one MLflow over HTTP on PostgreSQL, and nothing is lost or doubled."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness.storage.journal import read_journal
from harness.storage.runs import find_run
from harness.tracking.connection import open_client
from harness.tracking.outbox import Outbox
from tests.cluster.services import PASSWORD, mlflow_server, postgres
from tests.sweep.study_fake import play
from tests.tracking.sweeps import T0, make_sweep, read_runs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(find_spec("psycopg2") is None, reason="the extra `cluster` is not installed"),
]
WRITERS, SEEDS, KILLED = 8, 3, 2
Points = list[tuple[str, str, int, int, float]]


@pytest.fixture(scope="module")
def database() -> Iterator[int]:
    with postgres() as port:
        yield port


def write(out: str, sweep: str, ready: Any, go: Any) -> None:
    """One member of the team delivers a sweep of its own."""
    open_client(os.environ["MLFLOW_TRACKING_URI"])  # mlflow is loaded before the start
    ready.release()
    go.wait()
    waiting = Outbox(Path(out) / sweep).finish()
    raise SystemExit(1 if waiting else 0)


def journals(sweep: Path) -> Points:
    """Every point of a sweep's journals as (run key, name, step, timestamp, value)."""
    found: Points = []
    for run in read_runs(sweep):
        folder = find_run(sweep, run["run_key"])
        assert folder is not None
        for record in read_journal(folder / "events.jsonl"):
            if record["kind"] == "metrics":
                step = record["step"]
                names = set(record) - {"kind", "step"}
                found += [(run["run_key"], name, step, T0 + step, record[name]) for name in names]
    return found


def history(address: str, names: set[str]) -> Points:
    """Every point of every active run that the server has of these experiments."""
    client = open_client(address)
    experiments = [client.get_experiment_by_name(name).experiment_id for name in names]
    runs = client.search_runs(experiments, filter_string="tags.`harness.kind` = 'run'", max_results=1000)
    return [
        (run.data.tags["harness.run_key"], m.key, m.step, m.timestamp, m.value)
        for run in runs
        for key in run.data.metrics
        for m in client.get_metric_history(run.info.run_id, key)
    ]


def test_eight_writers_lose_and_double_nothing(database: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them share one experiment's name; two are killed in the middle and deliver again."""
    (tmp_path / "artifacts").mkdir()
    with mlflow_server(database, tmp_path / "artifacts") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        sweeps = []
        for number in range(WRITERS):
            name = "team" if number % 2 else f"own-{number}"
            # Other objectives, other run keys: members of one experiment each have runs of their own.
            pair = (("dpo", "ipo"), ("kto", "slic"), ("orpo", "simpo"), ("cpo", "rpo"))[number // 2]
            sweeps.append(make_sweep(tmp_path / f"member-{number}", name, objectives=pair, seeds=SEEDS))
        context = multiprocessing.get_context("spawn")
        ready, go = context.Semaphore(0), context.Event()

        def member(sweep: Path) -> Any:
            process = context.Process(target=write, args=(str(sweep.parent), sweep.name, ready, go))
            process.start()
            return process

        team = [member(sweep) for sweep in sweeps]
        for _ in team:
            assert ready.acquire(timeout=240)
        began = time.monotonic()
        go.set()
        time.sleep(1.5)
        for process in team[:KILLED]:
            process.kill()
        for process in team:
            process.join(240)
        seconds = time.monotonic() - began
        unfinished = [sweep for sweep, process in zip(sweeps, team, strict=True) if process.exitcode != 0]
        for sweep in unfinished:  # what `harness sync` does
            assert Outbox(sweep).finish() == 0
        wanted = sorted(point for sweep in sweeps for point in journals(sweep))
        found = sorted(history(address, {sweep.name for sweep in sweeps}))
    assert found == wanted
    assert [process.exitcode for process in team[KILLED:]] == [0] * (WRITERS - KILLED)
    again = f"{len(unfinished)} sweeps delivered again"
    print(f"{WRITERS} writers, {len(wanted)} points in {seconds:.1f} s, {again}, 0 points lost or doubled")


def test_a_study_keeps_its_storage_on_postgresql(
    database: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`storage:` names a database of its own and no password, which comes from the environment."""
    import optuna

    from tests.sweep.test_study_search import study

    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = f"postgresql+psycopg2://harness@127.0.0.1:{database}/optuna"
    spec = study(tmp_path, storage=url)
    play(spec, tmp_path)
    names = optuna.get_all_study_names(url)
    trials = {name: len(optuna.load_study(study_name=name, storage=url).trials) for name in names}
    assert trials == {"known.dpo": 12, "known.orpo": 12}
    assert not (tmp_path / "known" / "optuna.db").exists()
