"""The block `evaluation.gold`: reward models that score finished runs. Imports no torch.

It belongs to the sweep, so no run key depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config.overrides import absolute
from harness.config.schema import read_mapping, shown
from harness.config.strict_yaml import Node, plain
from harness.model_files.location import HUB_ID
from harness.types import GoldSpec, Parameter

KEY = "gold"
GOLD = {
    "reward_model": Parameter(None, "table", doc="the path of a folder, a hub id, or a list of these"),
    "batch_size": Parameter(None, "int", 1, 65_536),
    "max_length": Parameter(None, "int", 0, 10_000_000),
}


def take_gold(
    keys: dict[str, Node], prefix: str, base: Path, problems: list[str]
) -> tuple[dict[str, Node], GoldSpec | None]:
    """The keys without `evaluation.gold`, and the block's settings (None: absent). Appends to `problems`.

    A relative folder is meant from `base` in the spec file and from the working folder in `--set`.
    """
    evaluation = keys.get("evaluation")
    if evaluation is None or not isinstance(evaluation.value, dict) or KEY not in evaluation.value:
        return keys, None
    node = evaluation.value[KEY]
    rest = {name: child for name, child in evaluation.value.items() if name != KEY}
    if prefix:
        problems.append(f"{node.where} {prefix}evaluation.{KEY}: belongs to the sweep; move it out of `also`")
    keys = {**keys, "evaluation": Node(rest, evaluation.where)}
    return keys, _read(node, f"{prefix}evaluation.{KEY}", base, problems)


def _read(node: Node, key: str, base: Path, problems: list[str]) -> GoldSpec | None:
    if node.value is None:
        return None
    given = read_mapping(GOLD, node, key, "{reward_model: models/reward}", problems)
    if given is None:
        return None
    child = given.get("reward_model", node)
    value = plain(given["reward_model"]) if "reward_model" in given else None
    models = [value] if isinstance(value, str) else value
    if not isinstance(models, list) or not models or not all(isinstance(one, str) and one for one in models):
        problems.append(f"{child.where} {key}.reward_model: {shown(value)}; expected {GOLD['reward_model'].doc}")
        return None
    if len(set(models)) < len(models):
        problems.append(f"{child.where} {key}.reward_model: names a model twice; keep one")
    given["reward_model"] = tuple(_placed(one, child, base) for one in models)
    return GoldSpec(**given)


def _placed(text: str, node: Node, base: Path) -> str:
    """A reward model as a resolved spec keeps it: the absolute path of a folder, or a hub id."""
    return _place(text, absolute(text, node, base))


def given_models(texts: Sequence[str]) -> tuple[str, ...]:
    """Reward models from a command line, relative folders meant from the working folder."""
    return tuple(_place(text, Path(text).expanduser().absolute()) for text in texts)


def _place(text: str, folder: Path) -> str:
    return text if HUB_ID.fullmatch(text.partition("@")[0]) and not folder.exists() else str(folder)
