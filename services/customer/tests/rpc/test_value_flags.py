"""Values that fail a check, through the service."""


async def test_what_fails_a_check_is_kept_flagged_and_believed_less(master):
    card = {"identifiers": [{"scheme": 1, "country_code": "CN", "value": "360426199101010071", "valid_until_date": "2020-01-01"}]}
    one = await master.ingest("k1", name="Wei", born="1991-02-30", phone="12 34", **card)
    await master.ingest("k2", day=-1, name="Wei", born="1991-01-01", **card)
    customer = await master.get(one.customer)
    assert [record.resolution_reason != "" for record in customer.linked_records] == [True, True]
    assert customer.birth_date == "1991-01-01"
    assert {(flag.field, flag.reason) for flag in customer.value_flags} == {
        ("phones[0].number", "FORM_WRONG"), ("identifiers[0].valid_until_date", "EXPIRED"),
    }  # fmt: skip
    alone = await master.ingest("k3", name="Nobody", born="1991-02-30")
    [flag] = (await master.get(alone.customer)).value_flags
    assert (flag.field, flag.reason, "1991" in flag.description) == ("birth_date", "DATE_IMPOSSIBLE", False)
