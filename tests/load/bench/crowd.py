"""A crowd of synthetic people as a CSV file: Chinese and Western, with families, and some who come twice. Nobody in it exists.

The same number gives the same person, whatever the size of the crowd. `python -m bench.crowd 1000000 people.csv` writes one.
"""

import csv
import json
import random
import sys
import unicodedata
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import Any

from customer.domain import chinese_documents, han_names

COLUMNS = (
    "source_record_key", "family_name", "given_name", "full_name", "birth_date", "sex", "national_id", "national_id_country",
    "passport", "passport_country", "phone", "email", "address_line_1", "locality", "administrative_area", "postal_code",
    "country_code", "language", "occupation",
)  # fmt: skip
SEED = 20_261_124
CHINESE_SHARE, FAMILY_SHARE, TWICE_SHARE = 0.6, 0.3, 0.02
FIRST_BIRTH, BIRTH_DAYS = date(1935, 1, 1), 29_000
OCCUPATIONS = ("teacher", "engineer", "nurse", "driver", "accountant", "farmer", "clerk", "", "", "")
WRONG_SHARE = 0.01
"""Of telephone numbers so many cannot exist."""
# Beginnings of mobile numbers, how many digits follow, the form of postal codes.
COUNTRIES = {
    "CN": ("+86135 +86138 +86139 +86150 +86158 +86186 +86189", 8, "000000"),
    "GB": ("+447911 +447812 +447723", 6, "AA0 0AA"),
    "DE": ("+49151 +49160 +49171", 8, "10000"),
    "CZ": ("+420602 +420603 +420724", 6, "100 00"),
    "FR": ("+3361 +3362 +3368", 7, "70000"),
    "ES": ("+34612 +34620 +34655", 6, "20000"),
    "IT": ("+39333 +39347 +39328", 7, "20000"),
    "PL": ("+48601 +48602 +48503", 6, "00-000"),
    "IN": ("+9198 +9199", 8, "400000"),
}

Row = tuple[str, ...]


class _Words:
    """Words drawn with falling frequency."""

    def __init__(self, words: list[str], flat: int) -> None:
        self.words = words
        self.sums = list(accumulate(1 / (place + flat) for place in range(len(words))))

    def draw(self, chance: random.Random) -> str:
        return chance.choices(self.words, cum_weights=self.sums)[0]


@cache
def _lists() -> dict[str, Any]:
    text = resources.files("customer.training").joinpath("population.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def _words(name: str, flat: int, country: int = 0) -> _Words:
    lists = _lists() | _lists()["western"][country]
    return _Words([word.rstrip("0123456789") for word in lists[name].split()], flat)


@cache
def _pinyin(family: str, given: str) -> str:
    return han_names.pinyin(han_names.HanName(family, given)).replace(" ", "")


def people(count: int) -> Iterator[Row]:
    """The first `count` people."""
    for number in range(count):
        chance = random.Random(SEED << 32 | number)
        key = f"P{number:08d}"
        if number and chance.random() < TWICE_SHARE:
            # The person before, again, as another branch wrote it down.
            former = list(_person(number - 1))
            former[0] = key
            former[COLUMNS.index("email")] = ""
            if chance.random() < 0.5:
                former[COLUMNS.index("phone")] = _phone(chance, *COUNTRIES["CN"][:2])
            yield tuple(former)
        else:
            yield _person(number)


def _person(number: int) -> Row:
    chance = random.Random(SEED << 33 | number)
    family_number = number - 1 if number and chance.random() < FAMILY_SHARE else number
    home = random.Random(SEED << 34 | family_number)
    is_chinese = home.random() < CHINESE_SHARE
    return (_chinese if is_chinese else _western)(f"P{number:08d}", chance, home)


def _born(chance: random.Random) -> date:
    return FIRST_BIRTH + timedelta(chance.randrange(BIRTH_DAYS))


def _chinese(key: str, chance: random.Random, home: random.Random) -> Row:
    lists = _lists()
    female = chance.random() < 0.5
    family = _words("han_surnames", 6).draw(home)
    given = _words("han_given_female" if female else "han_given_male", 20).draw(chance)
    if len(given) == 1 and chance.random() < 0.5:
        given += _words("han_given_male", 20).draw(chance)[-1]
    born = _born(chance)
    cities, regions = lists["han_cities"].split(), lists["han_regions"].split()
    place = home.randrange(min(20, len(cities), len(regions)))
    sequence = f"{chance.randrange(100):02d}{chance.choice('02468' if female else '13579')}"
    body = f"{regions[place]}{born:%Y%m%d}{sequence}"
    number = body + chinese_documents.check_digit(body) if chance.random() < 0.9 else ""
    street = f"{_words('han_streets', 50).draw(home)}{home.randrange(1, 400)}号"
    street += f"{home.randrange(1, 30)}单元{home.randrange(101, 2500)}室"
    host = chance.choice(("qq.com", "163.com", "sina.com", "gmail.com"))
    return (
        key, family, given, family + given, born.isoformat(), "female" if female else "male", number, "CN" if number else "",
        "", "", _phone(chance, *COUNTRIES["CN"][:2]),
        f"{_pinyin(family, given)}{chance.randrange(10_000)}@{host}" if chance.random() < 0.6 else "",
        street, cities[place][:-6], "", f"{cities[place][-6:-3]}{home.choice('0123')}00", "CN", "zh-CN",
        chance.choice(OCCUPATIONS),
    )  # fmt: skip


def _western(key: str, chance: random.Random, home: random.Random) -> Row:
    place = home.randrange(len(_lists()["western"]))
    country = _lists()["western"][place]["country"]
    prefixes, digits, postal = COUNTRIES[country]
    female = chance.random() < 0.5
    family = _words("family", 20, place).draw(home).capitalize()
    given = _words("female" if female else "male", 10, place).draw(chance).capitalize()
    number = (
        f"{chance.choice('HJKLMN')}{chance.randrange(10**6, 10**7)}" if country == "IN" else f"{chance.randrange(10**8, 10**9)}"
    )
    passport = number if chance.random() < 0.6 else ""
    name = unicodedata.normalize("NFKD", f"{given}.{family}".lower()).encode("ascii", "ignore").decode().replace(" ", "")
    return (
        key, family, given, f"{given} {family}", _born(chance).isoformat(), "f" if female else "m", "", "", passport,
        country if passport else "", _phone(chance, prefixes, digits) if chance.random() < 0.9 else "",
        f"{name}{chance.randrange(1000)}@example.com" if chance.random() < 0.6 else "",
        f"{home.randrange(1, 200)} {_words('western_streets', 50).draw(home)}", _words("western_cities", 5).draw(home), "",
        _filled(postal, home), country, "", chance.choice(OCCUPATIONS),
    )  # fmt: skip


def _phone(chance: random.Random, prefixes: str, digits: int) -> str:
    prefix = "+999" if chance.random() < WRONG_SHARE else chance.choice(prefixes.split())
    return f"{prefix}{chance.randrange(10**digits):0{digits}d}"


def _filled(form: str, chance: random.Random) -> str:
    """A text of a form: 0 stands for a digit, A for a letter."""
    letters = {"0": "0123456789", "A": "ABDEHJLN"}
    return "".join(chance.choice(letters.get(letter, letter)) for letter in form)


def write(count: int, path: Path) -> None:
    """Writes the crowd to a file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(people(count))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m bench.crowd COUNT FILE")
    write(int(sys.argv[1]), Path(sys.argv[2]))
