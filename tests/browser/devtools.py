"""Headless Chromium over the DevTools protocol, through a pipe: no websocket, no port, no library.

With `--remote-debugging-pipe` the browser reads commands from file descriptor 3 and writes answers and events to 4,
each a JSON text that ends in a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import BROWSERS

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--disable-default-apps", "--disable-extensions", "--disable-domain-reliability", "--hide-scrollbars"),
)

# Chromium says this of any page that resizes what it watches; it may stand behind "Uncaught" or an address.
HARMLESS = "ResizeObserver loop"


@dataclass
class Page:
    """One tab. `requests` are the URLs it asked for, `errors` what its console and its scripts complained of."""

    to_browser: int
    from_browser: int
    session: str = ""
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _number: int = 0
    _buffer: bytes = b""

    def call(self, method: str, timeout: float = 60.0, **params: Any) -> dict[str, Any]:
        """Send one command and return its result, keeping the events that arrive meanwhile."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to_browser, data) :]
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for answer in self._read(until):
                if answer.get("id") == self._number:
                    if "error" in answer:
                        raise RuntimeError(f"{method}: {answer['error']['message']}")
                    result: dict[str, Any] = answer["result"]
                    return result
        raise TimeoutError(f"{method}: no answer within {timeout:g} s")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page (a promise is awaited)."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0) -> Any:
        """The first true value of a JavaScript expression, asked for again and again; its last one otherwise."""
        until = time.monotonic() + seconds
        while True:
            value = self.evaluate(script)
            if value or time.monotonic() > until:
                return value
            time.sleep(0.25)

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _read(self, until: float) -> Iterator[dict[str, Any]]:
        """Whole messages that have arrived, waiting for at least some bytes."""
        ready, _, _ = select.select([self.from_browser], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return
        data = os.read(self.from_browser, 1 << 20)
        if not data:
            raise EOFError("the browser ended")
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        for text in whole:
            message = json.loads(text)
            self._note(message.get("method", ""), message.get("params", {}))
            yield message

    def _note(self, event: str, params: Mapping[str, Any]) -> None:
        complaint = ""
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            complaint = str(details.get("exception", {}).get("description") or details["text"])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            complaint = " ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"])
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            entry = params["entry"]
            complaint = f"{entry['text']} {entry.get('url', '')}".strip()
        if complaint and HARMLESS not in complaint:
            self.errors.append(complaint)


@contextmanager
def open_page(profile: Path, width: int = 1600, height: int = 1400) -> Iterator[Page]:
    """An empty tab of a fresh browser, ended with the block."""
    browser = next(found for found in map(shutil.which, BROWSERS) if found)
    commands, to_browser = os.pipe()
    from_browser, answers = os.pipe()
    # The browser insists on 3 and 4; a shell puts the pipes there, whatever their numbers are here.
    script = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
    flags = [*QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        ["/bin/bash", "-c", script, browser, *flags, "about:blank"],
        pass_fds=(commands, answers), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(commands)
    os.close(answers)
    try:
        page = Page(to_browser, from_browser)
        targets = page.call("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in targets if target["type"] == "page")
        page.session = page.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        yield page
    finally:
        os.close(to_browser)
        os.close(from_browser)
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
