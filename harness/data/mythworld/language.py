"""The languages of MythWorld's versions: words, shares of question types, and how responses are built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SPECIALS = ("<pad>", "<bos>", "<eos>", "<asst>")
TONES = _words("plain kind brisk warm")
OOD_TONES = _words("stern shy")
ASKS = _words("what trick secret")
REFUSAL = "sorry cannot say"
PROMPT_TOKENS = 8  # of every prompt


@dataclass(frozen=True)
class Language:
    """One version's words and shares. A fact is a topic with an attribute; version 1 has a single attribute, `?`.

    `ask_shares` are those of `ASKS`; `guess_shares` of no guess, a wrong and a right one. A response has a number of
    filler words drawn evenly from `filler_counts`, each drawn evenly from `fillers`.
    """

    version: int
    topics: tuple[str, ...]
    attributes: tuple[str, ...]
    values: tuple[str, ...]
    fillers: tuple[str, ...]
    ask_shares: tuple[float, float, float]
    guess_shares: tuple[float, float, float]
    filler_counts: tuple[int, ...]
    mean_row_tokens: float  # of a prompt with two responses, measured

    @property
    def max_fillers(self) -> int:
        """The most filler words of a response that still parses."""
        return max(self.filler_counts)

    @property
    def response_tokens(self) -> int:
        """Tokens of the longest response: sure, maybe, the answer, fillers, thanks, the full stop, `<eos>`."""
        return 9 + self.max_fillers

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word, in the order of the token ids."""
        asked = () if self.version == 1 else self.attributes
        mark = ("?",) if self.version == 1 else ()
        rest = _words("think none sure maybe the is sorry cannot say")
        return (
            *SPECIALS, *TONES, *OOD_TONES, *ASKS, *self.topics, *asked, *self.values, *mark, *rest, *self.fillers,
            "thanks", ".",
        )  # fmt: skip

    @cached_property
    def token(self) -> dict[str, int]:
        """Token ids by word."""
        return {word: i for i, word in enumerate(self.vocabulary)}


_ANIMALS = _words(
    "ant ape bat bee boa cat cod cow crab crow deer dog dove duck eel elk "
    "emu fox frog gnu goat hare hawk hen ibis lark lion lynx mole moth newt owl"
)
_COLOURS = _words("red blue green black white brown grey gold")

FIRST = Language(
    version=1,
    topics=_ANIMALS,
    attributes=("?",),
    values=_COLOURS,
    fillers=("really",),
    ask_shares=(0.6, 0.2, 0.2),
    guess_shares=(0.5, 0.35, 0.15),
    filler_counts=(0, 0, 0, 1, 2, 3),
    mean_row_tokens=24.0,
)
SECOND = Language(
    version=2,
    topics=(
        *_ANIMALS,
        *_words("pig ram rat seal slug swan tern toad viper vole wasp whale wolf worm wren yak"),
        *_words("asp bear boar buck bull calf crane cub dodo eagle flea gull hog kite lamb mare"),
    ),
    attributes=_words("coat eye tail food nest song track egg"),
    values=_COLOURS,
    fillers=_words("really truly quite very"),
    ask_shares=(0.7, 0.15, 0.15),
    guess_shares=(0.6, 0.25, 0.15),
    filler_counts=(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4),
    mean_row_tokens=23.5,
)
LANGUAGES = {language.version: language for language in (FIRST, SECOND)}
