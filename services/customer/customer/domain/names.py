"""Names as people write them: folded, cut into words, family and given name in either order."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from customer.domain import han_names
from customer.domain.han_names import HAN

WORD_CHARACTERS_MAX = 64
CACHED_MAX = 100_000

# A run of Han letters is one word; so is a run of any other letters and digits.
_WORD = re.compile(rf"[{HAN}]+|[^\W_{HAN}]+")
# Letters that no decomposition takes apart.
_PLAIN = str.maketrans({"ø": "o", "đ": "d", "ð": "d", "ł": "l", "æ": "ae", "œ": "oe", "þ": "th", "ı": "i", "ħ": "h", "ŋ": "n"})
_APOSTROPHES = re.compile("['\u2019\u02bc`´]")


@lru_cache(CACHED_MAX)
def folded(text: str) -> str:
    """Without case, accents, width and needless spaces: `Ｎovák ` is `novak`."""
    if text.isascii():
        return " ".join(text.casefold().split())
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return " ".join(unicodedata.normalize("NFKC", plain).translate(_PLAIN).split())


def words(text: str) -> list[str]:
    """The folded words of a text, in order."""
    return [word[:WORD_CHARACTERS_MAX] for word in _WORD.findall(folded(text))]


@lru_cache(CACHED_MAX)
def latin_words(text: str) -> tuple[str, ...]:
    """The folded words of a text that are not Han; an apostrophe divides no word (Xi'an, O'Brien)."""
    return tuple(word for word in words(_APOSTROPHES.sub("", text)) if not han_names.is_han(word))


@dataclass(frozen=True, slots=True)
class Standard:
    """What a name is in standard form; empty where it has no Han letters."""

    han_simplified_name: str = ""
    pinyin_name: str = ""


def standard(full_name: str, family_name: str, given_name: str, *, organisation: bool = False) -> Standard:
    """The Han and pinyin form of a name. Parts that the source keeps apart say where the family name ends.

    An organisation is read syllable by syllable; nothing of it is a surname.
    """
    if full_name.isascii() and family_name.isascii() and given_name.isascii():
        return Standard()
    if organisation:
        whole = han_names.simplified(han_names.letters(full_name or family_name))
        return Standard(whole, " ".join(han_names.syllables(whole)))
    family, given = han_names.letters(family_name), han_names.letters(given_name)
    whole = _whole(full_name)
    if family and given and (not whole or han_names.letters(whole) in (family + given, given + family)):
        name = han_names.HanName(family, given)
    elif whole:
        name = han_names.divided(han_names.simplified(whole))
    else:
        name = han_names.divided(family + given)
    return Standard(name.whole, han_names.pinyin(name))


def _whole(full_name: str) -> str:
    # `王 小明` and `买买提·吐尔逊` are one name; of `王小明 Wang Xiaoming` the Han run is.
    return full_name if han_names.is_han(full_name) else han_names.run(full_name)
