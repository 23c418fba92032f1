"""Data sets of the Hugging Face hub, through `datasets`: the commit that a run key holds, and its rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from harness.data.files import RawRow
from harness.types import DataSpec, InputError

COMMIT = re.compile(r"[0-9a-f]{40}")
PATIENCE = 10.0  # seconds for the hub's first answer


def unreachable(hub: str, why: object) -> InputError:
    """One line that says what failed and the way round without a network."""
    reason = " ".join(str(why).split())[:160]
    return InputError(
        f"data.hub: cannot get '{hub}' ({reason}); offline: `hf download {hub} --repo-type dataset --local-dir DIR` "
        "where there is a network, then data.path: DIR"
    )


def resolve(hub: str, revision: str) -> str:
    """The commit of a hub data set at a branch, tag or commit (a full commit hash stands for itself: no network).

    Raises InputError, in one line, where the hub cannot be asked or does not know the data set.
    """
    if COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(hub, revision=revision or None, timeout=PATIENCE).sha
    except Exception as error:
        raise unreachable(hub, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
    if not found:
        raise unreachable(hub, "the hub names no commit")
    return str(found)


def hub_rows(spec: DataSpec, columns: Mapping[str, str], split: str) -> Iterator[RawRow]:
    """The rows of one split of a hub data set at the commit `spec.sha256`; other columns come as None.

    Raises InputError where it cannot be had, or has several splits and none is named.
    """
    import datasets

    try:
        found = datasets.load_dataset(spec.hub, revision=spec.sha256 or None)
    except Exception as error:
        raise unreachable(spec.hub, f"{type(error).__name__}: {error}") from error
    names = ", ".join(found)
    if not split and len(found) > 1:
        raise InputError(f"data.hub: {spec.hub} has the splits {names}; name one as data.split")
    if split and split not in found:
        raise InputError(f"data.split: {spec.hub} has no split '{split}'; found {names}")
    table = found[split or next(iter(found))]
    unread = dict.fromkeys(name for name in table.column_names if name not in columns)
    wanted = table.select_columns([name for name in table.column_names if name in columns])
    for number, row in enumerate(wanted, 1):
        yield RawRow(number, {**unread, **row}, f"{spec.hub}:{split or 'train'}:{number}")
