"""The `data:` section: where its pairs are meant from, and the content hash that enters run keys. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.config.overrides import absolute
from harness.config.schema import section_axes, shown
from harness.config.strict_yaml import Node, plain
from harness.text import suggestion
from harness.types import InputError

FIX = "expected the path of a pairs file or folder, e.g. `--set data.path=prefs.jsonl.gz`"
# What `columns` may map, each to a column of the source.
MAPPED = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "gold_margin", "completion", "label")


def data_axes(
    node: Node, prefix: str, base: Path, hashes: dict[Path, str], problems: list[str]
) -> dict[str, list[Any]]:
    """The axes of `data`, `path` absolute and `sha256` the hash of each path's content, or the commit of `hub`.

    A relative path is meant from `base` in the spec file and from the working folder in `--set`. `hashes` holds the
    files read already. A `sha256` in the spec is checked against the file, never trusted. Appends to `problems`.
    """
    given = node.value if isinstance(node.value, dict) else None
    key = f"{prefix}data.path"
    if given is not None:
        given = _checked(given, f"{prefix}data", problems)
        node = Node(given, node.where)
    if given is not None and ("path" not in given or plain(given["path"]) in (None, "", [])):
        kept = Node({name: child for name, child in given.items() if name != "path"}, node.where)
        if given.get("hub") and given["hub"].value:
            return _hub_axes(kept, given, f"{prefix}data", prefix, problems)
        problems.append(f"{given.get('path', node).where} {key}: no data file given; {FIX}")
        return section_axes("data", kept, problems, prefix)
    axes = section_axes("data", node, problems, prefix)
    if given is None or axes["path"] == [""]:  # the problem is noted already
        return axes
    if given.get("hub") and given["hub"].value:
        problems.append(f"{given['hub'].where} {prefix}data.hub: given beside path; expected one of the two")
    place = given["path"]
    places = place.value if isinstance(place.value, tuple) else (place,)
    paths = [absolute(text, child, base) for text, child in zip(axes["path"], places, strict=True)]
    found = [_hash(path, f"{child.where} {key}", hashes, problems) for path, child in zip(paths, places, strict=True)]
    if "sha256" in given and axes["sha256"] != found:
        problems.append(
            f"{given['sha256'].where} {prefix}data.sha256: the file's content hash is {', '.join(found)}; the data "
            "changed since the line was written; expected the same data, or no such line"
        )
    if all(found):
        _check_splits(paths, given, axes, f"{prefix}data", problems)
    return {**axes, "path": [str(path) for path in paths], "sha256": found}


def _checked(given: dict[str, Node], key: str, problems: list[str]) -> dict[str, Node]:
    """The section with `columns` and `slices` as the texts that a DataSpec holds; what cannot be used is noted."""
    from harness.data.formats.registry import FORMATS  # loaded only by specs with real data

    out = dict(given)
    form = given.get("format")
    if form is not None and isinstance(form.value, str) and form.value and form.value not in FORMATS:
        near = "".join((suggestion(form.value, FORMATS), *(f"; {line}" for line in FORMATS.found.broken)))
        known = f"expected a form that `harness formats` lists{near}"
        problems.append(f"{form.where} {key}.format: {shown(form.value)}; {known}")
    if form is not None or "plugin" in given:
        out["plugin"] = _plugin(form, given.get("plugin"), key, problems)
    if "slices" in given and isinstance(given["slices"].value, tuple):
        out["slices"] = Node(_slices(given["slices"], f"{key}.slices", problems), given["slices"].where)
    if "columns" in given and isinstance(given["columns"].value, dict):
        out["columns"] = Node(_columns(given["columns"], f"{key}.columns", problems), given["columns"].where)
    elif "columns" in given and isinstance(given["columns"].value, str) and given["columns"].value:
        parts = [part.partition("=") for part in given["columns"].value.split(", ")]
        table = {ours: Node(theirs, given["columns"].where) for ours, _, theirs in parts}
        out["columns"] = Node(
            _columns(Node(table, given["columns"].where), f"{key}.columns", problems), given["columns"].where
        )
    return out


def _plugin(form: Node | None, given: Node | None, key: str, problems: list[str]) -> Node:
    """The plug-in of the format, empty for a built-in one; a spec that names another one is refused."""
    from harness.data.formats.registry import FORMATS

    nodes = () if form is None else form.value if isinstance(form.value, tuple) else (form,)
    names = [node.value for node in nodes if isinstance(node.value, str) and node.value]
    plugins = {FORMATS.plugin(name) for name in names}
    place = form or given
    assert place is not None
    if len(plugins) > 1:
        problems.append(f"{place.where} {key}.format: a plug-in's format is no axis; expected one value")
    problems += [f"{place.where} {key}.format: {FORMATS.found.clashes[n]}" for n in names if n in FORMATS.found.clashes]
    plugin = max(plugins, default="")
    if given is not None and given.value != plugin:
        problems.append(f"{given.where} {key}.plugin: {shown(plain(given))}; found '{plugin}'; remove this line")
    return Node(plugin, place.where)


def _slices(node: Node, key: str, problems: list[str]) -> str:
    """A list of columns as one text, in the order given."""
    assert isinstance(node.value, tuple)
    names = [plain(child) for child in node.value]
    for name, child in zip(names, node.value, strict=True):
        if not isinstance(name, str) or not name or "," in name or names.count(name) > 1:
            problems.append(f"{child.where} {key}: {shown(name)}; expected column names without a comma, each once")
    return ", ".join(map(str, names))


def _columns(node: Node, key: str, problems: list[str]) -> str:
    """A mapping our field -> the source's column as one text, sorted: equal mappings give equal run keys."""
    assert isinstance(node.value, dict)
    for ours, child in node.value.items():
        if ours not in MAPPED:
            near = suggestion(ours, MAPPED)
            problems.append(f"{child.where} {key}.{ours}: unknown field; expected one of {', '.join(MAPPED)}{near}")
        elif not isinstance(child.value, str) or not child.value or set(child.value) & {"=", ","}:
            problems.append(f"{child.where} {key}.{ours}: {shown(plain(child))}; expected a column name without , or =")
    return ", ".join(f"{ours}={plain(child)}" for ours, child in sorted(node.value.items()))


def _hub_axes(node: Node, given: dict[str, Node], key: str, prefix: str, problems: list[str]) -> dict[str, list[Any]]:
    """The axes of a hub data set, `sha256` its commit: resolved now, so that the run key means fixed data."""
    from harness.data.hub import resolve

    axes = section_axes("data", node, problems, prefix)
    for name in ("hub", "revision"):
        if len(axes[name]) > 1:
            problems.append(f"{given[name].where} {key}.{name}: a list; expected one value (not an axis)")
            return axes
    try:
        commit = resolve(axes["hub"][0], axes["revision"][0])
    except InputError as error:
        problems += [f"{given['hub'].where} {line}" for line in error.problems]
        return axes
    if "sha256" in given and axes["sha256"] != [commit]:
        problems.append(f"{given['sha256'].where} {key}.sha256: the revision is commit {commit}; remove this line")
    return {**axes, "sha256": [commit]}


def _check_splits(
    paths: list[Path], given: dict[str, Node], axes: dict[str, list[Any]], key: str, problems: list[str]
) -> None:
    from harness.data.files import split_files

    for name in ("split", "heldout_split"):
        for path in paths:
            for split in axes[name]:
                if name == "split" or split:
                    try:
                        split_files(path, split, f"{key}.{name}")
                    except InputError as error:
                        where = given.get(name, given["path"]).where
                        problems += [f"{where} {line}" for line in error.problems]
    if set(filter(None, axes["heldout_split"])) & set(axes["split"]):
        problems.append(f"{given['heldout_split'].where} {key}.heldout_split: is the training split; expected another")


def _hash(path: Path, place: str, hashes: dict[Path, str], problems: list[str]) -> str:
    from harness.data.pairs import content_sha256  # loaded only by specs with real data

    if path not in hashes:
        hashes[path] = ""
        if not path.exists():
            problems.append(f"{place}: no such file: {path}; {FIX}")
            return ""
        try:
            hashes[path] = content_sha256(path)
        except InputError as error:
            problems += [f"{place}: {line.removeprefix('data.path: ')}" for line in error.problems]
    return hashes[path]
