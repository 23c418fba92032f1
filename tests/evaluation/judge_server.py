"""A server on loopback that speaks OpenAI's chat format: judges by rule, fails on request, counts what it is asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rule = Callable[[str, str], str]  # (answer A, answer B) -> the reply
Fault = Callable[[int], tuple[int, str] | None]  # number of the request -> a status and body instead of a reply


def verdict(letter: str) -> str:
    return f'Because.\n{{"verdict": "{letter}"}}'


def always_first(a: str, b: str) -> str:
    return verdict("A")


def better(a: str, b: str) -> str:
    """Prefers the answer that says `good`."""
    return verdict("tie" if ("good" in a) == ("good" in b) else "A" if "good" in a else "B")


@dataclass
class Served:
    """What a server was asked, by its own count."""

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)  # set once a request waits for `most` to rise
    most: int = 1 << 30  # requests that are answered; later ones wait


@contextmanager
def serving(rule: Rule, fault: Fault = lambda number: None, delay: float = 0.0) -> Iterator[Served]:
    served, lock = Served(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][0]["content"]
            with lock:
                number = sum(served.asked.values())
                served.asked[text] += 1
                served.headers.append(dict(self.headers))
            while number >= served.most:
                served.held.set()
                time.sleep(0.01)
            time.sleep(delay)
            failed = fault(number)
            if failed is None:
                reply = {"role": "assistant", "content": rule(*answers(text))}
                self._send(200, json.dumps({"choices": [{"message": reply}]}))
            else:
                self._send(*failed)

        def _send(self, status: int, body: str) -> None:
            data = body.encode()
            try:
                self.send_response(status)
                if status in (301, 302, 307, 308):
                    self.send_header("Location", body)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client was killed
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answers(text: str) -> tuple[str, str]:
    """Both answers, as the delimiters of the packaged template tell them."""
    fence = next(line for line in text.splitlines() if line.startswith("=====")).split()[0]
    a = text.split(f"{fence} answer A\n")[1].split(f"\n{fence} answer B\n")[0]
    b = text.split(f"{fence} answer B\n")[1].split(f"\n{fence} end")[0]
    return a, b
