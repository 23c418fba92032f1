"""A chat template run as transformers runs it, but without clock and chance: the same texts on any day.

Sandboxed Jinja, as the template comes with the model; imports no torch, so `harness plan` runs it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

CLOCK = "strftime_now"  # what templates call to write the date


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the special tokens that it may name, and the date that it is given as today's (ISO).

    `eos` is the token that ends a response. `text` is empty where the tokenizer has no template. `arguments`, a JSON
    object or empty, are variables that the template knows by name, such as `enable_thinking`.
    """

    text: str
    tokens: Mapping[str, str]
    eos: str
    date: str
    arguments: str = ""

    def write(self, messages: Sequence[Mapping[str, Any]], cue: bool = False) -> str:
        """The messages as text, with `cue` up to where the assistant answers. Raises TemplateError.

        A message may lack a field, so templates look for them; one that is None counts as lacking.
        """
        given = [{name: value for name, value in turn.items() if value is not None} for turn in messages]
        try:
            own = json.loads(self.arguments) if self.arguments else {}
            known = {"messages": given, "tools": None, "documents": None, "add_generation_prompt": cue}
            return _compiled(self.text, self.date).render({**self.tokens, **own, **known})
        except TemplateError:
            raise
        except Exception as error:  # a template is a program of its own, and may fail in any way
            raise TemplateError(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=8)
def _compiled(text: str, date: str) -> Template:
    """The template in the environment that transformers gives it: its block options, functions and one own tag."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    today = datetime.fromisoformat(date)
    environment.filters |= {"tojson": _json, "random": _chance}
    environment.globals |= {
        CLOCK: today.strftime,
        "raise_exception": _refuse,
        "namespace": _Namespace,
        "lipsum": _chance,
    }
    return environment.from_string(text)


def _json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Unlike Jinja's own filter without escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _chance(*_: Any, **__: Any) -> NoReturn:
    raise TemplateError("it draws at random, so that no prompt could be written twice")


class _Generation(Extension):
    """`{% generation %}`: marks what the assistant writes, which changes no text."""

    tags = {"generation"}  # noqa: RUF012 - the attribute of jinja2

    def parse(self, parser: Parser) -> Node:
        """The statements within, as they stand."""
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class _Namespace(Namespace):
    """Variables that a template sets in loops; none may hide an attribute of Python's own."""

    def __init__(*args: Any, **variables: Any) -> None:  # a variable may be called self
        self, *given = args
        for name in (values := dict(*given, **variables)):
            _public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        Namespace.__setitem__(self, name, value)


def _public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")
