"""Raw rows to pairs by the rows' form (see `formats/`); rows that cannot be used are kept with their reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.data.chat import FIX, Fault, Render, Rendered
from harness.data.formats.ranked import ranked_pairs
from harness.data.formats.recognise import Seen
from harness.data.formats.row import Format, Graded, Pair, Ranked
from harness.data.notes import ended_side, special_tokens
from harness.data.raw_rows import MAX_ROW_BYTES, RawRow, RowError
from harness.data.transcripts import as_transcript
from harness.types import DataSpec, PreferencePair


@dataclass(eq=False)
class Reader:
    """One source while it is read: its pairs so far, what was wrong with other rows, and answers that need others."""

    spec: DataSpec
    form: Format
    seen: Seen
    render: Render | None
    pairs: list[PreferencePair] = field(default_factory=list)
    faults: list[tuple[RawRow, RowError]] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    groups: dict[str, list[tuple[RawRow, Graded]]] = field(default_factory=dict)
    prompts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    conversations: int = 0
    capped: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    marked: Counter[str] = field(default_factory=Counter)
    marked_rows: list[int] = field(default_factory=list)
    one_end: list[tuple[str, int]] = field(default_factory=list)  # side and row of messages with an end on one side
    template_faults: dict[str, list[tuple[int, Fault]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, raw: RawRow) -> None:
        """Take in one row."""
        self.rows += 1
        try:
            if isinstance(raw.value, RowError):
                raise raw.value
            self.columns.update(raw.value)
            self._check(raw.value)
            found = self.form.read(raw.value)
            if isinstance(found, Graded):
                key = found.prompt if isinstance(found.prompt, str) else json.dumps(found.prompt, sort_keys=True)
                slim = RawRow(raw.number, self._slices(raw.value), raw.place)
                self.groups.setdefault(key, []).append((slim, found))
                return
            slices = self._slices(raw.value)
            for pair in ranked_pairs(found, self.spec.pairs) if isinstance(found, Ranked) else (found,):
                try:
                    self._keep(raw, pair, slices)
                except RowError as fault:  # other pairs of the row may be of use
                    self.faults.append((RawRow(raw.number, fault, raw.place), fault))
        except RowError as fault:
            self.faults.append((RawRow(raw.number, fault, raw.place), fault))

    def _check(self, row: Mapping[str, Any]) -> None:
        """Raise RowError for a row that differs from the others in what makes the form."""
        if "prompt" in self.form.optional and self.seen.has_prompt and "prompt" not in row:
            raise RowError("missing_field", "prompt", "missing")
        if self.form.needs.get("chosen") != "text|messages":
            return
        sides = [row.get("chosen"), row.get("rejected")]
        if None not in sides and any(isinstance(side, list) != self.seen.conversational for side in sides):
            first = "lists of messages" if self.seen.conversational else "text"
            raise RowError("mixed", "chosen", f"text and lists of messages are mixed (the first rows hold {first})")

    def _slices(self, row: Mapping[str, Any]) -> dict[str, str]:
        names = self.spec.slices.split(", ") if self.spec.slices else ()
        return {name: _as_slice(row.get(name), name) for name in names}

    def _keep(self, raw: RawRow, pair: Pair, slices: Mapping[str, str]) -> None:
        """Keep a pair unless its prompt has as many as it may have."""
        texts = written(pair, self.render)
        made = self._made(raw.number, pair, texts, slices)
        identity = made.meta["prompt_id"]
        if self.spec.pairs_per_prompt and self.prompts[identity] >= self.spec.pairs_per_prompt:
            self.capped.append(raw.number)
            return
        self.prompts[identity] += 1
        if not isinstance(pair.prompt, str):
            self.conversations += 1
            for fault in texts.faults:
                self.template_faults[fault.kind].append((raw.number, fault))
            if self.render and (
                marks := special_tokens(pair.chosen, pair.rejected, *(t["content"] for t in pair.prompt))
            ):
                self.marked.update(marks)
                self.marked_rows.append(raw.number)
                if side := ended_side(pair.chosen, pair.rejected):
                    self.one_end.append((side, raw.number))
        self.pairs.append(made)

    def _made(self, number: int, pair: Pair, written: Rendered, slices: Mapping[str, str]) -> PreferencePair:
        """A pair as texts, with its content hash as id. Raises RowError.

        The hash is that of the pair as it would be written without a chat template, so that models with different
        templates train on the same pairs and hold out the same ones.
        """
        prompt, chosen, rejected = texts = written[:3]
        size = 0
        for name, text in zip(("prompt", "chosen", "rejected"), texts, strict=True):
            if not text.strip():
                raise RowError("empty", name, "empty")
            try:
                size += len(text) if text.isascii() else len(text.encode("utf-8"))
            except UnicodeEncodeError as error:
                at = len(text[: error.start].encode("utf-8"))
                raise RowError("bad_text", name, f"lone surrogate at byte {at} of the text") from error
            if (at := text.find("\0")) >= 0:
                raise RowError("bad_text", name, f"NUL at byte {len(text[:at].encode('utf-8'))} of the text")
        if size > MAX_ROW_BYTES:
            raise RowError("row_too_long", "", f"longer than {MAX_ROW_BYTES:,} bytes")
        if pair.chosen == pair.rejected:
            raise RowError("identical", "rejected", "equal to chosen")
        if chosen == rejected:
            raise RowError("template_alike", "rejected", f"the chat template writes it as it writes chosen; {FIX}")
        good, bad = pair.scores
        margin = good - bad if pair.margin is None and good is not None and bad is not None else pair.margin
        scores = {n: s for n, s in zip(("score_chosen", "score_rejected"), pair.scores, strict=True) if s is not None}
        prompt_id, identity = _hashes(*(texts if self.render is None else _untemplated(pair)))
        meta = {"prompt_id": prompt_id, "row": number, **scores, **({"slices": slices} if slices else {})}
        return PreferencePair(identity, prompt, chosen, rejected, self.form.name, margin, meta)

    def settle_groups(self) -> None:
        """Pair up the answers that rows brought one by one; `alone` are those that no other answer stands against."""
        for members in self.groups.values():
            partners = _labelled(members) if members[0][1].label else _by_grade(members, self.spec.pairs)
            used = set[int]()
            for raw, other, pair in partners:
                used |= {raw.number, other.number}
                assert isinstance(raw.value, Mapping)
                try:
                    self._keep(raw, pair, raw.value)
                except RowError as fault:
                    self.faults.append((raw, fault))
            self.alone += [raw.number for raw, _ in members if raw.number not in used]
        if self.groups:
            self.alone.sort()
            self.pairs.sort(key=lambda pair: int(pair.meta["row"]))
            self.faults.sort(key=lambda fault: fault[0].number)


Partners = Iterator[tuple[RawRow, RawRow, Pair]]


def _labelled(members: Sequence[tuple[RawRow, Graded]]) -> Partners:
    """The first wanted answer against the first unwanted one, the second against the second, and so on."""
    wanted, unwanted = ([m for m in members if bool(m[1].grade) is side] for side in (True, False))
    for (raw, good), (other, bad) in zip(wanted, unwanted, strict=False):
        yield raw, other, Pair(good.prompt, good.answer, bad.answer)


def _by_grade(members: Sequence[tuple[RawRow, Graded]], rule: str) -> Partners:
    """The pairs of one prompt's answers by a rule of `RULES`, each at the place of the better answer's row."""
    if len({graded.grade for _, graded in members}) < 2:
        return
    places = [(str(at), graded.grade) for at, (_, graded) in enumerate(members)]
    for pair in ranked_pairs(Ranked("", places), rule):
        (raw, good), (other, bad) = members[int(pair.chosen)], members[int(pair.rejected)]
        scores = (good.grade, bad.grade)
        yield raw, other, Pair(good.prompt, good.answer, bad.answer, good.grade - bad.grade, scores)


def _as_slice(value: Any, name: str) -> str:
    if isinstance(value, str | int | float | None):
        return "" if value is None else str(value)
    raise RowError("bad_slice", name, f"a slice is text or a number, got {type(value).__name__}")


def written(pair: Pair, render: Render | None) -> Rendered:
    """A pair as texts: as they stand, by a chat template, or as `as_transcript` writes turns. Raises RowError."""
    if isinstance(pair.prompt, str):
        return Rendered(pair.prompt, pair.chosen, pair.rejected)
    if render is None:
        prompt, chosen, rejected = as_transcript(pair.prompt, pair.chosen, pair.rejected)
        return Rendered(prompt, chosen, rejected)
    tools = [turn for turn in pair.prompt if turn["role"] == "tool" or turn.get("tool_calls")]
    why = "the chat template does not write the turns of tools in the prompt"
    try:
        texts = render(pair.prompt, pair.chosen, pair.rejected)
    except RowError as fault:
        if tools and fault.kind == "template":
            raise RowError("tool_turn", "prompt", f"{why} ({fault.why})") from fault
        raise
    if any(turn["content"].strip() not in texts[0] for turn in tools):
        raise RowError("tool_turn", "prompt", why)
    return texts


def _untemplated(pair: Pair) -> tuple[str, ...]:
    """The texts that identify a pair, whatever writes it; turns of tools, which a transcript cannot hold, as JSON."""
    if isinstance(pair.prompt, str):
        return pair.prompt, pair.chosen, pair.rejected
    try:
        return as_transcript(pair.prompt, pair.chosen, pair.rejected)
    except RowError:
        return json.dumps(pair.prompt, sort_keys=True), pair.chosen, pair.rejected


def _hashes(prompt: str, chosen: str, rejected: str) -> tuple[str, str]:
    """`content_hash` of the prompt and of all three texts, without the detour over a general encoder."""
    asked, good, bad = (json.encoder.encode_basestring(text) for text in (prompt, chosen, rejected))
    plain = (asked.encode("utf-8", "surrogatepass"), f"[{asked},{good},{bad}]".encode("utf-8", "surrogatepass"))
    return hashlib.sha256(plain[0]).hexdigest(), hashlib.sha256(plain[1]).hexdigest()
