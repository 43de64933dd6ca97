"""One customer's way through all five services, over HTTP only, as channel systems go it."""

import uuid

import pytest
from alliance import found, record, until
from running import Platform

from concord_local.api import Problem, patiently

pytestmark = pytest.mark.system


async def test_one_customer_through_all_five_services(platform: Platform) -> None:
    mark = uuid.uuid4().hex[:8]
    bank, shop, program = f"bank-{mark}", f"shop-{mark}", f"points-{mark}"
    passport = [{"scheme": "IDENTIFIER_SCHEME_PASSPORT", "countryCode": "GB", "value": f"9{int(mark, 16) % 10**8:08d}"}]
    async with platform.gateway() as gateway:
        await found(gateway, bank, shop, program)
        channel, staff, till = gateway.token("channel", bank), gateway.token("staff", bank), gateway.token("channel", shop)

        # Three systems of two institutions know her; the document makes them one customer.
        core, web = (f"/v1/institutions/{bank}/sourceSystems/{name}/records:ingest" for name in ("core", "web"))
        first = await gateway.post(
            core,
            channel,
            record(
                "c-1",
                "2026-01-01T00:00:00Z",
                partyName={"fullName": "Anna Nováková"},
                identifiers=passport,
                phones=[{"number": "+420601234567"}],
                birthDate="1980-02-29",
            ),
        )
        assert (first["outcome"], first["resolutionReason"]) == (
            "INGEST_OUTCOME_CREATED",
            "RESOLUTION_REASON_NEW_CUSTOMER",
        )
        customer = first["customer"]
        second = await gateway.post(
            web,
            channel,
            record(
                "w-9",
                "2026-06-01T00:00:00Z",
                partyName={"fullName": "Anna Novakova"},
                identifiers=passport,
                emails=[{"address": "anna@example.org"}],
            ),
        )
        assert (second["customer"], second["resolutionReason"]) == (customer, "RESOLUTION_REASON_IDENTITY_DOCUMENT")
        third = await gateway.post(
            f"/v1/institutions/{shop}/sourceSystems/till/records:ingest",
            till,
            record("t-5", "2026-03-01T00:00:00Z", partyName={"fullName": "A. Novak"}, identifiers=passport),
        )
        assert third["customer"] == customer

        # The bank's golden record: the better rank wins although the other is newer; every value names its source.
        golden = await gateway.get(f"/v1/{customer}", channel)
        assert golden["partyName"]["fullName"] == "Anna Nováková"
        assert golden["emails"][0]["address"] == "anna@example.org"
        sources = {item["field"]: item["sourceSystem"] for item in golden["provenances"]}
        assert sources["emails[0]"] == f"institutions/{bank}/sourceSystems/web"
        assert all(shop not in source for source in sources.values()), "the shop's values are not the bank's to see"
        assert (await gateway.get(f"/v1/{customer}", till))["partyName"]["fullName"] == "A. Novak"
        hits = await gateway.ask("/v1/customers:search", channel, {"phone": "+420 601 234 567"})
        assert [hit["name"] for hit in hits["customers"]] == [customer]
        with pytest.raises(Problem) as stranger:
            await gateway.get(f"/v1/{customer}", gateway.token("channel", "nobody-there"))
        assert stranger.value.status == 404

        # Points: an account, a linked bank, groceries.
        body = {"customer": customer, "institutions": [f"institutions/{bank}"]}
        account = (await patiently(lambda: gateway.post("/v1/accounts:open", channel, body)))["name"]
        spent = {
            "sourceSystem": f"institutions/{bank}/sourceSystems/core",
            "sourceActivityKey": "a-1",
            "sourceRecordKey": "c-1",
            "detail": {
                "occurredAt": "2026-07-01T10:00:00Z",
                "transaction": {"amount": {"currencyCode": "CZK", "minorUnits": "-250000"}, "category": "grocery"},
            },
        }
        for outcome in ("INGEST_OUTCOME_CREATED", "INGEST_OUTCOME_UNCHANGED"):
            answer = await gateway.post("/v1/activities:record", channel, {"activities": [spent]})
            assert answer["results"][0]["outcome"] == outcome
        await until(
            lambda: gateway.get(f"/v1/{account}", channel),
            lambda read: (
                [(one["program"], one["balancePoints"]) for one in read.get("balances", [])] == [(f"programs/{program}", "2500")]
            ),
        )
        redeem = {"program": f"programs/{program}", "amountPoints": "700", "institution": f"institutions/{shop}"}
        key = f"redeem-{mark}"
        operation = await gateway.post(f"/v1/{account}:redeem", channel, redeem, request_id=key)
        assert operation == await gateway.post(f"/v1/{account}:redeem", channel, redeem, request_id=key), "a retry is the same"
        with pytest.raises(Problem) as reused:
            await gateway.post(f"/v1/{account}:redeem", channel, {**redeem, "amountPoints": "701"}, request_id=key)
        assert (reused.value.status, reused.value.body["reason"]) == (422, "REQUEST_ID_REUSED")
        with pytest.raises(Problem) as poor:
            await gateway.post(f"/v1/{account}:redeem", channel, {**redeem, "amountPoints": "1801"})
        assert (poor.value.status, poor.value.body["reason"]) == (409, "INSUFFICIENT_POINTS")
        lines = (await gateway.get(f"/v1/{account}/statement", channel))["statementLines"]
        assert [(line["amountPoints"], line["balancePoints"]) for line in lines] == [("-700", "1800"), ("2500", "2500")]

        # Rated, in the alliance and at the bank; what cannot be measured is not zero.
        rating = await until(
            lambda: patiently(lambda: gateway.get(f"/v1/{customer}/ratings/alliance", channel)),
            lambda read: bool(read) and len(read["degrees"]) == 6,
        )
        degrees = {degree["kind"]: degree for degree in rating["degrees"]}
        assert degrees["DEGREE_KIND_COMPLETENESS"]["value"] > 0
        assert "value" not in degrees["DEGREE_KIND_CREDIT"]
        assert degrees["DEGREE_KIND_CREDIT"]["reasons"]

        # Reached by a campaign, under permission and policy.
        permission = {
            "customer": customer,
            "channel": "CHANNEL_INBOX",
            "purpose": "CONTACT_PURPOSE_MARKETING",
            "state": "PERMISSION_STATE_GRANTED",
            "stateTime": "2026-01-01T00:00:00Z",
        }
        answer = await gateway.post(
            f"/v1/institutions/{bank}/permissions:batchSet",
            channel,
            {"permissions": [permission]},
        )
        assert answer["results"][0]["outcome"] == "SET_PERMISSION_OUTCOME_SET"
        offer = {"displayName": "o", "title": "A better rate", "body": "Come in."}
        await gateway.post(f"/v1/institutions/{bank}/offers", staff, offer, offer_id="better")
        rich = {
            "field": "AUDIENCE_FIELD_POINTS_BALANCE",
            "fieldKey": program,
            "operator": "AUDIENCE_OPERATOR_AT_LEAST",
            "number": 1_800,
        }
        campaign = await gateway.post(
            f"/v1/institutions/{bank}/campaigns",
            staff,
            {
                "displayName": "spring",
                "offer": f"institutions/{bank}/offers/better",
                "channel": "CHANNEL_INBOX",
                "audienceRule": {"allOf": [{"anyOf": [rich]}]},
            },
        )
        preview = f"/v1/{campaign['name']}:previewAudience"
        await until(lambda: gateway.get(preview, staff), lambda read: read.get("matchingCount") == "1")
        await gateway.post(f"/v1/{campaign['name']}:launch", staff, {})
        await until(
            lambda: gateway.get(f"/v1/{campaign['name']}:metrics", staff),
            lambda read: read.get("deliveredCount") == "1",
        )
        inbox = (await gateway.get(f"/v1/{customer}/inboxMessages", channel))["inboxMessages"]
        assert [message["title"] for message in inbox] == ["A better rate"]
        await gateway.post(f"/v1/{inbox[0]['name']}:read", channel, {})
        await until(
            lambda: gateway.get(f"/v1/{campaign['name']}:metrics", staff),
            lambda read: read.get("readCount") == "1",
        )

        # One view of all, and a ledger that adds up.
        view = await gateway.get(f"/v1/{customer}:view", channel)
        assert view["missing"] == []
        assert (await gateway.ask("/v1/invariants:verify", gateway.token("operator"), {}))["valid"] is True
