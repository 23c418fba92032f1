"""`harness dashboard`: MLflow's server on loopback, and the addresses of its views."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.text import without_credentials
from harness.tracking.connection import (
    ARTIFACTS,
    DATABASE,
    PRIVATE,
    default_uri,
    down_errors,
    first_line,
    open_client,
    patience,
    probe,
    tracking_problem,
    tracking_uri,
)
from harness.tracking.guard import STORE
from harness.tracking.views import FIRST, MAIN, SWEEP_RUN, TAG, report_url, view_url
from harness.types import InputError


def serve(out: Path, port: int | None = None, host: str = "127.0.0.1") -> int:
    """Serve the store under `out` until Ctrl-C; prints each sweep's view, the newest first. Returns an exit code.

    With `MLFLOW_TRACKING_URI` at a running server, prints that server's addresses and returns. Raises InputError for
    a `host` that other machines reach: this server asks nobody who they are.
    """
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise InputError(
            f"host {host}: other machines can reach it, and it asks for no login; expected 127.0.0.1. A team's "
            "server is `mlflow server --app-name basic-auth` behind TLS, named by MLFLOW_TRACKING_URI"
        )
    uri = tracking_uri(out)
    if uri == default_uri(out) and not (out / DATABASE).exists():
        raise InputError(f"{out}: no {DATABASE}; run `harness sweep SPEC --out {out}` first")
    if problem := tracking_problem(uri):
        raise InputError(f"MLFLOW_TRACKING_URI {without_credentials(uri)}: {problem}")
    try:
        with patience():
            if uri.startswith(("http://", "https://")):
                probe(uri)
                return _print_views(open_client(uri), uri.rstrip("/"))
            client = open_client(uri)
    except down_errors() as error:
        print(f"MLFLOW_TRACKING_URI {without_credentials(uri)}: {first_line(error, uri)}", file=sys.stderr)
        return 1
    port = port or _free_port(host)
    base = f"http://{host}:{port}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, it must take the server along
    server = subprocess.Popen(  # noqa: S603 - a fixed command, no shell
        [sys.executable, "-m", "harness.tracking.guard", (out / ARTIFACTS).resolve().as_uri(), host, str(port)],
        env={**os.environ, **PRIVATE, STORE: uri},
        stdout=sys.stderr,
    )
    try:
        if not _wait(server, host, port):
            print(f"the tracking server ended with code {server.returncode} before it answered", file=sys.stderr)
            return 1
        _print_views(client, base)
        print("Ctrl-C stops the server", flush=True)
        return 0 if server.wait() == 0 else 1
    except KeyboardInterrupt:
        return 0
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait(timeout=20)


def _print_views(client: Any, base: str) -> int:
    """The addresses of each sweep's main views and of its report, the newest sweep first."""
    experiments = client.search_experiments(
        filter_string="tags.`harness.sweep` LIKE '%'", order_by=["last_update_time DESC"]
    )
    for experiment in experiments:
        print(f"{experiment.name}: {view_url(base, experiment.experiment_id)}")
        for slug, name in MAIN.items():
            if slug != FIRST and TAG + slug in experiment.tags:
                print(f"  {name}: {view_url(base, experiment.experiment_id, slug)}")
        run = client.search_runs([experiment.experiment_id], filter_string=SWEEP_RUN, max_results=1)
        if run:
            print(f"  Report: {report_url(base, experiment.experiment_id, run[0].info.run_id)}")
    print("" if experiments else f"no sweep yet: {base}\n", end="", flush=True)
    return 0


def _free_port(host: str) -> int:
    """5000 where it is free, as MLflow's users expect, else any."""
    for wanted in (5000, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise InputError(f"no free port on {host}; give one")


def _wait(server: subprocess.Popen[bytes], host: str, port: int, seconds: float = 90.0) -> bool:
    """Whether the server answers before it ends or the time is up."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                return True
        time.sleep(0.2)
    return False
