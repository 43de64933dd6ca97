"""Keys by which names are found although no name can be read in the database, and what a query for a name asks for.

A record has keys of its whole names, of the beginnings of their words, of how the words sound, and of Han letters. A query is a
list of stages, best first; a stage is found by its keys and proven against the decrypted name (`proves`).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import groupby, pairwise, product

from rapidfuzz.distance import OSA

from customer.domain import han_names, names

START_LETTERS = (2, 4)
"""Beginnings of words that have a key; of a query the longest that fits is asked for, the rest is compared in clear."""
WORD_LETTERS_MIN = 2
LETTERS_OF_A_PERSON_MAX = 4
"""Han names up to this length have a key for each letter, longer ones for each pair of letters."""
KEYS_OF_A_RECORD_MAX = 64
WORDS_OF_A_QUERY_MAX = 6
WORDS_JOINED_MAX = 4
"""`wang xiao ming` is also looked for as `wang xiaoming` and `wangxiao ming`; with more words the ways are too many."""
ONE_ERROR_LETTERS_MIN = 3
TWO_ERRORS_LETTERS_MIN = 8
SOUND_LETTERS_MAX = 8
CACHED_MAX = 100_000

Key = tuple[str, str]
_WHOLE, _START, _SOUND, _HAN, _LETTER, _PAIR = "name whole", "name start", "name sound", "name han", "name letter", "name pair"


class Stage(IntEnum):
    """How a name is found, best first."""

    WHOLE = 0
    START = 1
    SOUND = 2
    """One word sounds alike, the others are right; a Han name is a homophone."""
    ERROR = 3
    """One word has an error after its beginning, the others are right."""
    FAR = 4
    """Every word only sounds alike, or one has an error in its beginning."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Keys that a record must all have, and keys of which it must have one (none: no such rule)."""

    all_of: frozenset[Key]
    any_of: frozenset[Key] = frozenset()

    def holds(self, keys: Set[Key]) -> bool:
        """Whether a record with these keys meets it."""
        return self.all_of <= keys and (not self.any_of or not self.any_of.isdisjoint(keys))


# ---- words


@lru_cache(CACHED_MAX)
def loose(word: str) -> str:
    """A folded word without differences of transcription: ü is written v, yu and u."""
    return re.sub("([ln])(?:v|yu)(?![aiou])", r"\1u", word)


_SAME_SOUND = (
    ("sch", "s"),
    ("sh", "s"),
    ("zh", "z"),
    ("cz", "c"),
    ("ch", "k"),
    ("ph", "f"),
    ("th", "t"),
    ("ck", "k"),
    ("ng", "n"),
)
_CLASSES = str.maketrans("bpfvwckqgxszdtjlrmn", "bbvvvkkkksssttjlrnn", "aeiouyh")
_SOUNDS = "abvkstjlrn"


@lru_cache(CACHED_MAX)
def sound(word: str) -> str:
    """How a word sounds, roughly: classes of its consonants in order, `a` for a vowel in front. Novák and Nowack are alike."""
    text = loose(word)
    for written, spoken in _SAME_SOUND:
        text = text.replace(written, spoken)
    classes = ("a" if text[:1] in "aeiouy" else "") + text.translate(_CLASSES)
    return "".join(letter for letter, _ in groupby(classes))[:SOUND_LETTERS_MAX]


def _misheard(heard: str) -> frozenset[str]:
    """Sounds that one error of writing turns into this one, itself included."""
    cuts = [(heard[:place], heard[place:]) for place in range(len(heard) + 1)]
    return frozenset(
        [heard]
        + [head + tail[1:] for head, tail in cuts if tail and len(heard) > 1]
        + [head + letter + tail[1:] for head, tail in cuts if tail for letter in _SOUNDS]
        + [head + letter + tail for head, tail in cuts for letter in _SOUNDS]
        + [head + tail[1] + tail[0] + tail[2:] for head, tail in cuts if len(tail) > 1]
    )


# ---- names of a record


@dataclass(frozen=True, slots=True)
class Name:
    """A name of a party in the parts that are stored, simplified Han and pinyin among them."""

    full_name: str = ""
    family_name: str = ""
    given_name: str = ""
    latin_name: str = ""
    aliases: tuple[str, ...] = ()
    han_simplified_name: str = ""
    pinyin_name: str = ""


def _latin_forms(name: Name) -> Iterator[tuple[str, ...]]:
    """The names in Latin (and any other but Han) letters, as loose words."""
    texts = (name.full_name, f"{name.family_name} {name.given_name}", name.latin_name, name.pinyin_name, *name.aliases)
    for text in dict.fromkeys(texts):
        if found := tuple(map(loose, names.latin_words(text))):
            yield found


def _han_forms(name: Name) -> Iterator[str]:
    """The names in simplified Han letters."""
    aliases = (han_names.letters(alias) for alias in name.aliases if not alias.isascii())
    yield from dict.fromkeys(form for form in (name.han_simplified_name, *aliases) if form)


def _starts(word: str) -> dict[Key, None]:
    return dict.fromkeys((_START, word[:length]) for length in START_LETTERS if len(word) >= length)


@lru_cache(CACHED_MAX)
def _keys_of_word(word: str) -> dict[Key, None]:
    heard = sound(word)
    return _starts(word) | ({(_SOUND, heard): None} if heard else {})


def of_record(name: Name) -> list[Key]:
    """The keys of a record's names, the most telling first; about ten for a usual person."""
    keys: dict[Key, None] = {}
    forms = list(_latin_forms(name))
    hans = list(_han_forms(name))
    for form in forms:
        keys[_WHOLE, " ".join(sorted(form))] = None
    for han in hans:
        keys[_HAN, han] = None
        short = len(han) <= LETTERS_OF_A_PERSON_MAX
        for letter in han if short else han[:1]:
            keys[_LETTER, letter] = None
        if not short:
            keys |= dict.fromkeys((_PAIR, first + second) for first, second in pairwise(han))
    for form in forms:
        for word in form:
            keys |= _keys_of_word(word)
    if name.pinyin_name:  # written in one word: wangxiaoming
        keys |= _starts(loose(name.pinyin_name.replace(" ", "")))
    return list(keys)[:KEYS_OF_A_RECORD_MAX]


# ---- a query


@dataclass(frozen=True, slots=True)
class Query:
    """What somebody typed who looks for a name: its Han words, simplified, and the ways its other words may belong together."""

    han_words: tuple[str, ...]
    ways: tuple[tuple[str, ...], ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could be looked for: no Han letter and no word of two letters."""
        return not self.han_words and not any(len(word) >= WORD_LETTERS_MIN for way in self.ways for word in way)


def query(text: str) -> Query:
    """A query as it was typed."""
    words = names.words(han_names.simplified(text))
    han = tuple(dict.fromkeys(word for word in words if han_names.is_han(word)))[:WORDS_OF_A_QUERY_MAX]
    latin = tuple(loose(word) for word in names.latin_words(text))[:WORDS_OF_A_QUERY_MAX]
    return Query(han, _ways(latin))


def _ways(words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    if not words:
        return ()
    if not 1 < len(words) <= WORDS_JOINED_MAX:
        return (tuple(words),)
    ways: dict[tuple[str, ...], None] = {}
    for gaps in product((" ", ""), repeat=len(words) - 1):
        text = words[0] + "".join(gap + word for gap, word in zip(gaps, words[1:], strict=True))
        ways[tuple(text.split())] = None
    return tuple(ways)


def conditions(asked: Query, stage: Stage) -> list[Condition]:
    """The conditions of a stage: records that meet any of them may be what is asked for."""
    if asked.is_empty:
        return []
    makers: dict[Stage, Callable[[Query], Iterable[Condition]]] = {
        Stage.WHOLE: _whole, Stage.START: _start, Stage.SOUND: _sound, Stage.ERROR: _error, Stage.FAR: _far,
    }  # fmt: skip
    return list(dict.fromkeys(condition for condition in makers[stage](asked) if condition.all_of or condition.any_of))


def _whole(asked: Query) -> Iterator[Condition]:
    han = frozenset((_HAN, word) for word in asked.han_words)
    for way in asked.ways or ((),):
        latin = {(_WHOLE, " ".join(sorted(way)))} if way else set()
        yield Condition(han | latin)


def _start(asked: Query) -> Iterator[Condition]:
    for han in product(*[_han_conditions(word) for word in asked.han_words]):
        for way in asked.ways or ((),):
            starts = frozenset((_START, _start_of(word)) for word in way if len(word) >= WORD_LETTERS_MIN)
            yield Condition(frozenset().union(*han) | starts)


def _start_of(word: str) -> str:
    return word[: max(length for length in START_LETTERS if length <= len(word))]


def _han_conditions(word: str) -> list[frozenset[Key]]:
    # The word may be a part of a person's name, or of a longer one.
    letters = frozenset((_LETTER, letter) for letter in word)
    pairs = frozenset((_PAIR, first + second) for first, second in pairwise(word))
    if not pairs:
        return [letters]
    return [letters, pairs] if len(word) <= LETTERS_OF_A_PERSON_MAX else [pairs]


def _spoken(asked: Query) -> tuple[tuple[str, ...], ...]:
    """The ways of the query's Latin words; of one in Han letters those of its pinyin, so that homophones are found."""
    if asked.ways or not asked.han_words:
        return asked.ways
    return (tuple(map(loose, han_names.pinyin(han_names.divided("".join(asked.han_words))).split())),)


def _right(words: Sequence[str]) -> frozenset[Key]:
    """What a record has that has these words, or longer ones that begin so."""
    starts = {(_START, word[:length]) for word in words for length in START_LETTERS if len(word) >= length}
    return frozenset(starts | {(_SOUND, sound(word)) for word in words if sound(word)})


def _one_by_one(asked: Query) -> Iterator[tuple[str, str, frozenset[Key]]]:
    """Each Latin word of a query as the one that is misspelt: the word, its sound, and the keys of the others."""
    for way in asked.ways:
        for place, word in enumerate(way):
            others = [*way[:place], *way[place + 1 :]]
            if sound(word):
                yield word, sound(word), _right(others)


def _sound(asked: Query) -> Iterator[Condition]:
    if asked.han_words and not asked.ways:
        for way in _spoken(asked):
            yield Condition(frozenset({(_WHOLE, " ".join(sorted(way)))}))
    for _, heard, others in _one_by_one(asked):
        yield Condition(others | {(_SOUND, heard)})


def _error(asked: Query) -> Iterator[Condition]:
    for word, heard, others in _one_by_one(asked):
        if len(heard) > 1 and len(word) > START_LETTERS[0]:
            start = (_START, word[: START_LETTERS[0]])
            yield Condition(others | {start}, frozenset((_SOUND, alike) for alike in _misheard(heard)))


def _far(asked: Query) -> Iterator[Condition]:
    for way in asked.ways:
        yield Condition(frozenset((_SOUND, sound(word)) for word in way if sound(word)))
    for _, heard, others in _one_by_one(asked):
        if len(heard) > 1:
            yield Condition(others, frozenset((_SOUND, alike) for alike in _misheard(heard)))


# ---- proof


def proves(asked: Query, name: Name) -> Stage | None:
    """How a name answers a query, None when it does not: what a key found is compared in clear."""
    hans = list(_han_forms(name))
    forms = list(_latin_forms(name))
    if name.pinyin_name:
        forms += [(loose(name.pinyin_name.replace(" ", "")),), (loose("".join(reversed(name.pinyin_name.split(" ")))),)]
    han, latin = _prove_han(asked.han_words, hans), _prove_latin(asked.ways, forms)
    if han is not None and latin is not None:
        return max(han, latin)
    spoken = _spoken(asked)
    if asked.han_words and not asked.ways and any(sorted(way) == sorted(form) for way in spoken for form in forms):
        return Stage.SOUND
    return None


def found_at(asked: Query, name: Name) -> Stage | None:
    """The first stage at which a name is found and proven, None for a name that is not found."""
    proof = proves(asked, name)
    if proof is None:
        return None
    keys = set(of_record(name))
    stages = [stage for stage in Stage if proof <= Stage.START or stage > Stage.START]
    return next((stage for stage in stages if any(condition.holds(keys) for condition in conditions(asked, stage))), None)


def _prove_han(words: Sequence[str], hans: Sequence[str]) -> Stage | None:
    if all(word in hans for word in words):
        return Stage.WHOLE
    return Stage.START if all(any(word in han for han in hans) for word in words) else None


def _prove_latin(ways: Sequence[tuple[str, ...]], forms: Sequence[tuple[str, ...]]) -> Stage | None:
    if not ways:
        return Stage.WHOLE
    pairs = [(way, form) for way in ways for form in forms]
    if any(sorted(way) == sorted(form) for way, form in pairs):
        return Stage.WHOLE
    if any(_each_has_its_own(way, form, lambda asked, word: word.startswith(asked)) for way, form in pairs):
        return Stage.START
    return Stage.ERROR if any(_each_has_its_own(way, form, _nearly) for way, form in pairs) else None


def _nearly(asked: str, word: str) -> bool:
    shorter = min(len(asked), len(word))
    errors = 2 if shorter >= TWO_ERRORS_LETTERS_MIN else 1 if shorter >= ONE_ERROR_LETTERS_MIN else 0
    # What sounds the same may differ by one letter more: Novák, Nowack.
    errors += errors > 0 and sound(asked) == sound(word)
    return OSA.distance(asked, word, score_cutoff=errors) <= errors


def _each_has_its_own(way: Sequence[str], form: Sequence[str], alike: Callable[[str, str], bool]) -> bool:
    """Whether the words asked for can be laid beside different words of a name."""
    if not way:
        return True
    if len(way) > len(form):
        return False
    head, *rest = way
    others = ([*form[:place], *form[place + 1 :]] for place, word in enumerate(form) if alike(head, word))
    return any(_each_has_its_own(rest, left, alike) for left in others)
