"""Templates to bytes: HTML with autoescape on for every value, Markdown with every value through the `md` filter."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from harness.report.render.figures import Picture
from harness.report.render.glossary import GLOSSARY
from harness.report.render.svg import inline
from harness.report.render.text import markdown

TEMPLATES = Path(__file__).parent / "templates"


def kind(block: object) -> str:
    """What a template must do with a block: `filter`, `table`, `picture`, `lines`, `terms`."""
    return type(block).__name__.lower()


def drawn(picture: Picture) -> Markup:
    """A figure within the page; matplotlib has escaped every text in it."""
    name = "".join(c if c.isalnum() else "-" for c in picture.name)
    return Markup(inline(picture.svg.decode("utf-8"), name, str(escape(picture.alt))))  # noqa: S704


def explained(text: str) -> Markup:
    """Text in which the first use of each word of the glossary opens its meaning."""
    found = str(escape(text))
    for i, word in enumerate(GLOSSARY):
        button = f'<button class="term" type="button" popovertarget="term-{i}">{word}</button>'
        found = re.sub(rf"(?<![\w>-]){word}(?![\w-])", button, found, count=1)
    return Markup(found)  # noqa: S704


def breakable(text: str) -> Markup:
    """Text that may break behind an underscore: names such as `adversarial_easy` head narrow columns."""
    return Markup(str(escape(text)).replace("_", "_<wbr>"))  # noqa: S704


def script() -> tuple[Markup, str]:
    """The page's script, and the source expression of its hash, by which alone a page's policy lets it run."""
    text = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Markup(text), f"'sha256-{digest}'"  # noqa: S704 - our own, not data


def render(template: str, page: Any) -> bytes:
    """One template of `templates/` over `page`, whose texts hold no markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    html = template.endswith(".html")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=html,  # noqa: S701 - Markdown has its own filter
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": kind,
        "drawn": drawn,
        "explained": explained,
        "breakable": breakable,
        "md": markdown,
    }
    # Our own style sheet, not data: escaping it would break its quotes.
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")) if html else ""  # noqa: S704
    own, source = script() if html else (Markup(""), "")
    given = {"page": page, "style": style, "glossary": GLOSSARY, "script": own, "script_source": Markup(source)}  # noqa: S704
    text = environment.get_template(template).render(given)
    if not html:  # blocks leave blank lines where a block is missing
        text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return text.encode("utf-8")
