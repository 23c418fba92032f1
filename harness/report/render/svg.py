"""The same SVG in a fraction of the bytes: matplotlib repeats styles, ids and groups that a page need not carry."""

from __future__ import annotations

import re
from collections import Counter

TIP = "tip:"  # begins the id of a group whose text is to be shown as its title
_TAG = re.compile(r"<[^>]+>")


def smaller(svg: str) -> str:
    """Two decimals, repeated styles as classes, no comments, metadata, unused ids or groups without attributes."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(rf'<g id="{TIP}([^"]*)"[^>]*>', r'<g class="tip"><title>\1</title>', svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace("font-family: 'DejaVu Sans'", "font-family: 'DejaVu Sans', sans-serif")
    svg = re.sub(r">\s+<", "><", _TAG.sub(lambda tag: _short(tag[0]), svg))
    return _classes(_flat(svg))


def inline(svg: str, name: str, label: str) -> str:
    """A figure as part of a page: ids and classes of its own, as wide as its place, with a text alternative.

    `svg` is what `smaller` made, `name` of letters, digits and hyphens, `label` escaped for an attribute.
    """

    def own(tag: re.Match[str]) -> str:
        if tag[0].startswith("<svg"):
            box = re.search(r'viewBox="[^"]*"', tag[0])
            assert box is not None, "matplotlib writes a viewBox"
            links = 'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg"'
            return f'<svg id="svg-{name}" role="img" aria-label="{label}" {box[0]} {links}>'
        text = re.sub(r' id="', f' id="{name}-', tag[0])
        text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
        return re.sub(r' class="(s\d+)"', rf' class="{name}-\1"', text)

    rules = re.compile(r"(<style[^>]*>)(.*?)(</style>)", re.DOTALL)
    head, style, rest = svg.partition("</style>")
    scoped = rules.sub(lambda m: m[1] + _scoped(m[2], name) + m[3], head + style)
    return _TAG.sub(own, scoped + rest)


def _scoped(rules: str, name: str) -> str:
    """Rules that hold within one figure of a page."""
    return re.sub(r"\.(s\d+)\{", rf".{name}-\1{{", rules.replace("*{", f"#svg-{name} *{{"))


def _short(tag: str) -> str:
    """One tag with its numbers at two decimals; an embedded image stays byte for byte."""
    parts = re.split(r"(base64,[^\"]*)", tag)
    parts[::2] = [
        re.sub(r"\s+", " ", re.sub(r"-?\d+\.\d{2,}", lambda n: f"{float(n[0]):.2f}", part)) for part in parts[::2]
    ]
    return "".join(parts)


def _flat(svg: str) -> str:
    """Groups that carry nothing are dropped, with the end tag that belongs to each."""
    kept: list[bool] = []

    def visit(tag: re.Match[str]) -> str:
        if tag[0].startswith("<g") and not tag[0].endswith("/>") and tag[0][2] in " >":
            kept.append(tag[0] != "<g>")
            return tag[0] if kept[-1] else ""
        if tag[0] == "</g>":
            return tag[0] if kept.pop() else ""
        return tag[0]

    return _TAG.sub(visit, svg)


def _classes(svg: str) -> str:
    """Inline styles that occur again become rules, numbered in the order of their first use."""
    counts = Counter(re.findall(r' style="([^"]*)"', svg))
    names = {style: f"s{i}" for i, style in enumerate(s for s, n in counts.items() if n > 1)}
    rules = "".join(f".{name}{{{style}}}" for style, name in names.items())
    svg = re.sub(r' style="([^"]*)"', lambda m: f' class="{names[m[1]]}"' if m[1] in names else m[0], svg)
    return svg.replace("</style>", rules + "</style>", 1)
