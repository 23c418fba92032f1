"""Optuna's copy of a study: a sqlite file in the study's folder or any database URL, never MLflow's.

Nothing in it is original: it is written from the ledger, and written anew where it is lost, torn or differs.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import yaml

from harness.config.study import StudySpec
from harness.storage.databases import driver_problem, sqlite_file, sqlite_url
from harness.study.trials import Ledger
from harness.text import without_credentials
from harness.types import InputError

DATABASE = "optuna.db"


def storage_url(spec: StudySpec, folder: Path) -> str:
    """The storage of the spec, or the sqlite file in the study's folder."""
    return spec.storage or sqlite_url(folder / DATABASE)


def write_storage(spec: StudySpec, ledger: Ledger, folder: Path) -> str:
    """Bring Optuna's storage up to the ledger; why that was not possible, or the empty string.

    A damaged file in the study's folder is set aside and written anew: nothing in it is original.
    """
    from harness.study.optuna_adapter import STORAGE_ERRORS, project

    url = storage_url(spec, folder)
    for again in (True, False):
        try:
            for arm in spec.arms:
                project(spec, arm, ledger.of(arm.label), url, in_folder=not spec.storage)
            return ""
        except STORAGE_ERRORS as error:
            file = folder / DATABASE
            if not again or spec.storage or not file.exists():
                return f"{without_credentials(url)} could not be written: {(str(error).splitlines() or [''])[0][:200]}"
            file.replace(file.with_name(f"{DATABASE}.corrupt-{time.time_ns() // 1_000_000}"))
    raise AssertionError("unreachable")


def storage_problem(url: str, out: Path, path: Path) -> None:
    """Raise InputError where a storage cannot be opened on this machine, or is MLflow's database.

    MLflow and Optuna both keep `alembic_version` and would break each other.
    """
    if not url:
        return
    fix = "expected another database, or no `storage` key for a file in the study's folder"
    if url == os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(f"{path} storage: is MLFLOW_TRACKING_URI, MLflow's database; {fix}")
    if problem := driver_problem(url):
        raise InputError(f"{path} storage: {without_credentials(url)}: {problem}")
    if not url.startswith("sqlite"):
        return
    file = sqlite_file(url)
    if file.resolve() == (out / "mlflow.db").resolve():
        raise InputError(f"{path} storage: {file} is MLflow's database; {fix}")
    if not file.exists():
        return
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.Error as error:
        raise InputError(f"{path} storage: {file} cannot be read ({error}); {fix}") from None
    if {"experiments", "runs"} <= tables:
        raise InputError(f"{path} storage: {file} is MLflow's database; {fix}")


def serve_study(folder: Path) -> int:
    """Serve Optuna's dashboard over a study's storage on loopback until it is stopped; its exit code.

    Raises InputError where the folder holds no study, its storage is not written yet or the package is not installed.
    """
    if not (folder / "study.json").is_file():
        raise InputError(f"{folder}: no study.json here; expected the folder of a finished study, such as runs/study")
    settings = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
    # No file holds a password: the address of a storage that needs one comes from Optuna's variable.
    url = os.environ.get("OPTUNA_STORAGE") or settings.get("storage") or sqlite_url(folder / DATABASE)
    if find_spec("optuna_dashboard") is None:
        raise InputError(
            "optuna-dashboard is not installed; install the extra: pip install 'preference-harness[dashboard]'"
        )
    if not settings.get("storage") and not (folder / DATABASE).exists():
        raise InputError(f"{folder}: no {DATABASE} here; run the study's command again to write it")
    if problem := driver_problem(url):
        raise InputError(f"{without_credentials(url)}: {problem}")
    print("http://127.0.0.1:8080", flush=True)
    code = "from optuna_dashboard._cli import main; main()"
    command = [sys.executable, "-c", code, url, "--host", "127.0.0.1", "--port", "8080"]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - this interpreter, no shell
