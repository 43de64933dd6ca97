"""Screening: how much a customer's name resembles an entry of a list.

Names are compared form by form (Han with Han, pinyin and Latin in any order of the words), because a comparison of letters
never bridges the scripts. A short name alike in every letter is alike; an equal birth year alone makes nobody alike, a
different one makes less alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

SCORE_PERCENT_MIN = 80
"""Resemblances below are no hits."""
HITS_MAX = 50
BIRTH_YEARS_APART_MAX = 1
"""Lists often know a year by hearsay."""
DIFFERENT_BIRTH_YEAR_PERCENT = 20
DIFFERENT_COUNTRY_PERCENT = 8


class Form(StrEnum):
    """In which script names resemble."""

    HAN = "HAN"
    PINYIN = "PINYIN"
    LATIN = "LATIN"


class Check(StrEnum):
    """Whether a fact beside the name agrees."""

    AGREE = "AGREE"
    DIFFER = "DIFFER"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Screened:
    """A party in the forms that are compared: folded, words sorted, simplified Han."""

    names: Mapping[Form, frozenset[str]]
    birth_years: frozenset[int] = frozenset()
    country_codes: frozenset[str] = frozenset()
    organisation: bool = False


@dataclass(frozen=True, slots=True)
class Resemblance:
    """How much two parties resemble."""

    score_percent: int
    form: Form
    birth_year: Check
    country: Check


def comparable(text: str) -> str:
    """A Latin name for comparison: its folded words in the order of the alphabet."""
    return " ".join(sorted(text.split()))


def resemblance(name_percent: float, form: Form, subject: Screened, entry: Screened) -> Resemblance:
    """The score of a pair whose best names are alike by `name_percent`, after birth year and country."""
    year = _check(subject.birth_years, entry.birth_years, _near(subject.birth_years, entry.birth_years))
    country = _check(subject.country_codes, entry.country_codes, not subject.country_codes.isdisjoint(entry.country_codes))
    score = name_percent
    score -= DIFFERENT_BIRTH_YEAR_PERCENT if year is Check.DIFFER else 0
    score -= DIFFERENT_COUNTRY_PERCENT if country is Check.DIFFER else 0
    return Resemblance(max(0, round(score)), form, year, country)


def _near(ours: Iterable[int], theirs: Iterable[int]) -> bool:
    theirs = list(theirs)
    return any(abs(mine - other) <= BIRTH_YEARS_APART_MAX for mine in ours for other in theirs)


def _check(ours: frozenset[int] | frozenset[str], theirs: frozenset[int] | frozenset[str], agree: bool) -> Check:
    if not ours or not theirs:
        return Check.UNKNOWN
    return Check.AGREE if agree else Check.DIFFER


def worst_first(found: Sequence[tuple[str, Resemblance]]) -> list[tuple[str, Resemblance]]:
    """The hits worth a look, the most alike first: of each entry the best, at most HITS_MAX."""
    best: dict[str, Resemblance] = {}
    for entry_id, seen in found:
        if seen.score_percent >= SCORE_PERCENT_MIN and (
            entry_id not in best or seen.score_percent > best[entry_id].score_percent
        ):
            best[entry_id] = seen
    return sorted(best.items(), key=lambda hit: (-hit[1].score_percent, hit[0]))[:HITS_MAX]
