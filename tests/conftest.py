"""Settings of every test process, made before any library reads them. Imports no library: torch-free tests stay so."""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest

# Read at import by mlflow, huggingface_hub, tokenizers and torch; processes that tests start inherit them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    TOKENIZERS_PARALLELISM="false",
    # One thread: torch's sums depend on the thread count, and test workers would fight over the cores.
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
)
# A tracking server or store of the person who runs the tests must never receive test runs.
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("MLFLOW_REGISTRY_URI", None)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `browser` where no Chromium is installed, and say so."""
    if any(map(shutil.which, BROWSERS)):
        return
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=f"needs one of {', '.join(BROWSERS)} on PATH"))


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """A worker's code run in the tests' process leaves its handler behind; the next sweep would take it for its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
