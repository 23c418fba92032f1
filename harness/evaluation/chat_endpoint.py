"""A chat endpoint that speaks OpenAI's format: one question, one reply, with retries. Follows no redirect.

The key is read from the environment, sent as a header to the endpoint alone, and removed from every message.
"""

from __future__ import annotations

import ipaddress
import json
import os
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from harness.types import InputError

KEY = "OPENAI_API_KEY"
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # worth another attempt
REFUSED = (401, 402, 403, 404, 405)  # about the endpoint, key or model: every other question would fail, too
LONGEST_WAIT = 60.0


class NoReply(Exception):  # noqa: N818 - says what was found
    """The endpoint gave no usable reply to one question, whatever was tried."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """An attempt that failed, and the seconds that the server asks to wait."""

    why: str
    wait: float = 0.0


@dataclass(frozen=True)
class Retries:
    """Attempts per question, seconds to wait for each, and seconds before the second one (doubled each time)."""

    attempts: int = 5
    timeout: float = 120.0
    first_wait: float = 1.0


def check_endpoint(url: str, send_texts: bool) -> None:
    """Raises InputError for what is no address, holds a password, or is elsewhere without `send_texts`."""
    try:
        parts = urlsplit(url)
        ok = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        ok = False
    if not ok:
        raise InputError(f"--endpoint {url.rpartition('@')[2]}: expected a form such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(f"--endpoint: no password, ? or # in the address; put the key into {KEY} or name --key-env")
    if not is_loopback(url) and not send_texts:
        raise InputError(
            f"--endpoint {url}: is not on this machine, and prompts and answers would be sent there; "
            "add --send-texts if they may leave"
        )


def is_loopback(url: str) -> bool:
    """Whether the address names this machine: `localhost` or a loopback number."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_key(name: str) -> str:
    """The key in the environment; empty where the default variable is not set. Raises InputError for a named one."""
    key = os.environ.get(name or KEY, "").strip()
    if name and not key:
        raise InputError(f"--key-env {name}: not set in the environment")
    if not key.isascii() or any(not c.isprintable() for c in key):
        raise InputError(f"{name or KEY}: holds characters that no header can carry")
    return key


@dataclass
class ChatEndpoint:
    """A connection that threads may share. `stop` ends waits between attempts."""

    url: str
    model: str
    max_tokens: int
    key: str = field(default="", repr=False)
    retries: Retries = field(default_factory=Retries)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        # A proxy of the environment must not see what is meant for this machine.
        self._client = httpx2.Client(
            headers=headers, timeout=self.retries.timeout, follow_redirects=False, trust_env=not is_loopback(self.url)
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, text: str) -> str:
        """The reply to one user message. Raises NoReply, and InputError where no question can succeed."""
        wait = self.retries.first_wait
        attempt = 1
        while isinstance(found := self._attempt(text), _Failed):
            if attempt == self.retries.attempts or self.stop.wait(min(max(wait, found.wait), LONGEST_WAIT)):
                raise NoReply(found.why)
            attempt, wait = attempt + 1, 2 * wait
        return found

    def _attempt(self, text: str) -> str | _Failed:
        """The reply, or what may go better the next time. Raises NoReply and InputError for what is final."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        try:
            answer = self._client.post(f"{self.url.rstrip('/')}/chat/completions", content=json.dumps(body).encode(),
                                       headers={"Content-Type": "application/json"})  # fmt: skip
        except httpx2.RequestError as error:
            return _Failed(self._line(f"{type(error).__name__}: {error}"))
        if answer.status_code in AGAIN:
            return _Failed(self._problem(answer), _seconds(answer.headers.get("Retry-After", "")))
        if answer.status_code in REFUSED or answer.is_redirect:
            raise InputError(f"--endpoint {self.url}: {self._problem(answer)}")
        if answer.status_code != 200:
            raise NoReply(self._problem(answer))
        try:
            content = answer.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return _Failed("status 200 without choices[0].message.content")
        if not isinstance(content, str | None):
            return _Failed("message.content is no text")
        return content or ""

    def _problem(self, answer: Any) -> str:
        return self._line(f"status {answer.status_code} {answer.text}")

    def _line(self, text: str) -> str:
        return " ".join(self.without_key(text).split())[:200]

    def without_key(self, text: str) -> str:
        """`text` with the key taken out: servers repeat what they were sent."""
        return text.replace(self.key, "[key]") if self.key else text


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:  # a date, or nothing
        return 0.0
