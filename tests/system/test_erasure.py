"""An erased person is found nowhere: in no table, no file of PostgreSQL with its write-ahead log, none of NATS, and no log.

Values are planted over HTTP wherever the platform takes them, then looked for in many encodings. Nothing readable was ever
written, so neither VACUUM nor the end of any file's life is waited for.
"""

import base64
import uuid
from typing import Any

import asyncpg
import pytest
from alliance import found, record, until
from markers import Markers, everywhere, forms
from running import Platform

from chassis.answers import number_of
from concord_local.api import Gateway, Problem, patiently
from concord_local.stack import SERVICES

pytestmark = pytest.mark.system
Json = dict[str, Any]
SEEN = "2026-01-01T00:00:00Z"


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
        self.asked: list[tuple[str, str, Json, str]] = []  # path, token, body, request id

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
        customer = str((await self.ask_again_later(f"/v1/{self.core}/records:ingest", self.channel, body))["customer"])
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
        await patiently(lambda: self.ask_again_later("/v1/accounts:open", self.channel, opening))
        permission = {
            "customer": customer,
            "channel": "CHANNEL_INBOX",
            "purpose": "CONTACT_PURPOSE_MARKETING",
            "state": "PERMISSION_STATE_GRANTED",
            "stateTime": SEEN,
        }
        path = f"/v1/institutions/{self.bank}/permissions:batchSet"
        await self.ask_again_later(path, self.channel, {"permissions": [permission]})
        await self.platform.until_settled()

    async def _plant_kyc(self, customer: str) -> None:
        word = self.markers.word
        case = await self.gateway.post(f"/v1/{customer}/kycCases", self.staff, {})
        evidence = {"result": "KYC_STEP_RESULT_PASSED", "reference": f"archive/{word}", "note": f"saw {word} herself"}
        body: Json = {"stepId": case["steps"][0]["stepId"], "evidence": evidence}
        answer = await self.ask_again_later(f"/v1/{case['name']}:recordEvidence", self.staff, body)
        assert word in str(answer), "who recorded it is answered with it"

    async def ask_again_later(self, path: str, token: str, body: Json) -> Json:
        """Asks, and notes what was asked: after the erasure the same request must not be answered with the person."""
        request_id = uuid.uuid4().hex
        self.asked.append((path, token, body, request_id))
        return await self.gateway.post(path, token, body, request_id=request_id)

    async def nobody_is_answered_again(self) -> None:
        """The requests of before are decided anew: they find nobody."""
        outcomes = []
        for path, token, body, request_id in self.asked:
            try:
                answer = await self.gateway.post(path, token, body, request_id=request_id)
                [result] = answer.get("results", [answer])
                outcomes.append(result["outcome"])
            except Problem as problem:
                outcomes.append(str(problem.status))
        assert outcomes == ["INGEST_OUTCOME_REJECTED", "404", "404", "SET_PERMISSION_OUTCOME_CUSTOMER_UNKNOWN"]


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
        named = [number_of(each) for each in (uuid.UUID(customer.rpartition("/")[2]), *record_ids)]
        assert {service for service in SERVICES if await _answers(platform, service, named)} >= {"customer", "contact", "loyalty"}

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
        kept = {service: await _answers(platform, service, named) for service in SERVICES}
        assert kept.pop("customer") == ["EraseCustomer"], "who asked for it may ask again"
        assert not any(kept.values()), kept
        await world.nobody_is_answered_again()
        left = await everywhere(platform, markers.patterns() | {markers.control.encode(): "control"})
        assert {what for _, what in left} == {"control"}, left
        places = {place.partition("/")[0].partition(".")[0] for place, _ in left}
        assert {"customer", "postgres"} <= places, "what is readable is found in tables and files: the search works"


async def _records(platform: Platform, customer: str) -> list[asyncpg.Record]:
    statement = "SELECT record_id FROM records WHERE customer_id = $1::uuid"
    return await platform.query("customer", statement, customer.rpartition("/")[2])


async def _answers(platform: Platform, service: str, named: list[int]) -> list[str]:
    """The methods whose kept answers name somebody."""
    statement = "SELECT split_part(method, '/', 3) FROM idempotency WHERE named_numbers && $1::bigint[]"
    return [row[0] for row in await platform.query(service, statement, named)]
