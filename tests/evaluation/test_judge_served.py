"""`harness judge` against `transformers serve` with a small random model: a server that is none of ours.

It needs the package `openai`, which `transformers serve` imports; without it the test is skipped, and the server of
`judge_server.py` alone is judged by.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import httpx2
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.cli import run
from tests.evaluation import reward_models
from tests.evaluation.test_judge import planted, result, sweep, verdicts

pytestmark = pytest.mark.slow
pytest.importorskip("openai", reason="`transformers serve` needs it")
COUNT, CONCURRENCY = 200, 3


def save(folder: Path) -> Path:
    """A random chat model whose replies are a few bytes of noise."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=8192, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    reward_models.tokenizer(reward_models.TEMPLATE).save_pretrained(folder)
    return folder


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """The endpoint, the model's name and the server's log of a running `transformers serve`."""
    model = save(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "server.txt"
    words = ["from transformers.cli.transformers import main; main()", "serve", str(model), "--device", "cpu"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", *words, "--host", "127.0.0.1", "--port", str(port), "--log-level", "info"],
            stdout=out, stderr=out,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()
            try:
                if httpx2.get(f"{url}/health", timeout=1).status_code == 200:
                    break
            except httpx2.HTTPError:
                time.sleep(0.5)
        yield f"{url}/v1", str(model), log
    finally:
        process.terminate()
        process.wait(60)


def test_killed_twice_and_resumed_on_transformers_serve(
    tmp_path: Path, served: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, model, log = served
    folder, said = tmp_path / "s", tmp_path / "stderr.txt"
    [path] = sweep(folder, planted(COUNT // 2))
    command = [sys.executable, "-m", "harness", "judge", str(folder), "--endpoint", url, "--model", model,
               "--concurrency", str(CONCURRENCY), "--max-tokens", "4"]  # fmt: skip
    journal = folder / "judge" / "verdicts.jsonl"
    kept = 0
    for number, kill, code in ((60, signal.SIGTERM, 143), (130, signal.SIGKILL, -9)):
        with said.open("w") as stderr:
            started = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL)
        while not journal.exists() or journal.read_bytes().count(b"\n") < number:
            assert started.poll() is None, said.read_text()
            time.sleep(0.02)
        started.send_signal(kill)
        assert started.wait(60) == code, said.read_text()
        kept = len(verdicts(folder))
        assert number <= kept < COUNT
    monkeypatch.setattr(import_module("harness.sweep.evaluate"), "publish", lambda folder, say: None)
    assert run([*command[3:], "--quiet"]) == 0
    keys = [one["key"] for one in verdicts(folder)]
    assert len(keys) == len(set(keys)) == COUNT
    asked = log.read_text().count("POST /v1/chat/completions")
    assert COUNT <= asked <= COUNT + CONCURRENCY  # what SIGKILL cut off is asked again, and nothing else
    found = result(path)
    assert found["missing"] == 0 and found["prompts"] + found["unreadable"] == COUNT // 2
