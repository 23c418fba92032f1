"""What counts as a complaint of a page; needs no browser."""

from __future__ import annotations

import pytest

from tests.browser.devtools import Page

NOTICE = "ResizeObserver loop completed with undelivered notifications."


@pytest.mark.parametrize("text", [NOTICE, f"Uncaught {NOTICE}", "ResizeObserver loop limit exceeded"])
def test_only_errors_of_the_page_itself_are_complaints(text: str) -> None:
    page = Page(-1, -1)
    page._note("Runtime.exceptionThrown", {"exceptionDetails": {"text": text}})
    page._note("Runtime.consoleAPICalled", {"type": "error", "args": [{"type": "undefined"}, {"value": text}]})
    page._note("Log.entryAdded", {"entry": {"level": "error", "text": text, "url": "http://127.0.0.1/"}})
    assert page.errors == []
    page._note("Runtime.exceptionThrown", {"exceptionDetails": {"text": "TypeError: x is undefined"}})
    assert page.errors == ["TypeError: x is undefined"]
