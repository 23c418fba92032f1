"""Conversations written by a model's chat template: prompt with the cue to answer, then answers, and what it loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from harness.data.chat_template import ChatTemplate
from harness.data.files import RowError
from harness.data.transcripts import Turn
from harness.model_files.folder import TOKENIZER, ModelFolder

# What a template may do to a pair, by kind of note: whether a warning, and what the user reads behind a count of pairs.
# {shown}: what the template itself writes there.
FAULTS: dict[str, tuple[bool, str]] = {
    "template_reasoning": (
        True,
        "pairs lose reasoning: the chat template leaves out what an answer has before </think>",
    ),
    "template_answer": (True, "pairs lose a part of an answer: the chat template does not write it as it stands"),
    "template_turn": (True, "prompts lose a turn: the chat template does not write it"),
    "template_cue": (
        True,
        "pairs have the cue{shown} scored as part of both answers: the chat template does not end the prompt with it",
    ),
    "template_prefix": (
        True,
        "prompts end before{shown}: the chat template writes that where an answer is asked for and otherwise once one "
        "follows, so the prompt is what both have in common",
    ),
    "template_lead": (False, "pairs have{shown} of the chat template before each answer, scored as part of it"),
    "template_goes_on": (
        True,
        "pairs have{shown} of the chat template behind the end of an answer: it writes the cue to answer once more",
    ),
}
FIX = "mend the template, or set model.template: none"
_SHOWN = 60  # characters of what a template writes


class Fault(NamedTuple):
    """What a template did to a pair: a kind of `FAULTS`, and what it wrote there itself."""

    kind: str
    shown: str = ""


class Rendered(NamedTuple):
    """A pair as a template writes it, special tokens included, and what was lost or added on the way."""

    prompt: str
    chosen: str
    rejected: str
    faults: tuple[Fault, ...] = ()


# (turns before the answers, chosen answer, rejected answer) -> the pair as texts
Render = Callable[[Sequence[Turn], str, str], Rendered]


# A text -> its token ids, and the character behind each.
TokenEnds = Callable[[str], tuple[Sequence[int], Sequence[int]]]


def chat_renderer(tokenizer: Any, date: str, arguments: str = "") -> Render:
    """The chat template of a transformers tokenizer, on a fixed date, with `arguments` of its own as JSON."""
    return _renderer(template_of(tokenizer, date, arguments), lambda: tokenizer.backend_tokenizer)


def template_of(tokenizer: Any, date: str, arguments: str = "") -> ChatTemplate:
    """The template itself; its text is empty where the tokenizer has none."""
    text = _default(tokenizer.chat_template)
    return _template(text, tokenizer.special_tokens_map, tokenizer.eos_token or "", date, arguments)


def folder_renderer(folder: ModelFolder, date: str, arguments: str = "") -> Render:
    """The chat template of a model's folder as its files have it, on a fixed date, with `arguments` of its own."""
    eos = folder.tokens.get("eos_token", "")
    template = _template(_default(folder.template), folder.tokens, eos, date, arguments)

    def tokenizer() -> Any:
        from harness.data.tokenize import file_tokenizer  # needs numpy and tokenizers; read for few templates

        return file_tokenizer(folder.path / TOKENIZER)

    return _renderer(template, tokenizer)


def _default(template: str | Mapping[str, str] | None) -> str:
    """The template that is used where no tools are offered."""
    return (template.get("default", "") if isinstance(template, Mapping) else template) or ""


def _template(text: str, tokens: Mapping[str, Any], eos: str, date: str, arguments: str) -> ChatTemplate:
    named = {name: str(token) for name, token in tokens.items() if isinstance(token, str)}
    return ChatTemplate(text, named, eos, date, arguments)


def _renderer(template: ChatTemplate, tokenizer: Callable[[], Any]) -> Render:
    def ends(text: str) -> tuple[Sequence[int], Sequence[int]]:
        encoded = tokenizer().encode(text, add_special_tokens=False)
        return encoded.ids, [end for _, end in encoded.offsets]

    return lambda context, chosen, rejected: rendered(template, ends, context, chosen, rejected)


def rendered(template: ChatTemplate, ends: TokenEnds, context: Sequence[Turn], chosen: str, rejected: str) -> Rendered:
    """The prompt and both answers as a template writes them.

    prompt + answer is the whole conversation up to and including the end-of-sequence token of the answer, where the
    template writes one: what it puts behind that is no part of the answer. An answer of white space alone stays "".
    Where the template writes the prompt otherwise once an answer follows, the prompt is the tokens that all three
    texts begin with. Raises RowError of kind `template` where there is no template, where it refuses the turns, or
    where these tokens leave out a turn.
    """
    if not template.text:
        raise RowError("template", "chosen", "the model's tokenizer has no chat template; set model.template: none")
    asked = prompt = write_turns(template, context, cue=True)
    answers = [{"role": "assistant", "content": answer} for answer in (chosen, rejected)]
    wholes = [write_turns(template, [*context, answer]) for answer in answers]
    faults: dict[Fault, None] = {}
    if not all(whole.startswith(prompt) for whole in wholes):
        prompt = _common(ends, prompt, wholes)
        if not prompt or any(_holds(asked, turn["content"]) > _holds(prompt, turn["content"]) for turn in context):
            why = "the chat template formats the prompt differently once an answer follows; set model.template: none"
            raise RowError("template", "chosen", why)
        faults[Fault("template_prefix", asked[len(prompt) :])] = None
    texts = []
    for whole, answer in zip(wholes, (chosen, rejected), strict=True):
        text, found = _ended(template, context, prompt, whole[len(prompt) :], answer.strip())
        faults |= dict.fromkeys(found)
        texts.append(text if answer.strip() else "")
    if not all(_holds(prompt, turn["content"].rpartition("</think>")[2]) for turn in context):
        faults[Fault("template_turn")] = None
    return Rendered(prompt, texts[0], texts[1], tuple(faults))


def _common(ends: TokenEnds, prompt: str, wholes: Sequence[str]) -> str:
    """The text of the tokens that a prompt and the conversations from it begin with in common."""
    ids, behind = ends(prompt)
    shared = min(shared_length(ids, ends(whole)[0]) for whole in wholes)
    same = min(shared_length(prompt, whole) for whole in wholes)
    # The last token may end within a character.
    return prompt[: max((end for end in behind[:shared] if end <= same), default=0)]


def shared_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items two sequences begin with in common."""
    apart = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(apart, min(len(one), len(other)))


def _ended(
    template: ChatTemplate, context: Sequence[Turn], prompt: str, text: str, answer: str
) -> tuple[str, list[Fault]]:
    """What a template wrote of an answer, up to its end-of-sequence token, and what is wrong with it."""
    faults = []
    at = text.find(answer)
    if at < 0 and not _holds(prompt[-_SHOWN:] + text, answer):  # the cue may open the reasoning, as <think>
        faults.append(Fault("template_reasoning" if "</think>" in answer else "template_answer"))
    lead = text[: max(at, 0)]
    if lead.strip():
        ignored = write_turns(template, context) == prompt
        faults.append(Fault("template_cue" if ignored else "template_lead", lead))
    eos = template.eos
    # Where the answer is not found as it stands, the last token of that kind is the one that ends it.
    end = (text.find(eos, at + len(answer)) if at >= 0 else text.rfind(eos)) if eos else -1
    if end >= 0:
        text, behind = text[: end + len(eos)], text[end + len(eos) :]
    else:
        tail = text[at + len(answer) :] if at >= 0 and not lead.strip() else ""
        behind = tail if prompt.endswith(tail) else ""  # it ends the answer as it ends the prompt: with the cue
    if behind.strip():
        faults.append(Fault("template_goes_on", behind))
    return text, faults


def _holds(text: str, part: str) -> bool:
    """Whether a text holds a part, whatever the white space between."""
    return part.strip() in text or "".join(part.split()) in "".join(text.split())


def write_turns(template: ChatTemplate, messages: Sequence[Turn], cue: bool = False) -> str:
    """The messages as a template writes them. Raises RowError of kind `template` where it refuses them."""
    try:
        return template.write(messages, cue)
    except TemplateError as error:  # templates refuse by raising, e.g. system turns
        raise RowError("template", "prompt", f"the chat template refuses these turns ({error})") from error


def fault_text(kind: str, shown: Sequence[str]) -> str:
    """The sentence of a kind of `FAULTS`; what the template wrote is named where it is the same for all pairs."""
    same = f" {shown[0][:_SHOWN]!r}" if shown and shown[0] and len(set(shown)) == 1 else ""
    return FAULTS[kind][1].format(shown=same or ("" if kind == "template_cue" else " words"))
