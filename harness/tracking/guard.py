"""A proxy in front of MLflow's server that refuses requests of other pages, foreign artifact folders and jobs.

As measured with mlflow 3.17: pages of any other local port may write; an experiment may be given a folder of this
machine as its artifacts and then be read from; jobs, the gateway and an assistant that runs commands answer anyone who
reaches the port, which on a shared machine is every user; and no policy keeps a page from calling elsewhere.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

STORE = "_MLFLOW_SERVER_FILE_STORE"  # MLflow's name for the address of its store
# Parts of a path that lead to commands, jobs or foreign services (`gateway...` as well): no sweep needs them.
CLOSED = ("jobs", "assistant", "webhooks", "mcp-servers")
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",  # plotly compiles functions
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "frame-src 'self' blob:",
        "frame-ancestors 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
# The page opens its assistant beside the first view that a browser shows. It is closed here, so it stays out of sight.
QUIET_PATH = "/harness-quiet.js"
QUIET = b"localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
HEAD = b"<head>"
# What the page asks about parts that are closed, or that MLflow lacks without accounts: nothing is there.
NOTHING = {
    "/ajax-api/2.0/mlflow/users/current": b"{}",
    "/ajax-api/2.0/mlflow/gateway-proxy": b'{"endpoints": []}',
    "/ajax-api/3.0/mlflow/assistant/config": b'{"providers": {}, "projects": {}, "remote_access_allowed": false}',
    "/ajax-api/3.0/mlflow/assistant/providers": b'{"providers": [], "resolved": null, "gateway_vendor_options": {}}',
}
LARGEST_BODY = 1 << 20  # bytes of a request to make an experiment


@dataclass(frozen=True)
class Guard:
    """An ASGI application in front of MLflow's; `origins` are the addresses at which its pages are opened."""

    app: App
    origins: frozenset[str]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer what is refused or added here, hand on everything else."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        refused = refusal(path, headers, self.origins)
        if refused is None and path.endswith("/experiments/create"):
            body = await read_body(receive)
            receive = replay(body)
            refused = refused_experiment(body)
        if path == QUIET_PATH:
            await answer(send, 200, QUIET, b"text/javascript")
        elif scope["method"] == "GET" and path in NOTHING and (refused is None or refused[0] == 404):
            await answer(send, 200, NOTHING[path], b"application/json")
        elif refused is not None:
            await answer(send, refused[0], refused[1].encode("utf-8"), b"text/plain; charset=utf-8")
        else:
            await self.app(
                scope, receive, Quieted(send) if (scope["method"], path) == ("GET", "/") else with_policy(send)
            )


def refusal(path: str, headers: Mapping[str, str], origins: frozenset[str]) -> tuple[int, str] | None:
    """Status and reason where a request is refused. Hosts are checked by MLflow itself."""
    foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    same_origin = headers.get("origin") in (None, *origins)
    if not same_origin or (foreign and path != "/"):  # a link elsewhere may lead to "/"
        return 403, "pages of other sites have no access to this server"
    if any(part in CLOSED or part.startswith("gateway") for part in path.split("/")):
        return 404, "not part of this server"
    return None


def refused_experiment(body: bytes | None) -> tuple[int, str] | None:
    """A new experiment may not name where its artifacts lie: the server would read files there for anyone."""
    try:
        value = json.loads(body or b"")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return 400, "expected a JSON object of at most 1 MiB"
    return (403, "artifact_location: not taken by this server") if value.get("artifact_location") else None


async def read_body(receive: Receive) -> bytes | None:
    """The whole body of a request; None where it is longer than `LARGEST_BODY` or the client has gone."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if message["type"] != "http.request" or len(body) > LARGEST_BODY:
            return None
    return body


def replay(body: bytes | None) -> Receive:
    """What hands a body that was read on to the next application."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body or b"", "more_body": False}

    return receive


async def answer(send: Send, status: int, body: bytes, kind: bytes) -> None:
    """A whole response."""
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def with_policy(send: Send) -> Send:
    """`send`, with the content policy in every response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), policy()]}
        await send(message)

    return sending


def policy() -> tuple[bytes, bytes]:
    """The header that keeps a page, whatever it holds, from calling any other machine."""
    return b"content-security-policy", POLICY.encode("ascii")


class Quieted:
    """`send` for the one page: with the policy, and the script that keeps the assistant folded in its head."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.start: Message = {}
        self.body = b""

    async def __call__(self, message: Message) -> None:
        """Collect the page, then send it."""
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if message.get("more_body", False):
            return
        script = HEAD + b'<script src="' + QUIET_PATH.encode() + b'"></script>'
        body = self.body.replace(HEAD, script, 1)
        unchanged = [(name, value) for name, value in self.start["headers"] if name not in (b"content-length", b"etag")]
        headers = [*unchanged, (b"content-length", str(len(body)).encode()), policy()]
        await self.send({**self.start, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def main(artifacts: str, host: str, port: int) -> None:
    """Serve the store named by the variable `STORE` until it is stopped.

    The settings of MLflow's application are environment variables, read at its import. An argument would show every
    user of the machine the store's address, which may hold a password.
    """
    names = [f"localhost:{port}", f"{host}:{port}"]
    origins = frozenset(f"http://{name}" for name in names)
    os.environ.update(
        {
            "_MLFLOW_SERVER_ARTIFACT_ROOT": artifacts,
            "_MLFLOW_SGI_NAME": "uvicorn",
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(names),
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(sorted(origins)),
            "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
    )
    import uvicorn
    from mlflow.server.fastapi_app import app

    uvicorn.run(Guard(app, origins), host=host, port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
