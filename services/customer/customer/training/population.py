"""A synthetic population, Chinese and Western, with corrupted second records of some: what the shipped model is trained on.

Nobody in it exists. Names and their shares stand in `population.json`; everything else is drawn from a seeded generator.
"""

import json
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from importlib import resources
from typing import Any

from concord.customer.v1.attribute_pb2 import PartyKind
from concord.customer.v1.party_pb2 import IdentifierScheme, Party
from customer.domain import chinese_documents, han_names

CHINESE_SHARE = 0.6
HOUSEHOLD_SHARE = 0.3
"""Of people, so many live with the person before: same address, mostly the same family name, sometimes the same telephone."""
FIRST_BIRTH, BIRTH_DAYS = date(1935, 1, 1), 29_000


@dataclass(frozen=True, slots=True)
class Person:
    """One of the population, or what one source says of them; empty fields say nothing."""

    country: str
    sex: int
    family: str
    given: str
    birth_date: str
    national_id: str = ""
    phone: str = ""
    email: str = ""
    street: str = ""
    number: str = ""
    city: str = ""
    postcode: str = ""
    latin_only: bool = False
    swapped: bool = False
    whole_name: bool = False


@dataclass(slots=True)
class Population:
    """People, second records of some of them (person number, record), by one seed."""

    seed: int
    people: list[Person] = field(default_factory=list)
    copies: list[tuple[int, Person]] = field(default_factory=list)


@cache
def _lists() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        resources.files("customer.training").joinpath("population.json").read_text(encoding="utf-8")
    )
    return found


def make(people_count: int, copies_count: int, seed: int) -> Population:
    """A population; the same for the same arguments."""
    draw = random.Random(seed)
    made = Population(seed)
    for _ in range(people_count):
        person = _chinese(draw) if draw.random() < CHINESE_SHARE else _western(draw)
        if made.people and draw.random() < HOUSEHOLD_SHARE and made.people[-1].country == person.country:
            person = _housemate(draw, person, made.people[-1])
        made.people.append(person)
    for _ in range(copies_count):
        number = draw.randrange(people_count)
        made.copies.append((number, corrupted(draw, made.people[number])))
    return made


def _zipf(draw: random.Random, values: list[str], flat: int = 8) -> str:
    return draw.choices(values, [1 / (place + flat) for place in range(len(values))])[0]


def _birth_date(draw: random.Random) -> str:
    return (FIRST_BIRTH + timedelta(draw.randrange(BIRTH_DAYS))).isoformat()


@cache
def _surnames() -> tuple[list[str], list[int]]:
    entries = _lists()["han_surnames"].split()
    return [entry.rstrip(string.digits) for entry in entries], [
        int(entry.lstrip("".join(set(entry) - set(string.digits)))) for entry in entries
    ]


def _chinese(draw: random.Random) -> Person:
    lists = _lists()
    sex = draw.choice((1, 2))
    family = draw.choices(*_surnames())[0]
    given = _zipf(draw, lists["han_given_female" if sex == 1 else "han_given_male"].split(), 20)
    if len(given) == 1 and draw.random() < 0.5:
        given += draw.choice(lists["han_given_male"].split())[-1]
    born = _birth_date(draw)
    place = draw.randrange(20)
    city = lists["han_cities"].split()[place]
    pinyin = han_names.pinyin(han_names.HanName(family, given)).replace(" ", "")
    return Person(
        "CN", sex, family, given, born,
        national_id=_resident_card(draw, lists["han_regions"].split()[place], born, sex),
        phone="+861" + draw.choice("3456789") + _digits(draw, 9),
        email=f"{pinyin}{_digits(draw, draw.choice((2, 4)))}@{draw.choice(('qq.com', '163.com', 'sina.com', 'gmail.com'))}",
        street=draw.choice(lists["han_streets"].split()),
        number=f"{draw.randrange(1, 400)}号{draw.randrange(1, 30)}单元{draw.randrange(101, 2500)}室",
        city=city[:-6],
        postcode=f"{city[-6:-3]}{draw.choice('0123')}00",
    )  # fmt: skip


def _resident_card(draw: random.Random, region: str, born: str, sex: int) -> str:
    body = f"{region}{born.replace('-', '')}{_digits(draw, 2)}{draw.choice('02468' if sex == 1 else '13579')}"
    return body + chinese_documents.check_digit(body)


def _western(draw: random.Random) -> Person:
    lists = _lists()
    places = lists["western"]
    place = draw.choices(places, [8, 3, 3, 2, 2, 2, 2, 3])[0]
    sex = draw.choice((1, 2))
    given = _zipf(draw, place["female" if sex == 1 else "male"].split(), 5)
    family = _zipf(draw, place["family"].split(), 5)
    if draw.random() < 0.01:
        given = ""
    if draw.random() < 0.25:  # most family names of a country are in no list of the common ones
        family += draw.choice(("son", "er", "man", "ley", "ton", "berg", "ska", "ini", "ov", "ard"))
    domain = draw.choice(("gmail.com", "yahoo.com", "outlook.com", "mail.com"))
    roads = lists["western_streets"].split()
    return Person(
        place["country"], sex, family, given, _birth_date(draw),
        national_id=_digits(draw, draw.choice((7, 9))),
        phone=place["dial"] + _digits(draw, place["digits"]),
        email=f"{given[: draw.choice((1, 9))]}.{family}{_digits(draw, draw.choice((0, 2)))}@{domain}",
        street=f"{draw.choice(roads)} {_zipf(draw, place['family'].split())} {draw.choice(('street', 'road', 'avenue', 'lane'))}",
        number=str(draw.randrange(1, 300)),
        city=_zipf(draw, lists["western_cities"].split()),
        postcode=f"{draw.randrange(1, 300):05}",
    )  # fmt: skip


def _digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.digits, k=count))


def _housemate(draw: random.Random, person: Person, other: Person) -> Person:
    return replace(
        person,
        family=other.family if draw.random() < 0.6 else person.family,
        phone=other.phone if draw.random() < 0.25 else person.phone,
        street=other.street, number=other.number, city=other.city, postcode=other.postcode,
    )  # fmt: skip


# ---- second records


def corrupted(draw: random.Random, person: Person) -> Person:
    """What another source says of a person: some fields missing, some mistyped, some out of date."""
    changes: dict[str, Any] = {"email": _changed(draw, person.email, missing=0.35, mistyped=0.05)}
    changes["national_id"] = _changed(draw, person.national_id, missing=0.35, mistyped=0.04)
    if draw.random() < 0.01:
        changes["national_id"] = _digits(draw, 9)
    if draw.random() < 0.1:
        changes["email"] = f"{person.given if person.given.isascii() else 'me'}{_digits(draw, 4)}@work.com"
    if draw.random() < 0.15:
        changes["sex"] = draw.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2))
    changes["phone"] = _changed(draw, person.phone, missing=0.1, mistyped=0.03)
    if draw.random() < 0.25:
        changes["phone"] = person.phone[:5] + _digits(draw, len(person.phone) - 5)
    if draw.random() < 0.05:
        changes["birth_date"] = _mistyped_date(draw, person.birth_date)
    elif draw.random() < 0.05:
        changes["birth_date"] = ""
    changes |= _changed_name(draw, person)
    changes |= _changed_address(draw, person)
    return replace(person, **changes)


def _changed(draw: random.Random, text: str, missing: float, mistyped: float) -> str:
    chance = draw.random()
    if chance < missing:
        return ""
    return _mistyped(draw, text) if chance < missing + mistyped else text


def _mistyped(draw: random.Random, text: str) -> str:
    """One slip: a wrong, lost, doubled or exchanged letter or digit."""
    places = [place for place, letter in enumerate(text) if letter.isascii() and letter.isalnum()]
    if len(places) < 3:
        return text
    place = draw.choice(places[:-1])
    kind = draw.randrange(4)
    other = draw.choice(string.digits if text[place].isdigit() else string.ascii_lowercase)
    if kind == 0:
        return text[:place] + other + text[place + 1 :]
    if kind == 1 and not text[place].isdigit():
        return text[:place] + text[place + 1 :]
    if kind == 2 and not text[place].isdigit():
        return text[:place] + text[place] + text[place:]
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def _mistyped_date(draw: random.Random, born: str) -> str:
    year, month, day = born.split("-")
    kind = draw.randrange(4)
    if kind == 0 and int(day) <= 12:
        return f"{year}-{day}-{month}"
    if kind == 1:
        return f"{int(year) + draw.choice((-10, -1, 1, 10))}-{month}-{day}"
    if kind == 2:
        return f"{year}-{month}-{draw.randrange(1, 29):02}"
    return f"{year}-{draw.randrange(1, 13):02}-{day}"


def _changed_name(draw: random.Random, person: Person) -> dict[str, Any]:
    chance = draw.random()
    if person.country == "CN":
        if chance < 0.08:
            return {"latin_only": True, "whole_name": draw.random() < 0.5}
        if chance < 0.11:
            letters = _lists()["han_given_female" if person.sex == 1 else "han_given_male"].split()
            return {"given": person.given[:-1] + draw.choice(letters)[-1]}
        return {"whole_name": chance < 0.7}
    if chance < 0.03:
        return {"family": _mistyped(draw, person.family), "given": _mistyped(draw, person.given)}
    if chance < 0.15:
        part = draw.choice(("family", "given"))
        return {part: _mistyped(draw, getattr(person, part))}
    if chance < 0.18:
        return {"given": person.given[:1]}
    if chance < 0.2 and person.sex == 1:
        return {"family": _zipf(draw, _lists()["western"][0]["family"].split())}
    if chance < 0.22:
        return {"given": ""}
    return {"swapped": chance < 0.26, "whole_name": chance > 0.8}


def _changed_address(draw: random.Random, person: Person) -> dict[str, Any]:
    chance = draw.random()
    if chance < 0.3:
        return {"street": "", "number": "", "city": "", "postcode": ""}
    if chance < 0.4:
        moved = _chinese(draw) if person.country == "CN" else _western(draw)
        return {"street": moved.street, "number": moved.number, "city": moved.city, "postcode": moved.postcode}
    if chance < 0.5:
        return {"street": _mistyped(draw, person.street)}
    if chance < 0.55:
        return {"postcode": _mistyped(draw, person.postcode)}
    if chance < 0.6:
        return {"postcode": ""}
    return {"street": "", "number": ""} if chance < 0.65 else {}


# ---- as parties


def parties(people: list[Person]) -> Iterator[Party]:
    """The records as sources would state them."""
    for person in people:
        yield party(person)


def party(person: Person) -> Party:
    """A record as a source would state it."""
    made = Party(party_kind=PartyKind.PARTY_KIND_PERSON, birth_date=person.birth_date, sex=person.sex)  # type: ignore[arg-type]
    _name(made, person)
    if person.national_id:
        made.identifiers.add(
            scheme=IdentifierScheme.IDENTIFIER_SCHEME_NATIONAL_ID,
            country_code="CN" if person.country == "CN" else "AU",  # a country whose numbers have no check digit that we know
            value=person.national_id,
        )
    if person.phone:
        made.phones.add(number=person.phone)
    if person.email:
        made.emails.add(address=person.email)
    if person.street or person.city or person.postcode:
        address = made.postal_address
        lines = f"{person.street}{person.number}" if person.country == "CN" else f"{person.number} {person.street}"
        address.address_lines.append(lines)
        address.locality, address.postal_code = person.city, person.postcode
    return made


def _name(made: Party, person: Person) -> None:
    name = made.party_name
    if person.country == "CN":
        if person.latin_only:
            family, given = han_names.pinyin(han_names.HanName(person.family, person.given)).title().split()
            name.latin_name = f"{family} {given}" if person.whole_name else f"{given} {family}"
        else:
            name.full_name = person.family + person.given
        return
    if person.whole_name:
        name.full_name = f"{person.given} {person.family}".strip()
    else:
        given, family = (person.family, person.given) if person.swapped else (person.given, person.family)
        name.given_name, name.family_name = given, family
