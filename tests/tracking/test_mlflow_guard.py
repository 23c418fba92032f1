"""The guard in front of MLflow's server, request by request, with a stand-in for MLflow behind it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.tracking.guard import CLOSED, LARGEST_BODY, NOTHING, QUIET_PATH, Guard, Message, Receive, Send

OWN = "http://127.0.0.1:5000"
PAGE = b"<!doctype html><head><title>MLflow</title></head>"


async def behind(scope: Message, receive: Receive, send: Send) -> None:
    """Says what reached it: its page at "/", else the path and the body."""
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    text = PAGE if scope["path"] == "/" else scope["path"].encode() + b" " + body
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text[:3], "more_body": True})
    await send({"type": "http.response.body", "body": text[3:]})


def ask(
    path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request through the guard, its own body sent in two parts."""
    half = len(body) // 2
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    answers: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        answers.append(message)

    named = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": named}
    asyncio.run(Guard(behind, frozenset({OWN}))(scope, receive, send))
    start, *rest = answers
    text = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], text, b"".join(message["body"] for message in rest)


RUNS = "/ajax-api/2.0/mlflow/runs/search"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a client that is no browser
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "http://127.0.0.1:5000.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),  # typed into the address bar
    ],
)
def test_only_own_pages_and_no_pages_get_through(headers: dict[str, str], status: int) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert ask(RUNS, method, headers)[0] == status
    for path in NOTHING:
        assert ask(path, "GET", headers)[0] == status


def test_a_link_on_another_site_may_lead_to_the_page() -> None:
    assert ask("/", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200


@pytest.mark.parametrize("part", [*CLOSED, "gateway", "gateway-proxy"])
def test_parts_that_run_commands_or_call_elsewhere_are_closed(part: str) -> None:
    for path in (f"/ajax-api/3.0/{part}", f"/api/3.0/mlflow/{part}/search", f"/{part}/x"):
        for method in ("GET", "POST", "PUT"):
            assert ask(path, method)[0] == 404, path


def test_what_the_page_asks_about_closed_parts_is_answered_with_nothing() -> None:
    for path, answer in NOTHING.items():
        status, headers, body = ask(path)
        assert (status, headers["content-type"], body) == (200, "application/json", answer)
        json.loads(body)


def test_an_experiment_cannot_take_a_folder_of_this_machine_for_its_artifacts() -> None:
    path = "/api/2.0/mlflow/experiments/create"
    plain = b'{"name": "mine"}'
    assert ask(path, "POST", body=plain) == (200, ask(path, "POST", body=plain)[1], path.encode() + b" " + plain)
    assert ask(path, "POST", body=b'{"name": "x", "artifact_location": "file:///etc"}')[0] == 403
    for unclear in (b"", b"[]", b"{", b'{"name": "' + b"x" * LARGEST_BODY + b'"}'):
        assert ask(path, "POST", body=unclear)[0] == 400


def test_every_answer_of_mlflow_carries_the_policy_and_the_page_the_quiet_script() -> None:
    status, headers, body = ask("/")
    assert status == 200
    assert body == PAGE.replace(b"<head>", f'<head><script src="{QUIET_PATH}"></script>'.encode())
    assert int(headers["content-length"]) == len(body)
    assert ask(QUIET_PATH)[1]["content-type"] == "text/javascript"
    for found in (headers, ask(RUNS)[1], ask("/", "HEAD")[1]):
        assert "default-src 'self'" in found["content-security-policy"]
        assert "http" not in found["content-security-policy"]
