"""An erased person is found nowhere: in no table, no file of PostgreSQL with its write-ahead log, none of NATS, and no log.

Values are planted over HTTP wherever the platform takes them, then looked for in many encodings. Nothing readable was ever
written, so neither VACUUM nor the end of any file's life is waited for.
"""

import base64
import random
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alliance import found, record, until
from running import Platform

from concord_local.api import Gateway, Problem, patiently
from concord_local.stack import DATABASES

pytestmark = pytest.mark.system
Json = dict[str, Any]
CHUNK_BYTES = 16 << 20
SEEN = "2026-01-01T00:00:00Z"


class Markers:
    """The planted values, which stand nowhere else, and all the bytes they could be found as."""

    def __init__(self) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.word = "".join(secrets.choice(letters) for _ in range(14))
        self.phone = f"77{random.randrange(10**7):07d}"
        self.passport = f"ZX{random.randrange(10**9):09d}"
        self.han = "".join(chr(random.randrange(0x4E00, 0x9FA0)) for _ in range(4))
        self.control = "".join(secrets.choice(letters) for _ in range(14))

    def patterns(self) -> dict[bytes, str]:
        """What to look for, lower case, and what it is."""
        return {
            form: f"{kind} of {text[:2]}…"
            for text in (self.word, self.phone, self.passport.lower(), self.han)
            for kind, form in forms(text)
        }


def forms(text: str) -> Iterator[tuple[str, bytes]]:
    """A text in the encodings it might have been written in, lower case."""
    plain = text.encode()
    encoded = {"UTF-8": plain, "UTF-16LE": text.encode("utf-16-le"), "UTF-16BE": text.encode("utf-16-be")}
    if not text.isascii():
        encoded["JSON"] = text.encode("unicode-escape")
        encoded["GB 18030"] = text.encode("gb18030")
        encoded["percent"] = "".join(f"%{byte:02x}" for byte in plain).encode()
    encoded["hex"] = plain.hex().encode()
    for shift in range(3):  # what stands before decides where the groups of three begin; the letters at the edges depend on it
        inner = base64.b64encode(b"\0" * shift + plain)
        encoded[f"base64+{shift}"] = inner[(0, 2, 3)[shift] : len(inner) // 4 * 4 - 4]
    for kind, form in encoded.items():
        yield kind, form.lower()


def found_in_files(folder: Path, patterns: dict[bytes, str]) -> set[tuple[str, str]]:
    """(file, what) for everything found in any file below a folder."""
    overlap = max(map(len, patterns))
    findings = set()
    for path in folder.rglob("*"):
        if not path.is_file() or "programs" in path.parts:
            continue
        tail = b""
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    content = tail + chunk.lower()
                    findings |= {(str(path.relative_to(folder)), what) for form, what in patterns.items() if form in content}
                    tail = content[-overlap:]
        except FileNotFoundError:  # PostgreSQL removes files while we look
            continue
    return findings


async def found_in_tables(platform: Platform, patterns: dict[bytes, str]) -> set[tuple[str, str]]:
    """(table, what) for everything found in any row of any database; compressed values are read as what they are."""
    findings = set()
    for database in DATABASES:
        connection = await asyncpg.connect(platform.stack.database_url(database))
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in tables:
            rows = await connection.fetch(f'SELECT t::text FROM "{table}" t')
            content = "\n".join(row[0] for row in rows).lower().encode()
            findings |= {(f"{database}.{table}", what) for form, what in patterns.items() if form in content}
        await connection.close()
    return findings


async def everywhere(platform: Platform, patterns: dict[bytes, str]) -> set[tuple[str, str]]:
    """Tables and files, after PostgreSQL has written what it holds in memory."""
    assert platform.stack.postgres is not None
    superuser = await asyncpg.connect(platform.stack.postgres.url())
    await superuser.execute("CHECKPOINT")
    await superuser.close()
    return await found_in_tables(platform, patterns) | found_in_files(platform.folder, patterns)


@pytest.mark.parametrize("text", ["markerword", "ZX012345678", "张伟明李"])
def test_a_marker_is_seen_in_whatever_encoding_it_stands(text: str) -> None:
    around = (f"{'x' * before}{text}{'y' * after}" for before in range(4) for after in range(4))
    written = [
        form
        for one in around
        for form in (
            one.encode(), one.encode("utf-16-le"), one.encode("utf-16-be"), base64.b64encode(one.encode()),
            one.encode().hex().upper().encode(), one.encode("unicode-escape"), one.encode("gb18030"),
        )
    ]  # fmt: skip
    patterns = [form for _, form in forms(text)]
    assert all(any(form in content.lower() for form in patterns) for content in written)


class World:
    """An alliance in which a person leaves traces wherever the platform takes values."""

    def __init__(self, gateway: Gateway, platform: Platform, markers: Markers) -> None:
        mark = uuid.uuid4().hex[:8]
        self.gateway, self.platform, self.markers = gateway, platform, markers
        self.bank, self.shop, self.program = f"bank-{mark}", f"shop-{mark}", f"points-{mark}"
        self.operator = gateway.token("operator")
        self.channel, self.staff = gateway.token("channel", self.bank), gateway.token("staff", self.bank)
        self.till = gateway.token("channel", self.shop)
        self.core = f"institutions/{self.bank}/sourceSystems/core"

    def party(self, **more: Any) -> Json:
        """The person, every field of whom holds a marker."""
        word = self.markers.word
        return {
            "partyName": {"fullName": f"Zdena {word.title()}", "latinName": f"{word} zdena", "aliases": [self.markers.han]},
            "birthDate": "1971-02-03",
            "identifiers": [
                {
                    "scheme": "IDENTIFIER_SCHEME_PASSPORT",
                    "countryCode": "GB",
                    "value": self.markers.passport,
                    "issuer": f"office {word}",
                }
            ],
            "phones": [{"number": f"+420{self.markers.phone}"}],
            "emails": [{"address": f"{word}@{word}.example"}],
            "postalAddress": {"addressLines": [f"{word} street 1"], "locality": f"{word}ville", "countryCode": "CZ"},
            "occupation": f"{word} maker",
            "employment": {"employerName": f"{word} works", "jobTitle": f"chief {word}"},
            **more,
        }

    async def plant(self) -> str:
        """Leaves traces; returns the customer."""
        gateway, word = self.gateway, self.markers.word
        body = record(f"key-{word}", SEEN, **self.party())
        customer = str((await gateway.post(f"/v1/{self.core}/records:ingest", self.channel, body))["customer"])
        changed = record(f"key-{word}", "2026-02-01T00:00:00Z", **self.party(occupation=f"former {word}"))
        late = record(f"key-{word}", "2025-01-01T00:00:00Z", **self.party(occupation=f"young {word}"))
        refused = record(f"wrong-{word}", "2999-01-01T00:00:00Z", **self.party())
        body = {"sourceRecords": [one["sourceRecord"] for one in (changed, late, refused)]}
        results = (await gateway.post(f"/v1/{self.core}/records:batchIngest", self.channel, body))["results"]
        assert [one["outcome"][15:] for one in results] == ["UPDATED", "STALE", "REJECTED"]
        till = f"/v1/institutions/{self.shop}/sourceSystems/till/records:ingest"
        assert (await gateway.post(till, self.till, record(f"shop-{word}", SEEN, **self.party())))["customer"] == customer
        await self._plant_refusals()
        await self._plant_import()
        await self._plant_around(customer)
        return customer

    async def _plant_refusals(self) -> None:
        """What is searched, tried or wrong must not stay in a log either."""
        gateway, word = self.gateway, self.markers.word
        criteria: list[Json] = [
            {"phone": f"+420{self.markers.phone}"}, {"email": f"{word}@{word}.example"}, {"personName": word},
            {"identifier": self.markers.passport}, {"personName": self.markers.han},
        ]  # fmt: skip
        for criterion in criteria:
            answer = await gateway.ask("/v1/customers:search", self.channel, criterion)
            assert len(answer["customers"]) == 1, criterion
        await gateway.ask("/v1/customers:resolve", self.channel, {"party": {"partyKind": "PARTY_KIND_PERSON", **self.party()}})
        broken = record(f"key-{word}", SEEN, **self.party(birthDate=word))
        for body in (broken, {"sourceRecord": word}, {word: word}):
            with pytest.raises(Problem):
                await gateway.post(f"/v1/{self.core}/records:ingest", self.channel, body)

    async def _plant_import(self) -> None:
        word = self.markers.word
        lines = [
            "source_record_key,full_name,birth_date,passport,passport_country,phone,email,address_line_1",
            f"file-{word},Zdena {word.title()},1971-02-03,{self.markers.passport},GB,+420{self.markers.phone},{word}@x.example,",
            f"bad-{word},Zdena {word.title()},{word},{self.markers.passport},GB,,,",
        ]
        body: Json = {"format": "IMPORT_FORMAT_CSV", "defaultObserveTime": SEEN, "defaultCountryCode": "CZ"}
        made = (await self.gateway.post(f"/v1/{self.core}/imports", self.channel, body))["name"]
        content = base64.b64encode("\n".join(lines).encode()).decode()
        await self.gateway.post(f"/v1/{made}:uploadPart", self.channel, {"partNumber": 1, "content": content})
        await self.gateway.post(f"/v1/{made}:start", self.channel, {"partsCount": 1})
        ended = await until(lambda: self.gateway.get(f"/v1/{made}", self.channel), lambda read: "finishTime" in read)
        assert (ended["createdCount"], ended["rejectedCount"]) == ("1", "1"), ended

    async def _plant_around(self, customer: str) -> None:
        """Consent, KYC, reveal, holding-less activity, relationship, contact, points."""
        gateway, word = self.gateway, self.markers.word
        consent = {"purposeCode": "JOINT_OFFERS", "attributes": ["ATTRIBUTE_PHONE"], "evidenceReference": f"scan/{word}"}
        await gateway.post(f"/v1/{customer}/sharingConsents", self.staff, consent)
        await self._plant_kyc(customer)
        why = {"reasonCode": "CUSTOMER_CALLED", "reasonText": f"{word} called"}
        assert word in str(await gateway.post(f"/v1/{customer}:reveal", self.staff, why))
        await gateway.post(f"/v1/{customer}:export", self.staff, {"reasonCode": "DATA_SUBJECT_REQUEST"})
        money = {"currencyCode": "CZK", "minorUnits": "-99900"}
        activity = {
            "sourceSystem": self.core,
            "sourceActivityKey": f"bought-{word}",
            "sourceRecordKey": f"key-{word}",
            "detail": {"occurredAt": "2026-07-01T10:00:00Z", "transaction": {"amount": money, "category": "grocery"}},
        }
        await gateway.post("/v1/activities:record", self.channel, {"activities": [activity]})
        opening = {"customer": customer, "institutions": [f"institutions/{self.bank}"]}
        await patiently(lambda: gateway.post("/v1/accounts:open", self.channel, opening))
        permission = {
            "customer": customer,
            "channel": "CHANNEL_INBOX",
            "purpose": "CONTACT_PURPOSE_MARKETING",
            "state": "PERMISSION_STATE_GRANTED",
            "stateTime": SEEN,
        }
        path = f"/v1/institutions/{self.bank}/permissions:batchSet"
        await gateway.post(path, self.channel, {"permissions": [permission]})
        await self.platform.until_settled()

    async def _plant_kyc(self, customer: str) -> None:
        word = self.markers.word
        try:
            case = await self.gateway.post(f"/v1/{customer}/kycCases", self.staff, {})
        except Problem as problem:
            if problem.status == 501:  # a customer master without KYC
                return
            raise
        evidence = {"result": "KYC_STEP_RESULT_PASSED", "reference": f"archive/{word}", "note": f"saw {word} herself"}
        body: Json = {"stepId": case["steps"][0]["stepId"], "evidence": evidence}
        await self.gateway.post(f"/v1/{case['name']}:recordEvidence", self.staff, body)


async def test_an_erased_person_is_found_nowhere(platform: Platform) -> None:
    markers = Markers()
    async with platform.gateway() as gateway:
        world = World(gateway, platform, markers)
        await found(gateway, world.bank, world.shop, world.program)
        control: Json = {"displayName": markers.control, "defaultRank": 9}
        path = f"/v1/institutions/{world.bank}/sourceSystems"
        await gateway.post(path, world.operator, control, source_system_id="control")
        customer = await world.plant()
        record_ids = [row["record_id"] for row in await _records(platform, customer)]
        assert len(record_ids) == 3, "two of the bank, one of the shop"
        readable = await everywhere(platform, markers.patterns())
        assert readable == set(), "nothing is readable even while the person is there"

        erasure = await gateway.post(f"/v1/{customer}:erase", world.operator, {"legalBasisCode": "DATA_SUBJECT_REQUEST"})
        assert erasure["state"] == "ERASURE_STATE_ERASED", erasure
        await platform.until_settled()
        for token in (world.channel, world.operator):
            with pytest.raises(Problem) as gone:
                await gateway.get(f"/v1/{customer}", token)
            assert gone.value.status == 404
            assert not (await gateway.ask("/v1/customers:search", token, {"personName": markers.word})).get("customers")
        keys = "SELECT count(*) FROM data_keys WHERE key_id = ANY($1::uuid[])"
        assert (await platform.query("customer-keys", keys, record_ids))[0][0] == 0
        left = await everywhere(platform, markers.patterns() | {markers.control.encode(): "control"})
        assert {what for _, what in left} == {"control"}, left
        places = {place.partition("/")[0].partition(".")[0] for place, _ in left}
        assert {"customer", "postgres"} <= places, "what is readable is found in tables and files: the search works"


async def _records(platform: Platform, customer: str) -> list[asyncpg.Record]:
    statement = "SELECT record_id FROM records WHERE customer_id = $1::uuid"
    return await platform.query("customer", statement, customer.rpartition("/")[2])
