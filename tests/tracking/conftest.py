"""An output folder whose tracking store is ready: making the schema takes seconds, copying it none."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tracking.connection import default_uri, open_client


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making its schema takes a second, copying it none."""
    out = tmp_path_factory.mktemp("schema")
    client = open_client(default_uri(out))
    client.search_experiments()
    return out / "mlflow.db"


@pytest.fixture
def out(tmp_path: Path, schema: Path) -> Path:
    """An output folder with a ready store."""
    place = tmp_path / "runs"
    place.mkdir()
    (place / "mlflow.db").write_bytes(schema.read_bytes())
    return place
