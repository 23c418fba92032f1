"""The same SVG in a fraction of the bytes: matplotlib repeats styles, ids and groups that a page need not carry."""

from __future__ import annotations

import re
from collections import Counter

_TAG = re.compile(r"<[^>]+>")


def smaller(svg: str) -> str:
    """Two decimals, repeated styles as classes, no comments, metadata, unused ids or groups without attributes."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace("font-family: 'DejaVu Sans'", "font-family: 'DejaVu Sans', sans-serif")
    svg = re.sub(r">\s+<", "><", _TAG.sub(lambda tag: _short(tag[0]), svg))
    return _classes(_flat(svg))


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
