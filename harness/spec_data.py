"""The `data:` section: where its file is meant from, and the content hash that enters run keys. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.spec_models import section_axes
from harness.spec_set import SOURCE
from harness.types import InputError
from harness.yaml_strict import Node, plain

FIX = "expected the path of a pairs file, e.g. `--set data.path=prefs.jsonl.gz`"


def data_axes(
    node: Node, prefix: str, base: Path, hashes: dict[Path, str], problems: list[str]
) -> dict[str, list[Any]]:
    """The axes of `data`, `path` absolute and `sha256` the hash of each path's content.

    A relative path is meant from `base` in the spec file and from the working folder in `--set`. `hashes` holds the
    files read already. A `sha256` in the spec is checked against the file, never trusted. Appends to `problems`.
    """
    given = node.value if isinstance(node.value, dict) else None
    key = f"{prefix}data.path"
    if given is not None and ("path" not in given or plain(given["path"]) in (None, "", [])):
        if "hub" not in given:
            problems.append(f"{given.get('path', node).where} {key}: no data file given; {FIX}")
        node = Node({name: child for name, child in given.items() if name != "path"}, node.where)
        return section_axes("data", node, problems, prefix)
    axes = section_axes("data", node, problems, prefix)
    if given is None or axes["path"] == [""]:  # the problem is noted already
        return axes
    place = given["path"]
    places = place.value if isinstance(place.value, tuple) else (place,)
    paths = [_absolute(text, child, base) for text, child in zip(axes["path"], places, strict=True)]
    found = [_hash(path, f"{child.where} {key}", hashes, problems) for path, child in zip(paths, places, strict=True)]
    if "sha256" in given and axes["sha256"] != found:
        problems.append(
            f"{given['sha256'].where} {prefix}data.sha256: the file's content hash is {', '.join(found)}; the data "
            "changed since the line was written; expected the same data, or no such line"
        )
    return {**axes, "path": [str(path) for path in paths], "sha256": found}


def _absolute(text: str, node: Node, base: Path) -> Path:
    return ((Path.cwd() if node.where == SOURCE else base) / Path(text).expanduser()).resolve()


def _hash(path: Path, place: str, hashes: dict[Path, str], problems: list[str]) -> str:
    from harness.data.pairs import content_sha256  # loaded only by specs with real data

    if path not in hashes:
        hashes[path] = ""
        if not path.is_file():
            problems.append(f"{place}: {'is a directory' if path.is_dir() else 'no such file'}: {path}; {FIX}")
            return ""
        try:
            hashes[path] = content_sha256(path)
        except InputError as error:
            problems += [f"{place}: {line}" for line in error.problems]
    return hashes[path]
