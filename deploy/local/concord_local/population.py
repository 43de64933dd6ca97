"""The people of the demonstration: made from a fixed seed, so that every run makes the same ones."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

Json = dict[str, Any]

SEED = 20_261_031
FIRST_DAY = date(2025, 11, 1)
DAYS = 365
CURRENCY = "CNY"

BANK, BROKER, INSURER, RETAILER = "harbour-bank", "summit-broker", "evergreen-insurance", "corner-retail"
SHARE_OF_PEOPLE = {BANK: 0.85, BROKER: 0.4, INSURER: 0.45, RETAILER: 0.7}
SYSTEM = {BANK: "core", BROKER: "trading", INSURER: "policies", RETAILER: "membership"}
HOLDING = {
    BANK: "HOLDING_KIND_DEPOSIT",
    BROKER: "HOLDING_KIND_INVESTMENT",
    INSURER: "HOLDING_KIND_POLICY",
    RETAILER: "HOLDING_KIND_MEMBERSHIP",
}

_HAN_FAMILY = {"王": "Wang", "李": "Li", "张": "Zhang", "刘": "Liu", "陈": "Chen", "杨": "Yang", "黄": "Huang", "赵": "Zhao", "吴": "Wu", "周": "Zhou", "单": "Shan", "曾": "Zeng", "欧阳": "Ouyang"}  # fmt: skip # noqa: E501
_HAN_GIVEN = {"伟": "Wei", "芳": "Fang", "娜": "Na", "敏": "Min", "静": "Jing", "强": "Qiang", "磊": "Lei", "洋": "Yang", "艳": "Yan", "杰": "Jie", "文": "Wen", "明": "Ming", "丽": "Li", "军": "Jun"}  # fmt: skip # noqa: E501
_LATIN_FAMILY = ("Novak", "Svoboda", "Smith", "Garcia", "Müller", "Rossi", "Dubois", "O'Brien", "Andersson", "Kowalska", "Silva")
_LATIN_GIVEN = ("Anna", "Jan", "Maria", "Thomas", "Sofia", "Lukas", "Eva", "Peter", "Julia", "Marek", "Clara", "Hugo")
_REGIONS = (
    ("110101", "北京市", "东城区"),
    ("310101", "上海市", "黄浦区"),
    ("440304", "广东省", "深圳市"),
    ("330106", "浙江省", "杭州市"),
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


@dataclass(frozen=True)
class Person:
    """One person and the institutions that know them."""

    number: int
    party: Json
    institutions: tuple[str, ...]

    def key(self, institution: str) -> str:
        """The key of this person in an institution's system."""
        return f"{SYSTEM[institution][0].upper()}{self.number:06d}"


def people(count: int) -> list[Person]:
    """The first `count` people."""
    return [_person(number) for number in range(1, count + 1)]


def resident_number(region: str, born: date, sequence: int) -> str:
    """A Chinese resident identity number with its check digit (GB 11643, ISO 7064 MOD 11-2)."""
    body = f"{region}{born:%Y%m%d}{sequence:03d}"
    return body + "10X98765432"[sum(int(digit) * weight for digit, weight in zip(body, _WEIGHTS, strict=True)) % 11]


def _person(number: int) -> Person:
    chance = random.Random(f"{SEED}/{number}")
    born = date(1946, 1, 1) + timedelta(days=chance.randrange(60 * 365))
    male = chance.random() < 0.5
    region, area, locality = chance.choice(_REGIONS)
    party: Json = {"partyKind": "PARTY_KIND_PERSON", "birthDate": born.isoformat(), "sex": "SEX_MALE" if male else "SEX_FEMALE"}
    if chance.random() < 0.75:
        family, given = chance.choice(list(_HAN_FAMILY)), "".join(chance.sample(list(_HAN_GIVEN), chance.choice((1, 2, 2))))
        latin = f"{_HAN_FAMILY[family]} {''.join(_HAN_GIVEN[letter] for letter in given).capitalize()}"
        party["partyName"] = {"fullName": family + given, "familyName": family, "givenName": given, "latinName": latin}
        sequence = (number % 500) * 2 + (1 if male else 0)
        party["identifiers"] = [_document("IDENTIFIER_SCHEME_NATIONAL_ID", "CN", resident_number(region, born, sequence))]
        party |= {"languageCode": "zh-CN", "timeZone": "Asia/Shanghai"}
    else:
        family, given = chance.choice(_LATIN_FAMILY), chance.choice(_LATIN_GIVEN)
        party["partyName"] = {"fullName": f"{given} {family}", "familyName": family, "givenName": given}
        party["identifiers"] = [_document("IDENTIFIER_SCHEME_PASSPORT", "GB", f"{100_000_000 + number}")]
        party |= {"languageCode": "en-GB", "timeZone": "Europe/London"}
    party["phones"] = [{"number": f"13{number % 10}{10_000_000 + number * 37 % 89_999_999:08d}", "countryCode": "CN"}]
    party["emails"] = [{"address": f"customer{number}@example.org"}]
    party["postalAddress"] = {
        "addressLines": [f"{chance.randrange(1, 400)} Harbour Road"],
        "locality": locality,
        "administrativeArea": area,
        "postalCode": f"{chance.randrange(100_000, 700_000)}",
        "countryCode": "CN",
    }
    known = tuple(name for name, share in SHARE_OF_PEOPLE.items() if chance.random() < share) or (BANK,)
    return Person(number, party, known)


def _document(scheme: str, country: str, value: str) -> Json:
    return {"scheme": scheme, "countryCode": country, "value": value}


def record(person: Person, institution: str) -> Json:
    """The person as one institution sees them: each knows a little less or something else."""
    chance = random.Random(f"{SEED}/{person.number}/{institution}")
    party = dict(person.party)
    if chance.random() < 0.25:
        party.pop("emails")
    if chance.random() < 0.2:
        party["phones"] = [{"number": f"159{20_000_000 + person.number * 53 % 70_000_000:08d}", "countryCode": "CN"}]
    if institution == RETAILER:
        party.pop("postalAddress")
        party["occupation"] = chance.choice(("teacher", "engineer", "nurse", "driver", "accountant"))
    observed = FIRST_DAY - timedelta(days=chance.randrange(30, 2000))
    return {"sourceRecordKey": person.key(institution), "observeTime": _instant(observed, 9), "party": party}


def holding(person: Person, institution: str) -> Json:
    """What the person holds at an institution."""
    chance = random.Random(f"{SEED}/{person.number}/{institution}/holding")
    opened = FIRST_DAY - timedelta(days=chance.randrange(60, 3_000))
    return {
        "sourceHoldingKey": f"H-{person.key(institution)}",
        "observeTime": _instant(FIRST_DAY, 1),
        "kind": HOLDING[institution],
        "openDate": opened.isoformat(),
        "standing": "HOLDING_STANDING_PERFORMING",
        "holders": [{"sourceRecordKey": person.key(institution), "role": "HOLDER_ROLE_OWNER"}],
    }


def activities(person: Person, institution: str) -> Iterator[Json]:
    """A year of one person's activities at one institution."""
    chance = random.Random(f"{SEED}/{person.number}/{institution}/activities")
    income = chance.lognormvariate(9.2, 0.6)
    name = f"institutions/{institution}/sourceSystems/{SYSTEM[institution]}"

    def made(kind: str, day: date, detail: Json) -> Json:
        return {
            "sourceSystem": name,
            "sourceActivityKey": f"{person.key(institution)}-{kind}-{day:%Y%m%d}",
            "sourceRecordKey": person.key(institution),
            "sourceHoldingKey": f"H-{person.key(institution)}",
            "detail": {"occurredAt": _instant(day, chance.randrange(8, 20)), **detail},
        }

    for month in range(12):
        first = FIRST_DAY + timedelta(days=30 * month)
        if institution == BANK:
            yield made("salary", first, _transaction(income, "salary", "EMPLOYER"))
            spent = income * chance.uniform(0.02, 0.25)
            yield made("grocery", first + timedelta(days=chance.randrange(1, 28)), _transaction(-spent, "grocery", "MERCHANT"))
        if institution == RETAILER and chance.random() < 0.65:
            spent = chance.uniform(40, 900)
            yield made("purchase", first + timedelta(days=chance.randrange(28)), _transaction(-spent, "retail", "MERCHANT"))
        if institution == BROKER and month % 3 == 0:
            yield made("trade", first + timedelta(days=chance.randrange(28)), _transaction(-income, "securities", "SELF"))
        if institution in (BANK, BROKER) and month % 3 == 2:
            earned = {"month": f"{first:%Y-%m}", "interestMargin": _money(income * 0.03), "fees": _money(20), "cost": _money(15)}
            yield made("margin", first + timedelta(days=28), {"margin": earned})
    if institution == INSURER:
        yield made(
            "premium", FIRST_DAY + timedelta(days=chance.randrange(DAYS)), _transaction(-income / 4, "premium", "INSTITUTION")
        )
    if institution == BANK:
        risk = {"model": "retail-2025/2", "defaultProbabilityPpm": chance.randrange(500, 60_000)}
        yield made("risk", FIRST_DAY + timedelta(days=chance.randrange(DAYS)), {"riskScore": risk})


def _transaction(amount: float, category: str, counterparty: str) -> Json:
    return {
        "transaction": {"amount": _money(amount), "category": category, "counterpartyKind": f"COUNTERPARTY_KIND_{counterparty}"}
    }


def _money(amount: float) -> Json:
    return {"currencyCode": CURRENCY, "minorUnits": str(round(amount * 100))}


def _instant(day: date, hour: int) -> str:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
