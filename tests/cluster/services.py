"""PostgreSQL and MLflow's server over it, as docs/team.md starts them: on loopback, secrets in the environment."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "only-for-tests"
PATIENCE = 120.0
PROGRAMS = ("initdb", "pg_ctl", "psql")


def programs() -> dict[str, str]:
    """PostgreSQL's programs by name. Skips the test where they are not installed or may not be run."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    search = os.pathsep.join([*places, os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=search) for name in PROGRAMS}
    if not all(found.values()):
        pytest.skip("PostgreSQL's server is not installed")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv to run it as another user")
    return {name: str(path) for name, path in found.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def postgres() -> Iterator[int]:
    """A PostgreSQL with the databases `mlflow` and `optuna` of the role `harness`, no superuser; its port."""
    found, port = programs(), free_port()
    # Not under pytest's own folder: PostgreSQL's user must be able to enter.
    home = Path(tempfile.mkdtemp(prefix="harness-pg-"))
    own: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(home, "nobody", "nogroup")
        own = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    data, secret = home / "data", home / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)

    def run(*arguments: str) -> None:
        done = subprocess.run([*own, *arguments], cwd=home, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(statement: str) -> None:
        address = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
        done = subprocess.run(
            [found["psql"], "-v", "ON_ERROR_STOP=1", "-c", statement, address],
            env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    try:
        run(
            found["initdb"],
            "-D",
            str(data),
            "-U",
            "postgres",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "-E",
            "UTF8",
        )
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home} -c fsync=off"
        run(found["pg_ctl"], "-D", str(data), "-l", str(home / "log"), "-w", "-o", options, "start")
        ask(f"CREATE ROLE harness LOGIN PASSWORD '{PASSWORD}'")
        ask("CREATE DATABASE mlflow OWNER harness")
        ask("CREATE DATABASE optuna OWNER harness")
        yield port
    finally:
        if (data / "postmaster.pid").exists():
            run(found["pg_ctl"], "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def mlflow_server(database: int, artifacts: Path) -> Iterator[str]:
    """MLflow's server over the database at a port; its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
            *("--backend-store-uri", f"postgresql+psycopg2://harness@127.0.0.1:{database}/mlflow"),
            *("--artifacts-destination", str(artifacts), "--serve-artifacts"),
            *("--allowed-hosts", f"localhost:{port},127.0.0.1:{port}", "--x-frame-options", "DENY"),
            *("--cors-allowed-origins", address),
        ],
        env={**os.environ, "PGPASSWORD": PASSWORD, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=(artifacts / "server.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (artifacts / "server.log").read_text()
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.3)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        server.wait(30)
