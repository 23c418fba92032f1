"""The one writer to MLflow: sends finished runs from their files, each exactly once, without delaying training.

`outbox.jsonl` of the sweep folder holds what was acknowledged. Losing that file costs a replay, nothing else: a run is
identified by its tags, and a point sent twice with the same step and timestamp is one point.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from harness.identity import content_hash, file_sha256
from harness.storage.answer_file import read_answer
from harness.storage.journal import JournalDamaged, append_record, read_journal
from harness.storage.lock import sweep_lock
from harness.storage.plan_file import read_plan_file, uploaded
from harness.storage.runs import load_result
from harness.text import without_credentials
from harness.tracking.connection import (
    Connection,
    default_uri,
    down_errors,
    first_line,
    init_store,
    patience,
    tracking_uri,
)
from harness.tracking.rows import Plan, RunRow, count_points, delivery_digest, is_committed, read_plan, run_row
from harness.tracking.views import SWEEP_RUN, write_views

METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100  # what servers accept
# After a failed attempt the next one waits so many seconds, and at least so many times as long as the attempt took:
# attempts cost 5 % of the time at most.
RETRY_SECONDS, RETRY_FACTOR = 30.0, 20
ACKS = "outbox.jsonl"
TAG_LIMIT = 4000  # characters that every MLflow server takes for a tag's value


@dataclass
class Outbox:
    """Delivers the runs of one sweep folder. Connects at the first delivery; a store that is down raises nothing."""

    folder: Path
    reason: str = ""  # why something was not sent
    connection: Connection | None = None
    _plan: Plan | None = None
    _sent: dict[str, str] = field(default_factory=dict)  # run key -> digest, acknowledged by this store
    _try_again: float = 0.0

    def deliver(self, run_folder: Path) -> int:
        """Send one committed run; returns the points sent.

        0 where there was nothing new, the store is down or the run's files are damaged (`reason` says).
        """
        if time.monotonic() < self._try_again:
            return 0
        sent = [0]
        self._attempt(lambda: sent.append(self._deliver(run_folder)))
        return sent[-1]

    def finish(self) -> int:
        """Send everything outstanding, the comparison views and the report; returns how many points still wait.

        Prints to standard error why points wait or what could not be sent.
        """
        self._plan, self._try_again, self.reason = None, 0.0, ""
        if not self._attempt(self._connect):
            print(f"tracking {self.reason}", file=sys.stderr)
            return self.waiting()
        for run in committed_runs(self.folder, self._the_plan()):
            self.deliver(run)
        waiting = self.waiting()
        if time.monotonic() >= self._try_again:
            self._attempt(self._summarise)
        if self.reason:
            print(f"tracking {self.reason}", file=sys.stderr)
        return waiting

    def waiting(self) -> int:
        """Points of committed runs that the store has not acknowledged."""
        sent = self._sent if self.connection is not None else acknowledged(self.folder / ACKS, self._to(), None)
        total = 0
        for run in committed_runs(self.folder, self._the_plan()):
            result = load_result(run)
            if result is not None and sent.get(result["run_key"]) != delivery_digest(run, result):
                try:
                    total += count_points(run, len(self._the_plan().names))
                except JournalDamaged as damage:
                    self.reason = f"{damage}; not sent, see harness verify"
        return total

    def _attempt(self, action: Callable[[], object]) -> bool:
        """Whether `action` succeeded. After a store that cannot be reached the next attempt waits a while."""
        began = time.monotonic()
        try:
            with patience():
                action()
        except (JournalDamaged, json.JSONDecodeError) as damage:
            self.reason = f"{damage}; not sent, see harness verify"
            return False
        except down_errors() as error:
            uri = tracking_uri(self.folder.parent)
            self.reason = f"{without_credentials(uri)}: {first_line(error, uri)}"
            self.connection = None  # a new one looks for what this attempt may have left
            now = time.monotonic()
            self._try_again = now + max(RETRY_SECONDS, RETRY_FACTOR * (now - began))
            return False
        self._try_again = 0.0
        return True

    def _to(self) -> str:
        """Names the destination without its address, which may hold a password; moving `out` changes nothing."""
        uri = tracking_uri(self.folder.parent)
        return "default" if uri == default_uri(self.folder.parent) else content_hash(uri)[:16]

    def _the_plan(self) -> Plan:
        if self._plan is None:
            self._plan = read_plan(self.folder)
        return self._plan

    def _connect(self) -> Connection:
        if self.connection is None:
            self.connection = init_store(self.folder.parent, self.folder.name)
            self._sent = acknowledged(self.folder / ACKS, self._to(), self.connection.store)
            if self.connection.fresh:
                self._acknowledge("marks", self._marks_digest(), "")
        return self.connection

    def _deliver(self, run_folder: Path) -> int:
        to = self._connect()
        result = load_result(run_folder)
        if result is None or self._sent.get(result["run_key"]) == (digest := delivery_digest(run_folder, result)):
            return 0
        row = run_row(run_folder, result, self._the_plan())
        with _no_collection():
            run_id = send(to, row)
        self._acknowledge(row.run_key, digest, run_id)
        return len(row.points)

    def _marks_digest(self) -> str:
        plan = self._the_plan()
        return content_hash({key: plan.marks(key) for key in plan.names})[:32]

    def _mark(self) -> None:
        """Bring the tags that follow the plan up to date where the plan has changed since they were set."""
        to, plan, digest = self._connect(), self._the_plan(), self._marks_digest()
        if self._sent.get("marks") == digest:
            return
        for run in _search(to, "tags.`harness.kind` = 'run'"):
            for name, value in plan.marks(run.data.tags["harness.run_key"]).items():
                if run.data.tags.get(name) != value:
                    to.client.set_tag(run.info.run_id, name, value)
        self._acknowledge("marks", digest, "")

    def _acknowledge(self, key: str, digest: str, run_id: str) -> None:
        assert self.connection is not None
        record = {"kind": "ack", "to": self._to(), "store": self.connection.store}
        append_record(self.folder / ACKS, {**record, "run_key": key, "digest": digest, "run_id": run_id})
        self._sent[key] = digest

    def _summarise(self) -> None:
        to = self._connect()
        self._mark()
        report = self.folder / "report"
        files = uploaded(report, self._the_plan().upload_texts)
        digest = content_hash({str(path.relative_to(report)): file_sha256(path) for path in files})[:32]
        if files and self._sent.get("summary") != digest:
            self._acknowledge("summary", digest, send_summary(to, self._the_plan(), report, files))
        of_report = next((str(run.info.run_id) for run in _search(to, SWEEP_RUN)), None)
        write_views(to.client, to.experiment, self._the_plan(), of_report)


def acknowledged(path: Path, to: str, store: str | None) -> dict[str, str]:
    """Digest by run key of what a store has acknowledged; `store` None: whatever store stood at that address."""
    if not path.exists():
        return {}
    try:
        records = read_journal(path)
    except JournalDamaged:
        return {}  # everything is sent again, which changes nothing at the store
    return {
        record["run_key"]: record["digest"]
        for record in records
        if record["kind"] == "ack" and record["to"] == to and store in (None, record["store"])
    }


def committed_runs(sweep_folder: Path, plan: Plan) -> Iterator[Path]:
    """Folders of the plan's runs that have a result, in plan order."""
    folders = {path.name[:8]: path for path in sorted(sweep_folder.iterdir(), reverse=True) if is_committed(path)}
    yield from (folders[key[:8]] for key in plan.names if key[:8] in folders)


def send(to: Connection, row: RunRow) -> str:
    """One run to MLflow; returns its id. What an interrupted delivery left is completed, an older run replaced."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    run_id = _find_or_create(to, row)
    metrics = [Metric(p.key, p.value, p.timestamp, p.step) for p in row.points]
    params = [Param(name, text) for name, text in row.params.items()]
    first = METRICS_PER_CALL - min(len(params), PARAMS_PER_CALL)  # one call carries at most 1000 things in all
    to.client.log_batch(run_id, metrics=metrics[:first], params=params[:PARAMS_PER_CALL], synchronous=True)
    for at in range(first, len(metrics), METRICS_PER_CALL):
        to.client.log_batch(run_id, metrics=metrics[at : at + METRICS_PER_CALL], synchronous=True)
    for at in range(PARAMS_PER_CALL, len(params), PARAMS_PER_CALL):
        to.client.log_batch(run_id, params=params[at : at + PARAMS_PER_CALL], synchronous=True)
    data = Dataset(row.data["name"], row.data["digest"], "harness", row.data["source"])
    _log_data(to, run_id, DatasetInput(data, [InputTag("mlflow.data.context", "train")]))
    to.client.set_terminated(run_id, status=row.status, end_time=row.end_ms)
    return run_id


def _log_data(to: Connection, run_id: str, data: Any) -> None:
    """Name the run's data. MLflow looks for the row and then inserts it: where another writer did so in between it
    fails, and the second try finds the row."""
    from mlflow.exceptions import MlflowException

    try:
        to.client.log_inputs(run_id, [data])
    except MlflowException as error:
        if "unique" not in str(error).lower():
            raise
        to.client.log_inputs(run_id, [data])


def _find_or_create(to: Connection, row: RunRow) -> str:
    for old in [] if to.fresh else _search(to, f"tags.`harness.run_key` = '{row.run_key}'"):
        if old.data.tags.get("harness.digest") == row.digest:
            return str(old.info.run_id)
        to.client.delete_run(old.info.run_id)  # an earlier attempt: its points must not mix with these
    tags = {**row.tags, "harness.digest": row.digest, "mlflow.source.type": "LOCAL", "mlflow.source.name": "harness"}
    run = to.client.create_run(to.experiment, start_time=row.start_ms, tags=tags, run_name=row.name)
    return str(run.info.run_id)


def _search(to: Connection, query: str) -> list[Any]:
    runs: list[Any] = []
    token = None
    while True:
        page = to.client.search_runs([to.experiment], filter_string=query, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def send_summary(to: Connection, plan: Plan, report: Path, files: Sequence[Path]) -> str:
    """The run of the whole sweep with the files of its report as artifacts; returns its id."""
    tags = {"harness.sweep": plan.sweep, "harness.kind": "sweep", "mlflow.note.content": plan.question}
    runs = _search(to, SWEEP_RUN)
    if runs:
        run_id = runs[0].info.run_id
    else:
        run_id = to.client.create_run(to.experiment, tags=tags, run_name=f"{plan.sweep} report").info.run_id
    for name, text in read_answer(report).items():
        to.client.set_tag(run_id, f"harness.{name}", text[:TAG_LIMIT])
    for path in files:
        place = PurePosixPath("report", *path.parent.relative_to(report).parts)
        to.client.log_artifact(run_id, str(path), artifact_path=str(place))
    to.client.set_terminated(run_id, status="FINISHED")
    return str(run_id)


def sync(folder: Path) -> int:
    """Deliver what the tracking server lacks of a sweep; exit code 0, or 1 where points still wait or a run is damaged.

    Raises InputError where `folder` is no sweep's, or a sweep is running in it.
    """
    folder = folder.resolve()
    read_plan_file(folder)
    with sweep_lock(folder):
        outbox = Outbox(folder)
        waiting = outbox.finish()
    if waiting or outbox.reason:
        print(f"{waiting} points waiting, run harness sync {folder}")
        return 1
    print(f"{folder.name}: everything delivered")
    return 0


@contextmanager
def _no_collection() -> Iterator[None]:
    """MLflow makes thousands of objects per run and frees them all: looking for cycles among them costs an eighth."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
