"""Templates to bytes: HTML with autoescape on for every value, Markdown with every value through the `md` filter."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from harness.report.render.figures import Picture
from harness.report.render.text import markdown

TEMPLATES = Path(__file__).parent / "templates"


def kind(block: object) -> str:
    """What a template must do with a block: `table`, `picture`, `lines`, `terms`."""
    return type(block).__name__.lower()


def encoded(picture: Picture) -> str:
    """As a data image: its ids and styles stay its own, and no script in it could run."""
    return base64.b64encode(picture.svg).decode("ascii")


def render(template: str, page: Any) -> bytes:
    """One template of `templates/` over `page`, whose texts hold no markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    html = template.endswith(".html")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=html,  # noqa: S701 - Markdown has its own filter
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"kind": kind, "encoded": encoded, "md": markdown}
    # Our own style sheet, not data: escaping it would break its quotes.
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")) if html else ""  # noqa: S704
    text = environment.get_template(template).render(page=page, style=style)
    if not html:  # blocks leave blank lines where a block is missing
        text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return text.encode("utf-8")
