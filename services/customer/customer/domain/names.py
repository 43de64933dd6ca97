"""Names as search words: folded, cut into words, findable by their beginnings."""

import re
import unicodedata
from collections.abc import Iterable

TOKEN_CHARACTERS_MAX = 64
TOKENS_OF_A_RECORD_MAX = 64
TOKENS_OF_A_QUERY_MAX = 8

_HAN = "㐀-䶿一-鿿豈-﫿𠀀-𱍊々〇"
# A run of Han letters is one word; so is a run of any other letters and digits.
_WORD = re.compile(rf"[{_HAN}]+|[^\W_{_HAN}]+")
_HAN_LETTER = re.compile(f"[{_HAN}]")


def folded(text: str) -> str:
    """Without case, accents, width and needless spaces: `Ｎovák ` is `novak`."""
    if text.isascii():
        return " ".join(text.casefold().split())
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def words(text: str) -> list[str]:
    """The folded words of a text, in order."""
    return [word[:TOKEN_CHARACTERS_MAX] for word in _WORD.findall(folded(text))]


def search_tokens(names: Iterable[str]) -> frozenset[str]:
    """The words under which names are found by prefix. A Han word is also found from any of its letters on."""
    tokens: dict[str, None] = {}
    for name in names:
        for word in words(name):
            starts = range(len(word)) if _HAN_LETTER.match(word) else range(1)
            tokens |= dict.fromkeys(word[start:] for start in starts)
    return frozenset(list(tokens)[:TOKENS_OF_A_RECORD_MAX])


def query_prefixes(text: str) -> list[str]:
    """The word beginnings that a name must have, longest first, because that one narrows most; empty when there is no letter."""
    distinct = sorted(set(words(text)), key=lambda word: (-len(word.encode()), word))
    return distinct[:TOKENS_OF_A_QUERY_MAX]
