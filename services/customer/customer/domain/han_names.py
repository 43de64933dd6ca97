"""Names in Han letters: simplified, divided, and read in pinyin with surnames in their surname reading."""

import re
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple, cast

import yaml
from opencc import OpenCC
from pypinyin import lazy_pinyin

NAME_LETTERS_MAX = 6
"""A person's Han name of more letters is a foreign one in transcription, without a surname in front."""
CACHED_MAX = 100_000
HAN = "㐀-䶿一-鿿豈-﫿𠀀-𱍊々〇"
"""The inside of a character class that matches a Han letter."""
_RUN = re.compile(f"[{HAN}]+")
_ONLY_HAN = re.compile(rf"[{HAN}][{HAN}\s·・•‧.．-]*")
_DOTS = re.compile(r"[·・•‧.．-]")


class HanName(NamedTuple):
    """A name in simplified Han letters; `family` is empty where none stands in front."""

    family: str
    given: str

    @property
    def whole(self) -> str:
        """Family and given name."""
        return self.family + self.given


@cache
def _converter() -> Any:
    return OpenCC("t2s")


@cache
def _surnames() -> dict[str, dict[str, str]]:
    text = resources.files("customer").joinpath("data/surnames.yaml").read_text(encoding="utf-8")
    return cast("dict[str, dict[str, str]]", yaml.safe_load(text))


@lru_cache(CACHED_MAX)
def simplified(text: str) -> str:
    """A text in simplified letters; everything else in it stays."""
    return text if text.isascii() else cast("str", _converter().convert(text))


def is_han(text: str) -> bool:
    """Whether a text is written in Han letters only, perhaps with spaces and dots between them."""
    return bool(text) and not text.isascii() and _ONLY_HAN.fullmatch(text) is not None


def run(text: str) -> str:
    """The first run of Han letters in a text of several scripts, `王小明` of `王小明 Wang Xiaoming`; empty for none."""
    if text.isascii():
        return ""
    found = _RUN.search(text)
    return found[0] if found else ""


@lru_cache(CACHED_MAX)
def letters(text: str) -> str:
    """The Han letters of a text, simplified, and nothing else."""
    return "".join(_RUN.findall(simplified(text)))


@lru_cache(CACHED_MAX)
def divided(name: str) -> HanName:
    """A simplified Han name of a person, family name first; a transcription (迪丽热巴·迪力木拉提) has none."""
    whole = letters(name)
    if _DOTS.search(name) or len(whole) > NAME_LETTERS_MAX or len(whole) < 2:
        return HanName("", whole)
    compound = _surnames()["compound"]
    for length in (4, 2):
        if len(whole) > length and whole[:length] in compound:
            return HanName(whole[:length], whole[length:])
    return HanName(whole[:1], whole[1:])


@lru_cache(CACHED_MAX)
def family_pinyin(family: str) -> str:
    """A surname in its surname reading: 单 is `shan`. Without tones, ü as v."""
    known = _surnames()
    reading = known["compound"].get(family) or known["single"].get(family)
    return reading or "".join(known["single"].get(letter) or _read(letter) for letter in family)


@lru_cache(CACHED_MAX)
def _read(text: str) -> str:
    return "".join(lazy_pinyin(text, errors="ignore")).lower()


def pinyin(name: HanName) -> str:
    """A name in pinyin, family name first, each part one word: `ouyang xiu`. A letter that has no reading is left out."""
    return f"{family_pinyin(name.family)} {_read(name.given)}".strip()


@lru_cache(CACHED_MAX)
def syllables(text: str) -> tuple[str, ...]:
    """The readings of the letters of a text, one each: for names of organisations."""
    return tuple(part.lower() for part in lazy_pinyin(text, errors="ignore"))


def spellings(pinyin_name: str) -> tuple[str, ...]:
    """How passports and banks write a pinyin name: ü as v and, where it occurs, as yu and u."""
    if not re.search(r"[ln]v", pinyin_name):
        return (pinyin_name,)
    passport = re.sub(r"([ln])v(?!e)", r"\1yu", pinyin_name)
    return (pinyin_name, re.sub(r"([ln])ve", r"\1ue", passport), re.sub(r"([ln])v", r"\1u", pinyin_name))
