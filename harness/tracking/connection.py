"""The connection to MLflow: the store under `--out` or `MLFLOW_TRACKING_URI`, opened by the driver alone.

mlflow takes a second to import, so it is imported inside the functions.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from harness.storage.databases import driver_problem, sqlite_url
from harness.text import without_credentials

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # schemes that MLflow opens through SQLAlchemy
# A dead server must cost seconds, not the four minutes of the client's retries. Values that the user sets win.
SHORT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
# File systems on which sqlite's locks do not hold. (9p and overlays are how containers see their own disk.)
NETWORK = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "ceph", "gpfs", "beegfs", "afs", "glusterfs"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs"),
)
PRIVATE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}  # two lines per run, where the store is a server


@dataclass(frozen=True, slots=True)
class Connection:
    """An open experiment. `store` is a random name that the experiment got when it was created."""

    client: Any  # mlflow.MlflowClient
    experiment: str
    store: str
    fresh: bool  # the experiment was created just now and has no runs


def default_uri(out: Path) -> str:
    """The sqlite store under `out`."""
    return sqlite_url(out / DATABASE)


def tracking_uri(out: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else the store under `out`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(out)


def tracking_problem(uri: str) -> str:
    """What keeps a tracking address from being used on this machine, in one line; empty where nothing does.

    Whether a server or database answers is not asked.
    """
    if uri.startswith(("http:", "https:")):
        try:
            parts = urlsplit(uri)
            if parts.hostname and parts.port != 0:
                return ""
        except ValueError:
            pass
        return "no address of a server; expected a form such as http://127.0.0.1:5000"
    if uri.partition(":")[0].partition("+")[0] in DATABASES:
        return driver_problem(uri)
    try:
        open_client(uri)
    except down_errors() as error:
        return first_line(error, uri)
    return ""


def tracking_warning(out: Path) -> str:
    """What is printed before training where `MLFLOW_TRACKING_URI` cannot be used; empty where it can."""
    uri = tracking_uri(out)
    problem = "" if uri == default_uri(out) else tracking_problem(uri)
    return f"{without_credentials(uri)}: {problem}; points wait for harness sync" if problem else ""


def first_line(error: Exception, uri: str) -> str:
    """The first line of a client's error, without a user name or password of `uri`."""
    return (str(error).strip().replace(uri, without_credentials(uri)).splitlines() or [type(error).__name__])[0][:200]


def open_client(uri: str) -> Any:
    """An MlflowClient without telemetry and without schema chatter on the terminal."""
    for name, value in {**PRIVATE, **QUIET}.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def down_errors() -> tuple[type[Exception], ...]:
    """What a client raises where the store cannot be reached, is locked or refuses (requests' errors are OSErrors).

    ImportError: the client of the store that a server names for its artifacts is not installed.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError


@contextmanager
def patience() -> Iterator[None]:
    """Short time-outs for the calls inside, unless the user has set them."""
    added = {name: value for name, value in SHORT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def probe(uri: str) -> None:
    """Raise OSError where a server's port takes no connection within 2 s: cheaper than the client's own attempts."""
    parts = urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "localhost", port), timeout=2).close()


def network_kind(place: Path, mounts: str) -> str:
    """The kind of network or user-space file system that holds `place`, by the text of /proc/mounts; "" for a disk.

    sqlite's locks do not hold there: databases became malformed.
    """
    mount, kind = Path("/"), ""
    for line in mounts.splitlines():
        point, name = Path(line.split(" ")[1].replace("\\040", " ")), line.split(" ")[2]
        if place.is_relative_to(point) and point.is_relative_to(mount):
            mount, kind = point, name
    return kind if kind in NETWORK else ""


def init_store(out: Path, sweep: str, uri: str | None = None) -> Connection:
    """Open the store, create schema and experiment where they are missing. Raises one of `down_errors()`.

    Under a lock, and only in the driver: several processes that open a new sqlite file at once break its schema.
    """
    uri = uri or tracking_uri(out)
    if uri != default_uri(out) and (problem := tracking_problem(uri)):
        raise OSError(problem)
    if uri.startswith(("http://", "https://")):
        probe(uri)
    local = uri.startswith("sqlite")
    mounts = Path("/proc/mounts")
    if uri == default_uri(out) and mounts.exists():
        kind = network_kind(out.resolve(), mounts.read_text(encoding="utf-8", errors="replace"))
        if kind:
            raise OSError(
                f"{out} is on {kind}, where sqlite's locks do not hold; set MLFLOW_TRACKING_URI to a server or a local "
                "sqlite file, then run harness sync"
            )
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(str(out / ".mlflow.lock"), mode=0o600):
        client = open_client(uri)
        experiment = client.get_experiment_by_name(sweep)
        if uri == default_uri(out):
            _shorten_commits(out / DATABASE)
        if experiment is None:
            place = (out / ARTIFACTS).resolve().as_uri() if local else None
            name = uuid.uuid4().hex
            tags = {"harness.sweep": sweep, "harness.store": name}
            return Connection(client, client.create_experiment(sweep, artifact_location=place, tags=tags), name, True)
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        name = experiment.tags.get("harness.store", "")
        if not name:  # an experiment of this name that something else created
            name = uuid.uuid4().hex
            client.set_experiment_tag(experiment.experiment_id, "harness.store", name)
        return Connection(client, experiment.experiment_id, name, False)


def _shorten_commits(database: Path) -> None:
    """Write-ahead logging: a commit is one flush, and readers never wait. The setting stays in the file."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    database.chmod(0o600)
