"""One dashboard for all tests of this folder: a sweep of twelve runs, delivered and served as a user has it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from harness.tracking.outbox import Outbox
from tests.tracking.sweeps import make_sweep

RUNS = 12


@dataclass(frozen=True)
class Dashboard:
    """The port, and the addresses that `harness dashboard` printed, by the name it gave them."""

    port: int
    addresses: Mapping[str, str]


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Served until the last test is done; then it must end when told to."""
    out = tmp_path_factory.mktemp("dashboard")
    assert Outbox(make_sweep(out, objectives=("dpo", "ipo", "simpo"), seeds=2)).finish() == 0
    command = [sys.executable, "-m", "harness", "dashboard", "--out", str(out)]
    log = out / "server.log"
    with log.open("w") as errors:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            if line.startswith("Ctrl-C"):
                break
            lines.append(line)
        found = dict(re.findall(r"^ *([^:\n]+): (http://\S+)$", "".join(lines), flags=re.MULTILINE))
        ports = {int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)/#/experiments/", "".join(lines))}
        assert len(ports) == 1, f"{lines}\n{log.read_text()[-2000:]}"
        yield Dashboard(ports.pop(), found)
    finally:
        server.send_signal(signal.SIGTERM)
        stopped = server.wait(timeout=30)
    assert stopped == 0, log.read_text()[-2000:]
